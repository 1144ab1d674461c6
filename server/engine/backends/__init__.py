"""The engines: ``vllm`` and ``fake`` say how to start one, ``remote`` watches one that runs."""
