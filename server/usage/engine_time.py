"""Divides the engine's busy time among the requests that keep it busy."""

import time
from collections.abc import Callable


class EngineTime:
    """A clock that runs at the speed 1 / (requests in flight), and stops without any.

    The time that it advances between a request's ``enter`` and ``leave`` is that request's share,
    in seconds. The shares of all requests add up to the time that at least one was in flight. Use
    on one thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._shared = 0.0
        self._at = clock()

    def enter(self) -> float:
        """Begin a request; returns the mark that ``leave`` takes."""
        self._advance()
        self._in_flight += 1
        return self._shared

    def leave(self, entered: float) -> float:
        """End a request; returns its share, in seconds."""
        self._advance()
        self._in_flight -= 1
        return self._shared - entered

    def _advance(self) -> None:
        at = self._clock()
        if self._in_flight:
            self._shared += (at - self._at) / self._in_flight
        self._at = at
