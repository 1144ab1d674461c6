"""How many requests of the fake engine generate at the same time, as in vLLM.

``Seats`` is vLLM's ``max_num_seqs``, ``Turns`` its ``max_loras`` with our scheduler.
"""

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Seats:
    """At most ``count`` answers are generated at the same time, first come first served."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._first = asyncio.Lock()  # a request that needs several seats takes them before others
        self.waiting = 0

    @asynccontextmanager
    async def taking(self, wanted: int) -> AsyncIterator[None]:
        """Hold seats, all of them where more are wanted than there are."""
        taken = 0
        self.waiting += 1
        try:
            try:
                async with self._first:
                    for _ in range(min(wanted, self._count)):
                        await self._free.acquire()
                        taken += 1
            finally:
                self.waiting -= 1
            yield
        finally:
            for _ in range(taken):
                self._free.release()


class Turns:
    """At most ``slots`` adapters generate at the same time; the base, None, always may.

    An adapter that others wait for gives its turn up after ``turn_seconds`` and queues again. With
    0 it keeps the turn until its last request is done, as an engine without our scheduler does.
    """

    def __init__(self, slots: int, turn_seconds: float) -> None:
        self._slots = slots
        self._turn_seconds = turn_seconds or math.inf
        self._users: Counter[str] = Counter()
        self._since: dict[str, float] = {}  # adapters that have the turn
        self._queue: OrderedDict[str, asyncio.Event] = OrderedDict()

    @asynccontextmanager
    async def taking(self, adapter: str | None) -> AsyncIterator[None]:
        """Take part; ``wait`` before each step."""
        if adapter is None:
            yield
            return
        self._users[adapter] += 1
        try:
            yield
        finally:
            self._users[adapter] -= 1
            if not self._users[adapter]:
                self._since.pop(adapter, None)
                self._queue.pop(adapter, None)
                self._next()

    async def wait(self, adapter: str | None) -> None:
        """Return when it is this adapter's turn."""
        if adapter is None:
            return
        now = time.monotonic()
        if self._queue and now - self._since.get(adapter, math.inf) > self._turn_seconds:
            del self._since[adapter]
            self._queue[adapter] = asyncio.Event()
            self._next()
        while adapter not in self._since:
            event = self._queue.setdefault(adapter, asyncio.Event())
            self._next()
            await event.wait()

    def _next(self) -> None:
        while self._queue and len(self._since) < self._slots:
            adapter, event = self._queue.popitem(last=False)
            self._since[adapter] = time.monotonic()
            event.set()
