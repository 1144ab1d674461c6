"""Embeddings of texts, from a small sentence encoder in a process of its own.

    python -m server.embeddings --uds PATH [--encoder fake]

The web process stays free of torch: it starts this one at the first request, speaks to it over a
unix socket, and ends it after some idle minutes. Inside, one model computes one bounded batch
after the other, and the tenants that wait take turns.
"""
