"""Chooses the engine backend that the settings ask for."""

from server.engine.backends.fake import fake_command, fake_options
from server.engine.backends.vllm.launch import vllm_command
from server.engine.service import EngineService
from server.settings import Settings, SettingsError
from training.base_models.manifest import load_base


def build_engine(settings: Settings) -> EngineService:
    """Make the service over vLLM, the fake engine, or an engine that runs elsewhere.

    Raises:
        BaseModelError: the base is missing.
        SettingsError: an override cannot be used, or vLLM cannot serve the base here.
    """
    if settings.engine_url:
        if settings.engine_options:
            raise SettingsError(
                f"TENANTUNE_ENGINE_OPTIONS ({', '.join(settings.engine_options)}) cannot be used "
                "with TENANTUNE_ENGINE_URL: that engine runs already; give it options where it is "
                "started"
            )
        return EngineService(base=settings.base, run=settings.run, url=settings.engine_url)
    if settings.engine == "fake":
        command = fake_command(
            base=settings.base,
            adapters=settings.adapters,
            run=settings.run,
            **fake_options(settings.engine_options),
        )
    else:
        command = vllm_command(
            base=load_base(settings.bases / settings.base),
            serving=settings.bases / settings.base / "serving",
            adapters=settings.adapters,
            run=settings.run,
            overrides=settings.engine_options,
        )
    return EngineService(base=settings.base, run=settings.run, command=command)
