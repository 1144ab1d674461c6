"""How a child process is started that serves on a unix socket, as an engine does."""

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from server.home import private_folder

_SOCKET_PATH_BYTES = 100  # Linux takes 107


class Choice(msgspec.Struct, frozen=True):
    """A setting that was chosen for this machine, and why. Logged, and shown by the console."""

    name: str
    value: str
    reason: str


class ChildCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves on the unix socket ``uds``. ``env`` is added to our environment."""

    argv: list[str]
    env: dict[str, str] = {}
    uds: Path


class EngineCommand(ChildCommand, frozen=True, kw_only=True):
    """One engine process.

    Args:
        choices: its settings, with reasons.
        max_active_adapters: adapters that may have requests in flight at the same time.
        max_loaded_adapters: adapters loaded at the same time, as the engine's ``max_cpu_loras``.
        max_num_seqs: answers that it generates at the same time.
    """

    choices: list[Choice] = []
    max_active_adapters: int
    max_loaded_adapters: int
    max_num_seqs: int = 256


def socket_path(run: Path) -> Path:
    """Where the engine listens: in ``run``, or in a private temporary folder if that is too long.

    A process that can open the socket can load adapters, so only the owner may enter its folder.

    Raises:
        PermissionError: the temporary folder is there and belongs to another user.
    """
    path = run.absolute() / "engine.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        mark = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
        path = Path(tempfile.gettempdir()) / f"tenantune-{os.getuid()}-{mark}" / "engine.sock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{path.parent} belongs to another user; the socket is not safe there"
        )
    private_folder(path.parent)  # it may have been there before
    return path
