"""Answers grounded in what was answered before: indexes, what a request is shown, and receipts."""
