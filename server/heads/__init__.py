"""Heads: small classifiers of what customers write.

A tenant uploads labelled texts, a worker trains (``server/jobs/head_training.py``), and the version
that is live labels messages (``server/insights``).
"""
