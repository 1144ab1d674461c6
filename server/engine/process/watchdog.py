"""Starts an engine, limits its log's size, and kills it when the server dies.

Run as a plain script that needs only the standard library: it starts first and must outlive the
rest. It leads the process group that the engine runs in. Its standard input is a pipe whose other
end only the server has: the pipe closes however the server ends, ``kill -9`` included, and then the
whole group is killed.

``PR_SET_PDEATHSIG`` in the server's children would not do: it binds a child to the *thread* that
forked, and does not reach the engine's own children. It does bind the engine to this process, which
has one thread, for the case that this process is killed together with the server.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

READ_BYTES = 65536
PARENT_CHECK_SECONDS = 1.0  # in case another child of the server inherited the pipe
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Log:
    """Appends to a file; at ``limit_bytes`` the file becomes ``<name>.1`` and a new one begins."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._path = path
        self._limit = limit_bytes
        self._rotate()

    def _rotate(self) -> None:
        if self._path.exists():
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("wb", buffering=0)
        self._size = 0

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append. A full disk loses the log, never the engine."""
        try:
            if self._size + len(data) > self._limit:
                self._file.close()
                self._rotate()
            self._file.write(data)
        except OSError:
            return
        self._size += len(data)


def run_watched(command: list[str], log: Log) -> int:
    """Run ``command`` to its end. Returns its exit status, or 128 + N when signal N ended it."""
    parent = os.getppid()
    # A handler, not SIG_IGN: the latter would be inherited by the engine.
    signal.signal(signal.SIGTERM, lambda *_: None)
    reader, writer = os.pipe()
    libc = ctypes.CDLL(None)

    def die_with_watchdog() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    engine = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        preexec_fn=die_with_watchdog,  # noqa: PLW1509 - this process has no other thread
    )
    os.close(writer)
    os.set_blocking(reader, False)
    ended = os.pidfd_open(engine.pid)
    with selectors.DefaultSelector() as selector:
        for descriptor in (sys.stdin.fileno(), reader, ended):
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(PARENT_CHECK_SECONDS)}
            if reader in ready and not _drain(reader, log):
                selector.unregister(reader)
            if ended in ready:
                _drain(reader, log)
                status = engine.wait()
                return status if status >= 0 else 128 - status
            closed = sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), READ_BYTES)
            if closed or os.getppid() != parent:
                log.write(b"the server is gone: ending the engine\n")
                os.killpg(os.getpgrp(), signal.SIGKILL)


def _drain(descriptor: int, log: Log) -> bool:
    """Copy what is there to the log; False at the end of the stream."""
    try:
        while data := os.read(descriptor, READ_BYTES):
            log.write(data)
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    _, path, limit, *words = sys.argv
    sys.exit(run_watched(words, Log(Path(path), limit_bytes=int(limit))))
