"""Turns of the scripted engine: a few adapters generate at a time, the others get theirs soon."""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most ``places`` keys have the turn; None always has it.

    A key that others wait for gives its turn up after ``turn_seconds`` and stands in line again.
    With 0 it keeps the turn until its last user is done, as an engine without our scheduler does.
    """

    def __init__(self, places: int, turn_seconds: float) -> None:
        self._places = places
        self._turn_seconds = turn_seconds or math.inf
        self._users: Counter[str] = Counter()
        self._since: dict[str, float] = {}  # keys that have the turn
        self._line: OrderedDict[str, asyncio.Event] = OrderedDict()

    @asynccontextmanager
    async def taking(self, key: str | None) -> AsyncIterator[None]:
        """Take part; ``wait`` before each step."""
        if key is None:
            yield
            return
        self._users[key] += 1
        try:
            yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                self._since.pop(key, None)
                self._line.pop(key, None)
                self._next()

    async def wait(self, key: str | None) -> None:
        """Return when it is this key's turn."""
        if key is None:
            return
        now = time.monotonic()
        if self._line and now - self._since.get(key, math.inf) > self._turn_seconds:
            del self._since[key]
            self._line[key] = asyncio.Event()
            self._next()
        while key not in self._since:
            event = self._line.setdefault(key, asyncio.Event())
            self._next()
            await event.wait()

    def _next(self) -> None:
        while self._line and len(self._since) < self._places:
            key, event = self._line.popitem(last=False)
            self._since[key] = time.monotonic()
            event.set()
