"""SIGTERM and SIGINT: training saves first, every other stage ends at once, and neither takes long.

One step of training may take minutes on a slow machine, and Python runs no signal handler before
the step has ended. So a thread watches (`Watch`): it does not depend on the main thread, and kills
the process when it does not end by itself.
"""

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import psutil

from training.errors import Interrupted
from training.events import EXIT_INTERRUPTED

GRACE_SECONDS = 4.5  # for the rest of a step and its checkpoint; parent processes rely on it
_PARENT_SECONDS = 0.5  # between checks of the parent process
_STDIN = 0  # not sys.stdin: its lock, held by a thread, aborts the interpreter at its end
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Watch:
    """Ends this process in time, whatever its main thread does.

    A byte with a signal's number, written to ``signal_fd`` by a signal handler or by Python itself
    (``signal.set_wakeup_fd``), says that this process is to end. After ``seconds``, or at a second
    signal, its children are killed and it exits with ``status()``.

    Args:
        seconds: From the first signal to the kill.
        status: Called in the watching thread for the exit status.
        with_parent: Send this process SIGTERM once when its parent ends, which shows as the end of
            standard input or as another parent.
    """

    _CANCEL = 0

    def __init__(
        self, seconds: float, *, status: Callable[[], int], with_parent: bool = False
    ) -> None:
        self._seconds = seconds
        self._status = status
        self._with_parent = with_parent
        self._parent = os.getppid()
        self._reader, self.signal_fd = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self.signal_fd, False)  # a signal handler must not wait

    def start(self) -> None:
        """Watch until the process ends."""
        threading.Thread(target=self._run, name="ends in time", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        os.write(self.signal_fd, bytes([self._CANCEL]))
        os.close(self.signal_fd)

    def _run(self) -> None:
        deadline: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            parent_lives = self._with_parent
            if parent_lives:
                with contextlib.suppress(OSError):  # a file, or nothing: it has no other end
                    selector.register(_STDIN, selectors.EVENT_READ)
            while deadline is None or time.monotonic() < deadline:
                wait = _PARENT_SECONDS if parent_lives else None
                if deadline is not None:
                    wait = max(deadline - time.monotonic(), 0.0)
                ready = {key.fd for key, _ in selector.select(wait)}
                received = os.read(self._reader, 512) if self._reader in ready else b""
                if self._CANCEL in received:
                    os.close(self._reader)
                    return
                if any(number in _SIGNALS for number in received):
                    if deadline is not None:
                        break
                    deadline = time.monotonic() + self._seconds
                if parent_lives and self._parent_ended(ready):
                    parent_lives = False
                    with contextlib.suppress(KeyError):
                        selector.unregister(_STDIN)
                    if deadline is None:
                        os.kill(os.getpid(), signal.SIGTERM)
        end_now(self._status())

    def _parent_ended(self, ready: set[int]) -> bool:
        closed = _STDIN in ready and not os.read(_STDIN, 4096)
        return closed or os.getppid() != self._parent


class Stopper:
    """While entered, a signal raises `Interrupted` in the main thread, unless it is `deferred`.

    Deferred code reads ``requested`` and ends by itself, with its state saved; a second signal
    interrupts it at once.

    Args:
        grace_seconds: After a signal, the process is killed after this time and ends with
            `EXIT_INTERRUPTED`; its newest checkpoint on disk is then what it has saved. None:
            without a limit.
        with_parent: The end of the parent process is a signal too.
    """

    def __init__(self, *, grace_seconds: float | None = None, with_parent: bool = False) -> None:
        self.requested = False
        self._deferring = False
        self._before: dict[int, object] = {}
        self._watch = (
            Watch(grace_seconds, status=lambda: EXIT_INTERRUPTED, with_parent=with_parent)
            if grace_seconds is not None
            else None
        )

    def __enter__(self) -> "Stopper":
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        if self._watch is not None:
            # not from _on_signal, which would run after the step
            signal.set_wakeup_fd(self._watch.signal_fd, warn_on_full_buffer=False)
            self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal() returned

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the code inside end by itself when ``requested`` is set."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.requested:
            raise Interrupted("stopped; what is done is kept")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        again, self.requested = self.requested, True
        if again or not self._deferring:
            raise Interrupted(f"stopped by {signal.Signals(number).name}; what is done is kept")


def end_now(status: int) -> None:
    """Kill every process that this one has started, and exit without any clean-up."""
    try:
        with contextlib.suppress(OSError):
            os.write(2, b"did not end by itself in time: ended\n")
        kill_children()
    finally:
        os._exit(status)


def kill_children() -> None:
    """Send SIGKILL to every descendant and to their process groups, except this process's own."""
    found = psutil.Process().children(recursive=True)
    groups = set()
    for child in found:
        with contextlib.suppress(OSError):
            groups.add(os.getpgid(child.pid))
    for group in groups - {os.getpgrp()}:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for child in found:
        with contextlib.suppress(psutil.Error):
            child.kill()
