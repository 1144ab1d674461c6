"""Seats of the scripted engine: so many answers are generated at a time, the others wait in line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Seats:
    """At most ``count`` taken together, first come first served, as vLLM's ``max_num_seqs``."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._first = asyncio.Lock()  # who needs several seats takes them before anybody else may
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
