"""Which adapters are loaded, and which may run: decided here, so that the engine never has to.

vLLM's own eviction unloads any adapter when it needs a slot, and a request for an adapter whose
folder was deleted meanwhile ends the engine for every tenant. So at most ``max_loaded`` adapters
are ever loaded, the least recently used one without a request is unloaded first, and at most
``max_active`` adapters have requests in flight.

When ``max_active`` adapters are in flight, others queue, first come first served. An adapter that
reaches the head of the queue is admitted with all requests that it has waiting by then. Further
requests of an adapter in flight are admitted at once, until the head of the queue has waited for
longer than ``patience_seconds``: from then on they queue too, so that the adapter runs empty and
frees its place.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from server.errors import AdapterRefused, EngineBusy, Unavailable


class AdapterRef(msgspec.Struct, frozen=True):
    """An adapter as the engine knows it: a name that is never reused, and an immutable folder."""

    name: str
    path: str


class AdapterLoader(Protocol):
    """The part of ``EngineBackend`` that loads and unloads adapters. Both calls are idempotent."""

    async def ensure_adapter(self, name: str, path: str) -> float:
        """Load an adapter, unless it is loaded."""

    async def drop_adapter(self, name: str) -> None:
        """Unload an adapter."""


@dataclass
class _Queue:
    """One adapter's requests that wait to be admitted, oldest first."""

    since: float
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class AdapterCache:
    """Leases on loaded adapters. Use on one event loop.

    ::

        cache = AdapterCache(client, max_active=8, max_loaded=32)
        async with cache.lease(AdapterRef("acme.0123456789ab", "/srv/adapters/acme.0123456789ab")):
            ...  # the adapter is loaded, and stays loaded

    Args:
        loader: the engine.
        max_active: adapters that may have leases at the same time; at least 1.
        max_loaded: adapters that may be loaded at the same time; at least ``max_active``, at most
            what the engine can hold, or the engine evicts by itself.
        patience_seconds: see the module.
        wait_seconds: longest wait in the queue.
    """

    def __init__(
        self,
        loader: AdapterLoader,
        *,
        max_active: int,
        max_loaded: int,
        patience_seconds: float = 1.0,
        wait_seconds: float = 60.0,
    ) -> None:
        self.set_limits(max_active=max_active, max_loaded=max_loaded)
        self.new_adapter_used = asyncio.Event()
        """Set when the first request on a newly loaded adapter has ended; the reader clears it."""
        self._loader = loader
        self._patience = patience_seconds
        self._wait = wait_seconds
        self._in_flight: dict[str, int] = {}
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._loaded: OrderedDict[str, bool] = OrderedDict()  # name -> certain; oldest use first
        self._life = 0
        self._fresh: set[str] = set()
        self._unwanted: set[str] = set()
        self._loading = asyncio.Lock()  # one at a time: the engine loads between two steps anyway

    def set_limits(self, *, max_active: int, max_loaded: int) -> None:
        """Set how many adapters may be in flight, and loaded."""
        if not 1 <= max_active <= max_loaded:
            raise ValueError(f"need 1 <= max_active <= max_loaded, not {max_active}, {max_loaded}")
        self._max_active = max_active
        self._max_loaded = max_loaded

    @property
    def loaded(self) -> list[str]:
        """Names of the adapters that are, or may be, loaded; least recently used first."""
        return list(self._loaded)

    @property
    def max_loaded(self) -> int:
        """How many adapters may be loaded at the same time."""
        return self._max_loaded

    @property
    def in_flight(self) -> dict[str, int]:
        """Number of leases per adapter."""
        return dict(self._in_flight)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return sum(len(queue.waiters) for queue in self._queues.values())

    @asynccontextmanager
    async def lease(self, ref: AdapterRef) -> AsyncIterator[None]:
        """Keep an adapter loaded and in flight.

        Raises:
            EngineBusy: the request was not admitted within ``wait_seconds``.
            AdapterRefused: the engine would not load it.
        """
        await self._enter(ref.name)
        try:
            self._unwanted.discard(ref.name)
            if self._loaded.get(ref.name):
                self._loaded.move_to_end(ref.name)
            else:
                await self._load(ref)
            yield
        finally:
            await self._leave(ref.name)

    async def forget(self, name: str) -> None:
        """Unload an adapter: now, or when its last lease ends."""
        if name in self._in_flight or name in self._queues:
            self._unwanted.add(name)
            return
        async with self._loading:
            if name not in self._in_flight:
                await self._unload(name)

    def reset(self) -> None:
        """A new engine has nothing loaded. Leases stay, and end as they would."""
        self._life += 1
        self._loaded.clear()
        self._fresh.clear()

    def reject_waiting(self, reason: Unavailable) -> None:
        """Raise this error in every request that is in the queue."""
        for queue in self._queues.values():
            for waiter in queue.waiters:
                if not waiter.done():
                    waiter.set_exception(reason)
        self._queues.clear()

    def mark_stale(self, name: str) -> None:
        """The engine did not know this adapter: load it again before its next use."""
        if name in self._loaded:
            self._loaded[name] = False

    async def _enter(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        oldest = next(iter(self._queues.values()), None)
        patient = oldest is None or now - oldest.since <= self._patience
        if name in self._in_flight and name not in self._queues and patient:
            self._in_flight[name] += 1
            return
        queue = self._queues.setdefault(name, _Queue(since=now))
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.waiters.append(waiter)
        self._admit()
        try:
            async with asyncio.timeout(self._wait):
                await waiter
        except TimeoutError as exc:
            self._step_back(name, waiter)
            raise EngineBusy(
                f"all {self._max_active} places for adapters are taken",
                retry_after_seconds=max(1.0, self._patience),
            ) from exc
        except asyncio.CancelledError:
            self._step_back(name, waiter)
            raise

    def _step_back(self, name: str, waiter: asyncio.Future[None]) -> None:
        """A waiter gave up, perhaps in the moment in which it was admitted."""
        if waiter.done() and not waiter.cancelled():
            if waiter.exception() is None:
                self._count_down(name)
        elif name in self._queues:
            waiters = self._queues[name].waiters
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                del self._queues[name]
        self._admit()

    def _admit(self) -> None:
        """Admit adapters from the head of the queue while there is a place for them."""
        while self._queues:
            name, queue = next(iter(self._queues.items()))
            if name not in self._in_flight and len(self._in_flight) >= self._max_active:
                return
            del self._queues[name]
            for waiter in queue.waiters:
                if not waiter.done():
                    waiter.set_result(None)
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
            self.new_adapter_used.set()
        if last and name in self._unwanted and name not in self._in_flight:
            self._unwanted.discard(name)
            with suppress(Unavailable):  # an engine that ended has nothing loaded
                await self.forget(name)

    async def _load(self, ref: AdapterRef) -> None:
        async with self._loading:
            if self._loaded.get(ref.name):  # another request loaded it meanwhile
                self._loaded.move_to_end(ref.name)
                return
            if ref.name not in self._loaded:
                while len(self._loaded) >= self._max_loaded:
                    await self._unload(next(n for n in self._loaded if n not in self._in_flight))
            # Counted before the engine is asked: a call that is cut off may yet have loaded it.
            self._loaded[ref.name] = False
            life = self._life
            try:
                await self._loader.ensure_adapter(ref.name, ref.path)
            except AdapterRefused:
                self._loaded.pop(ref.name, None)
                raise
            if life == self._life:
                self._loaded[ref.name] = True
                self._fresh.add(ref.name)

    async def _unload(self, name: str) -> None:
        if name in self._loaded:
            self._loaded[name] = False  # a request that comes now takes the lock and loads it again
            await self._loader.drop_adapter(name)
            self._loaded.pop(name, None)
            self._fresh.discard(name)
