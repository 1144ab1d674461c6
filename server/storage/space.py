"""How much room the installation takes: what of it is adapters, uploads and the database."""

import asyncio
import os
import shutil
from pathlib import Path

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from server.db.session import Database
from server.settings import Settings
from server.storage.blobs import BlobStore

_FILES_OF_SQLITE = ("", "-wal", "-shm")


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of each part; None where it is not on a disk of this machine, and no more is known.

    ``uploads`` are the blob store's files. ``free``: what is left on the disk of the data folder.
    """

    adapters: int
    datasets: int
    jobs: int
    bases: int
    uploads: int | None
    database: int | None
    free: int
    total: int


async def measure(settings: Settings, database: Database, blobs: BlobStore) -> Space:
    """Look at the disk, in a thread: it takes a moment where there are many adapters."""
    taken = await _of_database(database)
    return await asyncio.to_thread(_look, settings, blobs.folder, taken)


def _look(settings: Settings, blobs: Path | None, database: int | None) -> Space:
    there = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    disk = shutil.disk_usage(there)
    return Space(
        adapters=_size(settings.adapters),
        datasets=_size(settings.datasets),
        jobs=_size(settings.jobs),
        bases=_size(settings.bases),
        uploads=None if blobs is None else _size(blobs),
        database=database,
        free=disk.free,
        total=disk.total,
    )


async def _of_database(database: Database) -> int | None:
    if database.is_sqlite:
        if database.folder is None:
            return None
        files = [Path(f"{database.url.database}{suffix}") for suffix in _FILES_OF_SQLITE]
        return await asyncio.to_thread(lambda: sum(map(_size_of_file, files)))
    try:
        async with database.reading() as session:
            found = await session.scalar(text("SELECT pg_database_size(current_database())"))
    except SQLAlchemyError:  # a role that may not ask
        return None
    return None if found is None else int(found)


def _size(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(_size_of_file(Path(parent, name)) for name in names)
    return total


def _size_of_file(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
