"""Files that appear whole or not at all."""

import os
import secrets
import stat
from pathlib import Path

import msgspec


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a folder, as the folder's manifest lists it."""

    sha256: str
    size_bytes: int


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename, fsync the folder: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def open_like_parent(folder: Path) -> None:
    """Give a folder's content the read permissions of the folder that it lies in.

    Group and others may then read what the owner may read, if they may read the parent folder. They
    may never write.
    """
    around = folder.parent.stat().st_mode
    for path in (*folder.rglob("*"), folder):
        own = stat.S_IMODE(path.stat().st_mode) & ~0o077
        group = (own & 0o700) >> 3 & 0o050 if around & stat.S_IRGRP else 0
        others = (own & 0o700) >> 6 & 0o005 if around & stat.S_IROTH else 0
        path.chmod(own | group | others)


def sync_tree(folder: Path) -> None:
    """Flush a folder and everything under it to the disk, before it is renamed."""
    for path in (*folder.rglob("*"), folder):
        sync_path(path)


def sync_path(path: Path) -> None:
    """Flush one file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
