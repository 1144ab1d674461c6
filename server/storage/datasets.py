"""The folders of dataset versions, and of the sweeps on them, once nothing refers to them."""

import asyncio
import shutil
from collections.abc import Iterable

from server.settings import Settings


async def remove_datasets(names: Iterable[str], *, settings: Settings) -> None:
    """Remove dataset versions by their hashes, and what quotes them."""
    for name in names:
        for folder in (settings.datasets / name, settings.sweeps / name):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
