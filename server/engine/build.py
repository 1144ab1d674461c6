"""Makes the engine that the settings ask for."""

from server.engine.scripted import scripted_command
from server.engine.service import EngineService
from server.engine.vllm import vllm_command
from server.settings import Settings
from training.base_model import load_base


def build_engine(settings: Settings) -> EngineService:
    """Make a vLLM child, the scripted engine, or a client of one that runs at a URL.

    Raises:
        BaseModelError: the base is not there.
        server.engine.vllm.SettingsError: an override cannot be used, or vLLM cannot serve
            the base here.
    """
    if settings.engine_url:
        return EngineService(base=settings.base, run=settings.run, url=settings.engine_url)
    if settings.engine == "scripted":
        command = scripted_command(base=settings.base, adapters=settings.adapters, run=settings.run)
    else:
        command = vllm_command(
            base=load_base(settings.bases / settings.base),
            serving=settings.bases / settings.base / "serving",
            adapters=settings.adapters,
            run=settings.run,
            overrides=settings.engine_options,
        )
    return EngineService(base=settings.base, run=settings.run, command=command)
