"""Removing an adapter's files, in the one order that is safe."""

import asyncio
import shutil
from collections.abc import Iterable

import structlog

from server.engine.service import EngineService
from server.settings import Settings

log = structlog.get_logger(__name__)


async def remove_adapters(
    names: Iterable[str], *, settings: Settings, engine: EngineService | None
) -> None:
    """Make the engine forget these adapters, then remove their folders.

    The order matters: an engine that is asked for an adapter whose folder is gone may end for
    everybody. Call it after the commit that makes them unreachable.
    """
    for name in names:
        if engine is not None:
            await engine.forget(name)
        await asyncio.to_thread(shutil.rmtree, settings.adapters / name, ignore_errors=True)
        log.info("adapter removed", adapter=name)
