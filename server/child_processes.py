"""Child processes that a command waits for, and that end with it, however it ends."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from typing import IO

from training.signals import GRACE_SECONDS

STOP_SECONDS = GRACE_SECONDS + 1.5  # a child that watches has ended by then


async def run_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    stop_seconds: float = STOP_SECONDS,
) -> int:
    """Run a program in a process group of its own. Returns its exit status, -N for signal N.

    Its standard input is a pipe that closes when this process ends, so the program must watch that
    (``training.parent_watch`` does). When this call is cancelled, the program gets SIGTERM, and
    after ``stop_seconds`` its whole group SIGKILL. Nothing of the group outlives this call.
    """
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=PIPE, stdout=stdout, stderr=stderr, env=env, start_new_session=True
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(stop_seconds):
                await process.wait()
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def with_parent_watch(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules and ends it with this process."""
    return [sys.executable, "-m", "training.parent_watch", module, *arguments]
