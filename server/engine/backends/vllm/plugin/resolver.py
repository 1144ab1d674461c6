"""From an adapter's name to a folder that may be loaded.

A name is ``<slug>.<12 hex of the manifest's SHA-256>``. It says what the folder must contain, so
one name never means two adapters. Nothing else is a name, and a path is none.
"""

import asyncio
import functools
import logging
import re
from pathlib import Path

import msgspec
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from server.engine.backends.vllm.plugin.environment import PluginEnvironment
from training.adapters.package import check_weights, engine_name, verify
from training.errors import TrainingError

NAME = "tenantune"
ADAPTER_NAME = re.compile(r"[a-z0-9-]{2,40}\.[0-9a-f]{12}")

logger = logging.getLogger("vllm.tenantune")


class ServedBase(msgspec.Struct, frozen=True):
    """The base that this engine serves, as ``training.adapters.package.verify`` wants it."""

    name: str
    serving_sha256: str


class Refused(Exception):
    """The folder must not be loaded; the message says why."""


class Missing(Refused):
    """There is no such folder."""


def inspect(
    name: str, folder: Path, *, base: ServedBase | None, serving: Path | None, max_rank: int
) -> None:
    """Check all that can be checked before the engine opens a file.

    Reads every byte of the folder, so call it in a thread.

    Raises:
        Missing: no such folder.
        Refused: the name is not one of ours, the folder is not what its manifest says or not what
            the name says, was made for another base, or holds weights that would harm.
    """
    if not ADAPTER_NAME.fullmatch(name):
        raise Refused(f"{name!r} is not an adapter name: <slug>.<12 hexadecimal digits>")
    if not folder.is_dir():
        raise Missing(f"no folder {folder} for adapter {name!r}")
    try:
        manifest = verify(folder, base=base)
        if engine_name(manifest.label, folder) != name:
            raise Refused(f"{folder} holds another adapter than {name!r}")
        if serving is not None:
            check_weights(folder, base_serving=serving, max_rank=max_rank)
    except TrainingError as exc:
        raise Refused(str(exc)) from exc


class AdapterResolver(LoRAResolver):  # type: ignore[misc] # vLLM is not followed by mypy
    """Loads an adapter on the first request that names it, from the published folders.

    The server loads adapters itself, by ``ensure``, and decides which stay. This is for requests in
    the seconds after a restart. ``serving`` and ``max_rank`` are set when the engine is up.
    ``barred`` has the names that were dropped: only ``ensure`` loads them again.
    """

    def __init__(self, environment: PluginEnvironment) -> None:
        self.root = environment.adapters
        self.base = (
            ServedBase(environment.base_name, environment.base_sha256)
            if environment.base_sha256
            else None
        )
        self.serving: Path | None = None
        self.max_rank = 0
        self.barred: set[str] = set()

    async def inspect(self, name: str, folder: Path) -> None:
        """As ``inspect``, for this engine's base, in a thread."""
        await asyncio.to_thread(
            inspect,
            name,
            folder,
            base=self.base,
            serving=self.serving,
            max_rank=self.max_rank,
        )

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Give the folder of a published adapter, or None where there is none that may be loaded.

        vLLM replaces the id in the answer by one of its own.
        """
        del base_model_name
        if self.root is None or not ADAPTER_NAME.fullmatch(lora_name) or lora_name in self.barred:
            return None
        folder = self.root / lora_name
        try:
            await self.inspect(lora_name, folder)
        except Refused as exc:
            logger.warning("Adapter %s is not loaded: %s", lora_name, exc)
            return None
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))


@functools.cache
def shared_resolver(environment: PluginEnvironment) -> AdapterResolver:
    """The one resolver of this process. The routes set its ``serving`` and ``max_rank``."""
    return AdapterResolver(environment)
