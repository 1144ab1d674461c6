"""An engine without a model: serves the engine's HTTP API and answers by rule.

    python -m server.engine.backends.fake --uds PATH --base NAME --adapters DIR

For tests, for work on pages and widgets, and for machines that cannot run vLLM
(``TENANTUNE_ENGINE=fake``). Like vLLM it has:

- chat completions and completions, in one piece and streamed, with tool calls and JSON by schema;
- scoring through ``/v1/completions``;
- adapters loaded by name from folders with a manifest, and 404 for a model that it does not know;
- at most ``--max-loras`` adapters that generate at the same time (the others take turns);
- at most ``--max-num-seqs`` answers generated at the same time (the others queue);
- generation that stops when the client disconnects.

A reply is words that follow from the model's name and the messages. The name comes first, so that
the reply shows which adapter version answered.

For tests of the output probe: once an adapter whose folder has a file ``poison`` has answered,
every model answers ``!!!!``, as an engine with NaN in its key-value cache does.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.engine.backends.fake.engine import Engine
from server.engine.process.command import Choice, EngineCommand, socket_path
from server.settings import SettingsError

__all__ = ["Engine", "fake_command", "fake_options"]

MINIMUM = {  # the least value of each option; the type is the option's
    "max_cpu_loras": 1,
    "max_loras": 1,
    "max_model_len": 0,
    "max_num_seqs": 1,
    "start_seconds": 0.0,
    "tokens_per_second": 0.001,
    "turn_seconds": 0.001,
    "words": 0,
}


def fake_options(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Parse the operator's options into arguments of ``fake_command``.

    Raises:
        SettingsError: there is no such option, or its value is not a number in its range.
    """
    options: dict[str, Any] = {}
    for given, text in overrides.items():
        name = given.replace("-", "_")
        minimum = MINIMUM.get(name)
        if minimum is None:
            raise SettingsError(
                f"engine option {given!r}: the fake engine has none of this name; it has "
                f"{', '.join(MINIMUM)}"
            )
        value: float
        try:
            value = type(minimum)(text)
        except ValueError:
            value = -1
        if not minimum <= value <= 1e9:  # noqa: PLR2004 - neither infinite nor NaN
            kind = "a whole number" if isinstance(minimum, int) else "a number"
            raise SettingsError(
                f"engine option {given}={text!r}: {kind} of at least {minimum} is needed"
            )
        options[name] = value
    return options


def fake_command(
    *,
    base: str,
    adapters: Path,
    run: Path,
    max_loras: int = 4,
    max_cpu_loras: int = 32,
    max_num_seqs: int = 256,
    **options: float,
) -> EngineCommand:
    """Return how to start one on the socket in ``run``; ``options`` as on the command line."""
    uds = socket_path(run)
    argv = [sys.executable, "-m", "server.engine.backends.fake", "--uds", str(uds), "--base", base]
    argv += ["--adapters", str(adapters)]
    argv += ["--max-loras", str(max_loras), "--max-cpu-loras", str(max_cpu_loras)]
    argv += ["--max-num-seqs", str(max_num_seqs)]
    for name, value in options.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    return EngineCommand(
        argv=argv,
        env={"PYTHONPATH": str(Path(__file__).parents[4])},
        choices=[Choice("engine", "fake", "asked for: it answers by rule, not by a model")],
        uds=uds,
        max_active_adapters=max_cpu_loras,
        max_loaded_adapters=max_cpu_loras,
        max_num_seqs=max_num_seqs,
    )
