"""Files that appear whole or not at all."""

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

T = TypeVar("T")


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a folder, as the folder's manifest lists it."""

    sha256: str
    size_bytes: int


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by ``replacing``."""
    with replacing(path) as beside, beside.open("xb") as file:
        file.write(data)


def load_or_compute(path: Path, kind: type[T], compute: Callable[[], T]) -> T:
    """Read a result that is there as JSON, or compute and save it."""
    if path.is_file():
        return msgspec.json.decode(path.read_bytes(), type=kind)
    result = compute()
    write_atomically(path, msgspec.json.encode(result))
    return result


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; the file there takes the place of ``path``.

    It is flushed to the disk before the rename, and the folder after it, so that a reader, or a
    machine that loses power, never has half a file. An error in the block leaves ``path`` as it is.
    The folder is made if it is not there. What processes that were killed had begun to write in the
    place of ``path`` is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    beside = _beside(path)
    try:
        yield beside
        sync_path(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return a file's content; where there is no file, create it with what ``make`` returns.

    Processes that do so together all return the same content: a hard link, unlike a rename, never
    replaces a file. Only the owner may read the file. For secrets that are made once.
    """
    with suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_abandoned(path)
    beside = _beside(path)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster
            path.hardlink_to(beside)
    finally:
        beside.unlink()
    sync_path(path.parent)
    return path.read_bytes()


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


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files beside its place, flush it, and rename it: it is whole or not there.

    A folder that another process has put there meanwhile stays as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".creating-", dir=folder.parent))
    try:
        for name, data in files.items():
            (beside / name).write_bytes(data)
        sync_tree(beside)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        sync_path(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


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


def _beside(path: Path) -> Path:
    """A new name, which says for which file and by which process it is written."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(8)}")


def _remove_abandoned(path: Path) -> None:
    """Remove the files ``_beside`` this one whose process does not run any more, as far as it may."""
    name = re.compile(rf"\.{re.escape(path.name)}\.([0-9]+)-[0-9a-f]{{16}}")
    with suppress(OSError):  # another user's, or in a folder that may not be listed
        for found in path.parent.iterdir():
            match = name.fullmatch(found.name)
            if match and not psutil.pid_exists(int(match[1])):
                found.unlink(missing_ok=True)
