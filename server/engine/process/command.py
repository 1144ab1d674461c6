"""How an engine is started, whichever engine it is."""

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from server.home import private_folder

_SOCKET_PATH_BYTES = 100  # Linux takes 107


class Choice(msgspec.Struct, frozen=True):
    """A setting that was chosen for this machine, and why; logged and shown by the console."""

    name: str
    value: str
    reason: str


class ChildCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves on the unix socket ``uds``; ``env`` is laid over our environment."""

    argv: list[str]
    env: dict[str, str] = {}
    uds: Path


class EngineCommand(ChildCommand, frozen=True, kw_only=True):
    """One engine process.

    ``concurrent_adapters``: adapters that may have requests in flight together;
    ``resident_adapters``: adapters loaded together (the engine's ``max_cpu_loras``);
    ``sequences``: answers that it generates together (``max_num_seqs``).
    """

    choices: list[Choice] = []
    max_active_adapters: int
    max_loaded_adapters: int
    max_num_seqs: int = 256


def socket_path(run: Path) -> Path:
    """Where the engine listens: in ``run``, or in a private temporary folder if that is too long.

    Whoever can open the socket can have adapters loaded, so its folder is its owner's alone.
    """
    path = run.absolute() / "engine.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        mark = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
        path = Path(tempfile.gettempdir()) / f"tenantune-{os.getuid()}-{mark}" / "engine.sock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{path.parent} belongs to somebody else; the socket is not safe there"
        )
    private_folder(path.parent)  # it may have been there before
    return path
