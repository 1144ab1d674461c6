"""Processes that read what people upload: one for each upload, which may take its time or end badly.

A process, and not a thread of the worker, so that no upload delays other work: the system gives each
reader its share of the cores, jobs' events and other tenants' uploads go on meanwhile, and a reader that
runs out of memory ends alone. ``ask`` is the worker's side; the others are the reader's::

    request = read_request(Request)
    end_with_parent()
    answer(read_it(request))
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

import msgspec

from connectors.errors import TookTooLong
from server.errors import Invalid

NICENESS = 10  # as trainers: chats come first on a machine that does both
AGAIN_SECONDS = (
    1.0  # of CPU time, after which a library that swallowed ``TookTooLong`` gets it again
)
_LATER_SECONDS = 5
T = TypeVar("T")


async def ask(module: str, request: msgspec.Struct, *, about: str) -> bytes:
    """Run ``python -m MODULE`` with a request, and return what it says.

    It ends when this call is cancelled, or this process ends.

    Args:
        module: has a ``main`` as above.
        request: sent as a line of JSON.
        about: the name of the file, for the message.

    Raises:
        Invalid: the process did not survive it (``reader_ended``).
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        with contextlib.suppress(ConnectionError):  # it ended: see its status
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            await process.stdin.drain()
        output = await process.stdout.read()
        status = await process.wait()
    finally:
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
    if status:
        raise Invalid(f"The process that read '{about}' {_how(status)}.", code="reader_ended")
    return output


def read_request(kind: type[T]) -> T:
    """The request on standard input; the process ends where there is none."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            sys.exit(1)
        line += data
    return msgspec.json.decode(line, type=kind)


def answer(outcome: msgspec.Struct) -> None:
    """Say what was read."""
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    sys.stdout.buffer.flush()


def make_nice() -> None:
    """Let others have the processor first: nobody waits for this at a screen."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def end_with_parent() -> None:
    """End when standard input does, and not because of a signal to all: the worker decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def limit_resources(*, cpu_seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Bound this process for good, also within libraries in C.

    Args:
        cpu_seconds: after which the system ends it (SIGXCPU).
        memory_bytes: of address space; more raises ``MemoryError``.
        file_bytes: the largest file that it may write.
    """
    for what, bound in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        # at the hard limit of CPU time the system kills without a word
        most = bound + (_LATER_SECONDS if what == resource.RLIMIT_CPU else 0)
        if hard != resource.RLIM_INFINITY:  # never more than the system allows
            most = min(most, hard)
        resource.setrlimit(what, (min(bound, most), most))


@contextlib.contextmanager
def cpu_limit(seconds: float, *, doing: str) -> Iterator[None]:
    """Bound the CPU time that the block may take; on the main thread.

    CPU time and not the clock's, so that a busy machine changes nothing about what passes.

    Raises:
        TookTooLong: it took more.
    """

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"it took more than {seconds:g} s of CPU time to {doing}")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _how(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "was ended: it took too much CPU time"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name} (was memory short?)"
    return f"ended with status {status}"
