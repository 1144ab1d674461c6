"""Recognises the engine of an earlier life of this server, and ends it.

A process id alone proves nothing: it may be somebody else's by now. The pid file also holds the
boot it belongs to and the moments its two processes started (in ticks since that boot, so that no
clock can move them), which together are never reused.
"""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

_PROC = Path("/proc")
_KILL_SECONDS = 10.0


class InUse(Exception):
    """Another server that lives keeps an engine in this folder."""


class _Record(msgspec.Struct, frozen=True):
    boot_id: str
    group: int
    group_started: int
    server: int
    server_started: int


class _Process(NamedTuple):
    state: str
    group: int
    started: int  # ticks since boot


def remember(path: Path, group: int) -> None:
    """Write down the process group that was just started."""
    leader, server = _look(group), _look(os.getpid())
    if leader is None or server is None:
        return  # it ended already
    record = _Record(
        boot_id=_boot_id(),
        group=group,
        group_started=leader.started,
        server=os.getpid(),
        server_started=server.started,
    )
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def clear(path: Path) -> None:
    """End what an earlier server left in this folder; nothing happens when that is nothing.

    Raises:
        InUse: that server still lives.
    """
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        return
    if record.boot_id == _boot_id():
        server, leader = _look(record.server), _look(record.group)
        lives = server is not None and server.started == record.server_started
        if lives and record.server != os.getpid():
            raise InUse(
                f"another server (process {record.server}) runs its engine in {path.parent}; "
                "stop it, or use another TENANTUNE_HOME"
            )
        # While one member lives, the kernel gives the group's number to no other process: if the
        # leader's number is somebody else's now, nothing of the group is left.
        if leader is None or leader.started == record.group_started:
            deadline = time.monotonic() + _KILL_SECONDS
            while signal_group(record.group, signal.SIGKILL) and time.monotonic() < deadline:
                time.sleep(0.02)
    path.unlink(missing_ok=True)


def members(group: int) -> list[int]:
    """Living processes of a group; those that only wait to be reaped do not count."""
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    seen = [(pid, _look(pid)) for pid in pids]
    return [pid for pid, process in seen if process and process.group == group]


def signal_group(group: int, number: signal.Signals) -> bool:
    """Signal every process of a group; False when none lives."""
    if not members(group):
        return False
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _look(pid: int) -> _Process | None:
    """A process that lives, or None."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    process = _Process(state=fields[0], group=int(fields[2]), started=int(fields[19]))
    return None if process.state in "ZX" else process


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
