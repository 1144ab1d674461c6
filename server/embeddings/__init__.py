"""Embeddings of texts, from a small sentence encoder in a process of its own.

    python -m server.embeddings --uds PATH [--encoder fake]

The web process does not load torch: it starts this one at the first request (``service``), talks to
it over a unix socket (``client``), and ends it after some idle minutes. Inside the process
(``__main__``, ``encoding_service``), one model computes one bounded batch after the other, and the
tenants that wait take turns.
"""
