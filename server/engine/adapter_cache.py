"""Which adapters are loaded, and which may run: decided here, so that the engine never has to.

vLLM's own eviction unloads what it likes when a slot is needed, and asking for an adapter whose
folder went away meanwhile ends the engine for everybody. So at most ``resident`` adapters are ever
loaded, the least recently used one without a request is unloaded first, and at most ``concurrent``
adapters have requests in flight.

When every place is taken, adapters wait in line and are let in one after the other, each with all
the requests it has waiting by then. An adapter that is in flight lets further requests in at once,
until somebody has waited for longer than ``patience_seconds``: from then on its new requests stand
in line like everybody's, so that it empties and its place goes round.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from server.errors import AdapterRefused, EngineBusy, Unavailable


class AdapterRef(msgspec.Struct, frozen=True):
    """An adapter as the engine knows it: a name that is never reused, and an immutable folder."""

    name: str
    path: str


@dataclass
class _Line:
    """One adapter's requests that wait for a place, oldest first."""

    since: float
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class AdapterCache:
    """Leases on adapters. Use on one event loop.

    ``load`` and ``unload`` talk to the engine and are idempotent. ``on_fresh`` is called when the
    first request on a newly loaded adapter has ended.
    """

    def __init__(
        self,
        *,
        load: Callable[[AdapterRef], Awaitable[object]],
        unload: Callable[[str], Awaitable[None]],
        concurrent: int,
        resident: int,
        patience_seconds: float = 1.0,
        wait_seconds: float = 60.0,
        on_fresh: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.limit(concurrent=concurrent, resident=resident)
        self._load = load
        self._unload = unload
        self._patience = patience_seconds
        self._wait = wait_seconds
        self._on_fresh = on_fresh
        self._in_flight: dict[str, int] = {}
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._loaded: OrderedDict[str, bool] = OrderedDict()  # name -> certain; oldest use first
        self._life = 0
        self._fresh: set[str] = set()
        self._unwanted: set[str] = set()
        self._loading = asyncio.Lock()  # one at a time: the engine loads between two steps anyway

    def limit(self, *, concurrent: int, resident: int) -> None:
        """Set how many adapters may be in flight, and loaded."""
        if not 1 <= concurrent <= resident:
            raise ValueError(f"need 1 <= concurrent <= resident, not {concurrent} and {resident}")
        self._concurrent = concurrent
        self._resident = resident

    @property
    def loaded(self) -> list[str]:
        """Names of the adapters that are, or may be, loaded; least recently used first."""
        return list(self._loaded)

    @property
    def in_flight(self) -> dict[str, int]:
        """Number of leases per adapter."""
        return dict(self._in_flight)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return sum(len(line.waiters) for line in self._lines.values())

    @asynccontextmanager
    async def lease(self, ref: AdapterRef) -> AsyncIterator[None]:
        """Hold an adapter loaded and in flight.

        Raises:
            EngineBusy: no place became free within ``wait_seconds``.
            AdapterRefused: the engine would not load it.
        """
        await self._enter(ref.name)
        try:
            self._unwanted.discard(ref.name)
            if self._loaded.get(ref.name):
                self._loaded.move_to_end(ref.name)
            else:
                await self._make_resident(ref)
            yield
        finally:
            await self._leave(ref.name)

    async def forget(self, name: str) -> None:
        """Unload an adapter: now, or when its last lease ends."""
        if name in self._in_flight or name in self._lines:
            self._unwanted.add(name)
            return
        async with self._loading:
            if name not in self._in_flight:
                await self._remove(name)

    def reset(self) -> None:
        """The engine is another one now: nothing is loaded. Leases stay and end as they do."""
        self._life += 1
        self._loaded.clear()
        self._fresh.clear()

    def reject_waiting(self, reason: Unavailable) -> None:
        """Everybody in line gets this error instead of a place."""
        for line in self._lines.values():
            for place in line.waiters:
                if not place.done():
                    place.set_exception(reason)
        self._lines.clear()

    def mark_stale(self, name: str) -> None:
        """The engine did not know this adapter: load it again before its next use."""
        if name in self._loaded:
            self._loaded[name] = False

    async def _enter(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        oldest = next(iter(self._lines.values()), None)
        patient = oldest is None or now - oldest.since <= self._patience
        if name in self._in_flight and name not in self._lines and patient:
            self._in_flight[name] += 1
            return
        line = self._lines.setdefault(name, _Line(since=now))
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiters.append(place)
        self._admit()
        try:
            async with asyncio.timeout(self._wait):
                await place
        except TimeoutError as exc:
            self._step_back(name, place)
            raise EngineBusy(
                f"all {self._concurrent} places for adapters are taken",
                retry_after_seconds=max(1.0, self._patience),
            ) from exc
        except asyncio.CancelledError:
            self._step_back(name, place)
            raise

    def _step_back(self, name: str, place: asyncio.Future[None]) -> None:
        """A waiter gave up, perhaps in the very moment its place was given to it."""
        if place.done() and not place.cancelled():
            if place.exception() is None:
                self._count_down(name)
        elif name in self._lines:
            waiters = self._lines[name].waiters
            if place in waiters:
                waiters.remove(place)
            if not waiters:
                del self._lines[name]
        self._admit()

    def _admit(self) -> None:
        """Let in whoever is first, as long as there is a place for it."""
        while self._lines:
            name, line = next(iter(self._lines.items()))
            if name not in self._in_flight and len(self._in_flight) >= self._concurrent:
                return
            del self._lines[name]
            for place in line.waiters:
                if not place.done():
                    place.set_result(None)
                    self._in_flight[name] = self._in_flight.get(name, 0) + 1

    def _count_down(self, name: str) -> bool:
        """One lease less; True when it was the last."""
        self._in_flight[name] -= 1
        if self._in_flight[name]:
            return False
        del self._in_flight[name]
        return True

    async def _leave(self, name: str) -> None:
        last = self._count_down(name)
        self._admit()
        if name in self._fresh:
            self._fresh.discard(name)
            self._on_fresh(name)
        if last and name in self._unwanted and name not in self._in_flight:
            self._unwanted.discard(name)
            with suppress(Unavailable):  # an engine that is gone has forgotten it already
                await self.forget(name)

    async def _make_resident(self, ref: AdapterRef) -> None:
        async with self._loading:
            if self._loaded.get(ref.name):  # another request loaded it meanwhile
                self._loaded.move_to_end(ref.name)
                return
            if ref.name not in self._loaded:
                while len(self._loaded) >= self._resident:
                    await self._remove(next(n for n in self._loaded if n not in self._in_flight))
            # Counted before the engine is asked: a call that is cut off may yet have loaded it.
            self._loaded[ref.name] = False
            life = self._life
            try:
                await self._load(ref)
            except AdapterRefused:
                self._loaded.pop(ref.name, None)
                raise
            if life == self._life:
                self._loaded[ref.name] = True
                self._fresh.add(ref.name)

    async def _remove(self, name: str) -> None:
        if name in self._loaded:
            self._loaded[name] = False  # whoever comes now waits for the lock and loads it again
            await self._unload(name)
            self._loaded.pop(name, None)
            self._fresh.discard(name)
