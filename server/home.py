"""The data folder, which only its owner may read: it has every tenant's transcripts.

This program makes all files for its own user alone (``keep_private``; child processes inherit it).
A data folder that an older version left open to other users is closed when it is next used
(``take``), and ``tenantune doctor`` lists what others may read (``open_to_others``).

There is one exception: an engine that runs as another user reads the bases and the adapters as a
member of the group ``TENANTUNE_ENGINE_GROUP``, which may pass through the data folder, cannot list
it, and reads these two folders alone.
"""

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import structlog

from server.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

UMASK = 0o077
# what this program makes in the data folder; folders of others in there are left alone
_FOLDERS = ("adapters", "bases", "blobs", "datasets", "jobs", "run", "scratch", "sweeps")
_OF_THE_ENGINE = ("adapters", "bases")
_OF_A_DATABASE = ("", "-wal", "-shm", "-journal")


class _Entry(NamedTuple):
    path: Path
    mode: int  # with the bits of its kind
    group: int
    wanted: int  # the permissions that it should have


def keep_private() -> None:
    """Make files that only this user can read, from now on, here and in child processes."""
    os.umask(UMASK)


def private_folder(path: Path) -> Path:
    """Make the folder if it is not there, let only its owner enter it, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def claim(settings: Settings, *, thorough: bool = False) -> None:
    """Make the data folder if it is not there, and close it if other users may look into it.

    If it was open, or with ``thorough``, all that is in it is closed too, and so are a database and
    uploads that are elsewhere. Files of another user cannot be closed: they are logged.

    Raises:
        SettingsError: the folder is one that others need (``/``, ``/tmp``), the group
            ``engine_group`` does not exist, or this user is not in it.
        OSError: the folder cannot be made.
    """
    home = settings.home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home == Path(home.anchor) or home.stat().st_mode & stat.S_ISVTX:
        raise SettingsError(
            f"TENANTUNE_HOME: {home} is used by others too, and the data folder is closed to them; "
            f"choose a folder of its own, as {home / 'tenantune'}"
        )
    group = _group(settings)
    own = _entry(home, home.stat(), shared=group is not None, listed=False)
    if not (thorough or _differs(own, group)):
        return
    closed, left = 0, []
    for entry in _entries(settings, shared=group is not None):
        if not _differs(entry, group):
            continue
        try:
            _mend(entry, group)
            closed += bool(_excess(entry))
        except PermissionError:
            if entry.group != group and entry.wanted & 0o070:
                raise SettingsError(
                    f"TENANTUNE_ENGINE_GROUP: {entry.path} cannot be given to the group "
                    f"{settings.engine_group!r}: this user is not in it"
                ) from None
            left.append(str(entry.path))
        except FileNotFoundError:  # removed by another process of this server
            continue
    if closed:
        log.warning("the data folder was open to other users; closed", home=str(home), files=closed)
    if left:
        log.warning("belongs to another user and stays open", first=left[0], files=len(left))


def open_to_others(settings: Settings) -> list[Path]:
    """List the files and folders of the data folder that other users may read, but should not."""
    group = _group(settings)
    return [entry.path for entry in _entries(settings, shared=group is not None) if _excess(entry)]


def _group(settings: Settings) -> int | None:
    if not settings.engine_group:
        return None
    try:
        return grp.getgrnam(settings.engine_group).gr_gid
    except KeyError:
        raise SettingsError(
            f"TENANTUNE_ENGINE_GROUP: there is no group {settings.engine_group!r}"
        ) from None


def _entries(settings: Settings, *, shared: bool) -> Iterator[_Entry]:
    """The data folder, its files, and all that is in our folders. Links are not followed."""
    home = settings.home
    if home.is_dir():
        yield _entry(home, home.stat(), shared=shared, listed=False)
        for path in home.iterdir():
            info = path.lstat()
            if stat.S_ISREG(info.st_mode):
                yield _entry(path, info, shared=False)
    for name in _FOLDERS:  # one of these may be a link to another disk
        yield from _tree(home / name, shared=shared and name in _OF_THE_ENGINE)
    for path in _elsewhere(settings):
        yield from _tree(path, shared=False)


def _tree(top: Path, *, shared: bool) -> Iterator[_Entry]:
    try:
        info = top.stat()
        yield _entry(top, info, shared=shared)
        if not stat.S_ISDIR(info.st_mode):
            return
        for found in os.scandir(top):
            if found.is_dir(follow_symlinks=False):
                yield from _tree(Path(found), shared=shared)
            elif not found.is_symlink():
                yield _entry(Path(found), found.stat(follow_symlinks=False), shared=shared)
    except (FileNotFoundError, PermissionError):
        return


def _elsewhere(settings: Settings) -> Iterator[Path]:
    """The database and the uploads where they are files outside the data folder."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - heavy, and no child process needs it

    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        for suffix in _OF_A_DATABASE:
            yield Path(url.database + suffix)
    blobs = settings.blobs
    if "://" not in blobs or urlsplit(blobs).scheme == "file":
        path = unquote(urlsplit(blobs).path) if "://" in blobs else blobs
        for name in ("sha256", "incoming"):
            yield Path(path).expanduser() / name


def _entry(path: Path, info: os.stat_result, *, shared: bool, listed: bool = True) -> _Entry:
    owner = stat.S_IMODE(info.st_mode) & 0o700
    wanted = owner
    if shared:
        wanted |= (owner >> 3) & (0o050 if listed else 0o010)
        if stat.S_ISDIR(info.st_mode) and listed:
            wanted |= stat.S_ISGID  # what is put there gets the group
    return _Entry(path, info.st_mode, info.st_gid, wanted)


def _excess(entry: _Entry) -> int:
    """The permissions for other users that it should not have."""
    return entry.mode & 0o077 & ~entry.wanted


def _differs(entry: _Entry, group: int | None) -> bool:
    shared = entry.wanted & 0o070
    lacks = bool(shared) and (entry.wanted & ~entry.mode or entry.group != group)
    return bool(_excess(entry)) or bool(lacks)


def _mend(entry: _Entry, group: int | None) -> None:
    if entry.wanted & 0o070 and group is not None and entry.group != group:
        os.chown(entry.path, -1, group)
    entry.path.chmod(entry.wanted)
