"""The engine: what answers, and how it is kept running.

``service`` is what the rest of the server uses. Under it:

- ``backend`` is the interface of an engine, ``client`` its implementation over HTTP;
- ``backends`` has the engines: vLLM, the fake one, and one that runs elsewhere;
- ``process`` starts, watches and ends a child process;
- ``adapter_cache`` decides which adapters are loaded and which may run;
- ``output_probe`` and ``output_monitor`` find an engine whose answers have become wrong;
- ``connection`` holds an engine together with what is known of its present life.
"""
