"""SIGTERM and SIGINT: training saves first, every other stage ends at once, and neither takes long.

One step of training may take minutes on a slow machine, and Python runs no signal handler before
it has ended. So a thread watches (`Watch`): it needs nothing of the main thread, and ends the
process when it does not end by itself.
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

GRACE_SECONDS = 4.5  # to the end of a step and its checkpoint; what waits for us counts on it
_PARENT_SECONDS = 0.5  # between looks at who our parent is
_STDIN = 0  # not sys.stdin: its lock, held by a thread, aborts the interpreter at its end
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Watch:
    """Ends this process in time, whatever its main thread does.

    Whoever writes a signal's number to ``told`` (one byte: a signal handler, or Python itself by
    ``signal.set_wakeup_fd``) says that this process is to end. It has ``seconds`` to do so; then,
    or when told again, its children are killed and it exits with ``status()``. ``with_parent``:
    when standard input closes, or our parent is another, the one that started us has ended, and we
    send ourselves SIGTERM, once, unless we were told before.
    """

    _NEVER_MIND = 0

    def __init__(
        self, seconds: float, *, status: Callable[[], int], with_parent: bool = False
    ) -> None:
        self._seconds = seconds
        self._status = status
        self._with_parent = with_parent
        self._parent = os.getppid()
        self._reader, self.told = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self.told, False)  # a signal handler must not wait

    def start(self) -> None:
        """Watch until the process ends."""
        threading.Thread(target=self._run, name="ends in time", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        os.write(self.told, bytes([self._NEVER_MIND]))
        os.close(self.told)

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
                told = os.read(self._reader, 512) if self._reader in ready else b""
                if self._NEVER_MIND in told:
                    os.close(self._reader)
                    return
                if any(number in _SIGNALS for number in told):
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
    """While entered, a signal raises `Interrupted` in the main thread; when `deferred`, it waits.

    What is deferred reads ``requested`` and ends by itself, its state saved. A second signal does
    not wait. Neither does a process that has ``grace_seconds``: after them it ends with
    `EXIT_INTERRUPTED`, and its newest checkpoint on disk is what it had saved. ``with_parent``:
    the end of whoever started us is a signal too.
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
            signal.set_wakeup_fd(self._watch.told, warn_on_full_buffer=False)
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
        """Let the code inside end by itself when it sees ``requested``."""
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
    """Kill all that this process has started and exit, without any clean-up."""
    try:
        with contextlib.suppress(OSError):
            os.write(2, b"did not end by itself in time: ended\n")
        kill_children()
    finally:
        os._exit(status)


def kill_children() -> None:
    """SIGKILL to every descendant and to the process groups that they are in, but to our own."""
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
