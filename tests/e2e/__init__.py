"""Whole processes. A package, so that its tests share the one installation with a real engine."""
