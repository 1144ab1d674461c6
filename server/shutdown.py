"""SIGINT and SIGTERM: what runs is cancelled and tidies up, within a time that nothing outlasts."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, TypeVar

import structlog

from training.signals import Watch, end_now

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Stopped(Exception):
    """A signal ended it. ``status`` is how a shell counts that: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class GracefulShutdown:
    """While entered, the first signal calls ``stop``, once, in the main thread.

    The process, with all its children, is ended by force when it is told a second time, or when it
    still runs ``seconds`` after the first. ``with_parent``: the end of whoever holds the other end
    of standard input is a SIGTERM. To be entered in the main thread, once in a process's life.
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
        if self.number is None:  # else the rest of the process's end is to be in time too
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
    """Run a coroutine to its end, as ``asyncio.run``; a signal cancels it. For `Ending`'s seconds.

    Raises:
        Stopped: a signal came, whatever became of the coroutine then.
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
