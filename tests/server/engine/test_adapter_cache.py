import asyncio
from contextlib import AsyncExitStack

import pytest

from server.engine.adapter_cache import AdapterCache, AdapterRef
from server.errors import AdapterRefused, EngineBusy, EngineUnavailable


class Engine:
    """Counts what it is told; refuses to hold more than it can."""

    def __init__(self, max_loaded: int) -> None:
        self.loaded: set[str] = set()
        self.max_loaded = max_loaded
        self.loads: list[str] = []
        self.pause = 0.0
        self.refuse: Exception | None = None

    async def ensure_adapter(self, name: str, path: str) -> float:
        self.loads.append(name)
        await asyncio.sleep(self.pause)
        if self.refuse:
            raise self.refuse
        self.loaded.add(name)
        assert len(self.loaded) <= self.max_loaded, "the engine's own eviction would act"
        return 0.0

    async def drop_adapter(self, name: str) -> None:
        await asyncio.sleep(self.pause)
        self.loaded.discard(name)


def ref(name: str) -> AdapterRef:
    return AdapterRef(name=name, path=f"/adapters/{name}")


def cache_of(engine: Engine, max_active: int = 2, **options) -> AdapterCache:
    return AdapterCache(
        engine,
        max_active=max_active,
        max_loaded=engine.max_loaded,
        **{"patience_seconds": 0.05, "wait_seconds": 2.0, **options},
    )


async def test_sixteen_first_requests_load_an_adapter_once():
    engine = Engine(2)
    engine.pause = 0.01
    cache = cache_of(engine)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(stack.enter_async_context(cache.lease(ref("a"))))
    assert engine.loads == ["a"]
    assert cache.in_flight == {}


async def test_the_least_recently_used_adapter_without_a_request_makes_room():
    engine = Engine(3)
    cache = cache_of(engine)
    for name in "abcad":
        async with cache.lease(ref(name)):
            pass
    assert engine.loaded == {"c", "a", "d"}
    async with cache.lease(ref("c")), cache.lease(ref("e")):
        assert engine.loaded == {"c", "d", "e"}


async def test_twelve_adapters_on_four_places_are_all_served():
    engine = Engine(4)
    cache = cache_of(engine, max_active=4)
    served = []

    async def ask(name: str) -> None:
        async with cache.lease(ref(name)):
            assert len(cache.in_flight) <= 4
            await asyncio.sleep(0.005)
            served.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            for number in range(12):
                group.create_task(ask(f"t{number}"))
    assert len(served) == 60
    assert set(served[:24]) >= {f"t{n}" for n in range(4)}
    assert cache.waiting == 0


async def test_an_adapter_that_is_always_busy_cannot_starve_another():
    engine = Engine(1)
    cache = cache_of(engine, max_active=1)
    stop = asyncio.Event()

    async def hog() -> None:
        while not stop.is_set():
            async with cache.lease(ref("hog")):
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(hog())
            await asyncio.sleep(0.005)  # never all at rest together
        began = asyncio.get_running_loop().time()
        async with cache.lease(ref("quiet")):
            waited = asyncio.get_running_loop().time() - began
        stop.set()
    assert waited < 0.5


async def test_within_the_patience_a_running_adapter_lets_more_requests_in():
    engine = Engine(1)
    cache = cache_of(engine, max_active=1, patience_seconds=5.0)
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        await stack.enter_async_context(cache.lease(ref("a")))
        other = group.create_task(_enter(cache, "b"))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.5):
            async with cache.lease(ref("a")):
                assert not other.done()


async def _enter(cache: AdapterCache, name: str) -> None:
    async with cache.lease(ref(name)):
        pass


async def test_a_request_that_waits_too_long_gets_busy_and_leaves_the_queue():
    cache = cache_of(Engine(1), max_active=1, wait_seconds=0.05)
    async with cache.lease(ref("a")):
        with pytest.raises(EngineBusy):
            await _enter(cache, "b")
        assert cache.waiting == 0
    await _enter(cache, "b")


async def test_a_waiter_that_is_cancelled_leaves_no_trace():
    cache = cache_of(Engine(1), max_active=1)
    async with asyncio.TaskGroup() as group:
        async with cache.lease(ref("a")):
            gone = group.create_task(_enter(cache, "b"))
            stays = group.create_task(_enter(cache, "c"))
            await asyncio.sleep(0)
            gone.cancel()
        await stays
    assert cache.in_flight == {}
    assert cache.waiting == 0


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_gives_the_place_on():
    cache = cache_of(Engine(1), max_active=1)
    async with asyncio.TaskGroup() as group:
        async with cache.lease(ref("a")):
            gone = group.create_task(_enter(cache, "b"))
            stays = group.create_task(_enter(cache, "c"))
            await asyncio.sleep(0)
        gone.cancel()  # its place was given to it, and it has not run since
        await stays
    assert cache.in_flight == {}


async def test_forgetting_waits_for_the_last_lease():
    engine = Engine(2)
    cache = cache_of(engine)
    async with cache.lease(ref("a")):
        async with cache.lease(ref("a")):
            await cache.forget("a")
        assert engine.loaded == {"a"}
    assert engine.loaded == set()
    await cache.forget("a")


async def test_a_request_that_comes_while_its_adapter_is_unloaded_gets_it_loaded_again():
    engine = Engine(2)
    engine.pause = 0.02
    cache = cache_of(engine)
    await _enter(cache, "a")
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.forget("a"))
        await asyncio.sleep(0.005)
        async with cache.lease(ref("a")):
            assert engine.loaded == {"a"}
    assert engine.loads == ["a", "a"]


async def test_an_adapter_that_the_engine_refuses_takes_no_room():
    engine = Engine(1)
    cache = cache_of(engine, max_active=1)
    engine.refuse = AdapterRefused("no")
    with pytest.raises(AdapterRefused):
        await _enter(cache, "bad")
    engine.refuse = None
    await _enter(cache, "good")
    assert cache.loaded == ["good"]


async def test_a_load_that_was_cut_off_counts_as_loaded_until_it_is_dropped():
    engine = Engine(1)
    engine.pause = 0.05
    cache = cache_of(engine, max_active=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await _enter(cache, "a")
    assert cache.loaded == ["a"]
    await _enter(cache, "b")
    assert cache.loaded == ["b"]


async def test_after_a_restart_of_the_engine_adapters_are_loaded_again():
    engine = Engine(2)
    cache = cache_of(engine)
    await _enter(cache, "a")
    engine.loaded.clear()
    cache.reset()
    await _enter(cache, "a")
    assert engine.loads == ["a", "a"]


async def test_all_waiting_requests_are_rejected_when_the_engine_ends():
    cache = cache_of(Engine(1), max_active=1)
    async with asyncio.TaskGroup() as group, cache.lease(ref("a")):
        waiting = group.create_task(_outcome(cache, "b"))
        await asyncio.sleep(0)
        cache.reject_waiting(EngineUnavailable("gone"))
        assert isinstance(await waiting, EngineUnavailable)
    assert cache.in_flight == {}


async def _outcome(cache: AdapterCache, name: str) -> Exception | None:
    try:
        await _enter(cache, name)
    except EngineUnavailable as exc:
        return exc
    return None


def test_limits_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="max_active"):
        cache_of(Engine(1), max_active=2)
