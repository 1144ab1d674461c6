"""vLLM: ``launch`` chooses its settings, by ``hardware``; ``plugin`` is what we add to it."""
