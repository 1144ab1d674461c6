"""Makes the engine that the settings ask for."""

import sys

from server.engine.command import Choice, EngineCommand
from server.engine.service import EngineService
from server.engine.vllm import vllm_command
from server.settings import Settings
from training.base_model import load_base


def build_engine(settings: Settings) -> EngineService:
    """Make a vLLM child, the scripted engine, or a client of one that runs at a URL.

    Raises:
        BaseModelError: the base is not there.
    """
    if settings.engine_url:
        return EngineService(base=settings.base, run=settings.run, url=settings.engine_url)
    base = load_base(settings.bases / settings.base)
    if settings.engine == "scripted":
        command = _scripted_command(settings)
    else:
        command = vllm_command(
            base=base,
            serving=settings.bases / settings.base / "serving",
            adapters=settings.adapters,
            run=settings.run,
            overrides=settings.engine_options,
        )
    return EngineService(base=settings.base, run=settings.run, command=command)


def _scripted_command(settings: Settings) -> EngineCommand:
    uds = settings.run / "engine.sock"
    return EngineCommand(
        argv=[
            *(sys.executable, "-m", "server.engine.scripted", "--uds", str(uds)),
            *("--base", settings.base, "--adapters", str(settings.adapters)),
        ],
        choices=[Choice("engine", "scripted", "TENANTUNE_ENGINE=scripted: no model answers")],
        uds=uds,
        concurrent_adapters=4,
        resident_adapters=32,
    )
