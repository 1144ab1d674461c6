"""Recognises the engine of an earlier server process, and ends it.

A process id alone proves nothing: the kernel gives it to another process later. So the pid file
also holds the boot it belongs to and the moments in which its two processes began. These three
together are never used again.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from training.filesystem import write_atomically

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_KILL_SECONDS = 10.0


class InUse(Exception):
    """Another server that is running keeps an engine in this folder."""


class _Record(msgspec.Struct, frozen=True):
    """``group_started``, ``server_started``: clock ticks since boot."""

    boot_id: str
    group: int
    group_started: int
    server: int
    server_started: int


def remember(path: Path, group: int) -> None:
    """Write down the process group that was just started."""
    group_started, server_started = _started(group), _started(os.getpid())
    if group_started is None or server_started is None:
        return  # it ended already
    record = _Record(
        boot_id=_boot_id(),
        group=group,
        group_started=group_started,
        server=os.getpid(),
        server_started=server_started,
    )
    write_atomically(path, msgspec.json.encode(record))


def clear(path: Path) -> None:
    """End what an earlier server left running in this folder, if anything.

    Raises:
        InUse: that server is still running.
    """
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        return
    if record.boot_id == _boot_id():
        if record.server != os.getpid() and _started(record.server) == record.server_started:
            raise InUse(
                f"another server (process {record.server}) runs its engine in {path.parent}; "
                "stop it, or use another TENANTUNE_HOME"
            )
        # While one member lives, the kernel gives the group's number to no other process. So if a
        # process of that number began at another moment, nothing of the group is left.
        if _started(record.group) in (None, record.group_started):
            deadline = time.monotonic() + _KILL_SECONDS
            while signal_group(record.group, signal.SIGKILL) and time.monotonic() < deadline:
                time.sleep(0.02)
    path.unlink(missing_ok=True)


def members(group: int) -> list[int]:
    """Running processes of a group, without those that have ended and wait to be reaped."""
    return [pid for pid in psutil.pids() if _group(pid) == group and _runs(pid)]


def signal_group(group: int, number: signal.Signals) -> bool:
    """Signal every process of a group; False when none is running."""
    if not members(group):
        return False
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _started(pid: int) -> int | None:
    """When a running process began, in clock ticks since boot; None where there is none.

    psutil gives seconds since 1970, which move when the system's clock is set. The time of the boot
    moves with them, unless the clock is set between the two readings.
    """
    try:
        while _runs(pid):
            boot = psutil.boot_time()
            created = psutil.Process(pid).create_time()
            if psutil.boot_time() == boot:
                return round((created - boot) * _TICKS_A_SECOND)
    except psutil.NoSuchProcess:
        pass
    return None


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
