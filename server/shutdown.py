"""SIGINT and SIGTERM: what runs is cancelled, and the process ends within a fixed time."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

import structlog

from training.signals import Watch, end_now

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Stopped(Exception):
    """A signal ended it. ``status`` is the shell's exit status: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


@contextmanager
def ctrl_c_at_once() -> Generator[None]:
    """While entered, Ctrl-C ends this process as if Python had no handler for it: for imports.

    Python's own handler raises ``KeyboardInterrupt`` wherever it is, and what is raised in a callback of
    an import's lock is printed ("Exception ignored in ... _get_module_lock") and lost, so that the program
    goes on. Does nothing where another handler is set, or where this is not the main thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class GracefulShutdown:
    """While entered, the first signal calls ``stop``, once, in the main thread.

    The process and all its children are killed at the second signal, or when the process still runs
    ``seconds`` after the first. Enter it in the main thread, once in a process's life.

    Args:
        stop: starts the end; called in a signal handler, so it must return at once.
        seconds: how long the end may take.
        with_parent: treat the end of standard input as a SIGTERM: the process that has its other
            end is gone.
    """

    def __init__(
        self, stop: Callable[[], None], *, seconds: float, with_parent: bool = False
    ) -> None:
        self.number: int | None = None
        """The signal that came."""
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._watch = Watch(seconds, status=self._status, with_parent=with_parent)

    def __enter__(self) -> "GracefulShutdown":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.number is None:  # else the rest of the process's end must be in time too
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._watch.stop()

    def _status(self) -> int:
        return 128 + (self.number or signal.SIGTERM)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number is not None:
            end_now(self._status())
        self.number = number
        os.write(self._watch.signal_fd, bytes([number]))
        self._stop()


def run(
    main: Coroutine[Any, Any, T],
    *,
    seconds: float,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine to its end, as ``asyncio.run``. A signal cancels it.

    Args:
        main: the coroutine.
        seconds: how long it may run after a signal; see ``GracefulShutdown``.
        loop_factory: makes the event loop.

    Raises:
        Stopped: a signal came, whether or not the coroutine ended well.
    """
    cancel: list[Callable[[], object]] = []

    def stop() -> None:
        for each in cancel:
            each()

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        if ending.number is not None:
            raise asyncio.CancelledError
        try:
            return await main
        finally:
            cancel.clear()

    with GracefulShutdown(stop, seconds=seconds) as ending:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                result = runner.run(cancellable())
        except BaseException as exc:
            if ending.number is None:
                raise
            if not isinstance(exc, asyncio.CancelledError):
                log.warning("while stopping", exc_info=exc)
            raise Stopped(ending.number) from exc
        finally:
            main.close()
        if ending.number is not None:
            raise Stopped(ending.number)
        return result
