"""SIGTERM and SIGINT: training saves first, every other stage ends at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from training.errors import Interrupted


class Stopper:
    """While entered, a signal raises `Interrupted` in the main thread; when `deferred`, it waits.

    What is deferred reads ``requested`` and ends by itself, its state saved. A second signal does
    not wait.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferring = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stopper":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
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


def end_with_parent() -> None:
    """Stop as by SIGTERM once standard input closes: the parent that held it has ended."""

    def watch() -> None:
        # not sys.stdin.buffer: its lock, held by this thread, aborts the interpreter at its end
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
