import asyncio
from contextlib import AsyncExitStack

import pytest

from server.engine.adapter_cache import AdapterCache, AdapterRef
from server.errors import AdapterRefused, EngineBusy, EngineUnavailable


class Engine:
    """Counts what it is told; refuses to hold more than it can."""

    def __init__(self, resident: int) -> None:
        self.loaded: set[str] = set()
        self.resident = resident
        self.loads: list[str] = []
        self.pause = 0.0
        self.refuse: Exception | None = None

    async def load(self, ref: AdapterRef) -> None:
        self.loads.append(ref.name)
        await asyncio.sleep(self.pause)
        if self.refuse:
            raise self.refuse
        self.loaded.add(ref.name)
        assert len(self.loaded) <= self.resident, "the engine's own eviction would act"

    async def unload(self, name: str) -> None:
        await asyncio.sleep(self.pause)
        self.loaded.discard(name)


def ref(name: str) -> AdapterRef:
    return AdapterRef(name=name, path=f"/adapters/{name}")


def residency(engine: Engine, concurrent: int = 2, **options) -> AdapterCache:
    return AdapterCache(
        load=engine.load,
        unload=engine.unload,
        concurrent=concurrent,
        resident=engine.resident,
        **{"patience_seconds": 0.05, "wait_seconds": 2.0, **options},
    )


async def test_sixteen_first_requests_load_an_adapter_once():
    engine = Engine(2)
    engine.pause = 0.01
    places = residency(engine)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(stack.enter_async_context(places.lease(ref("a"))))
    assert engine.loads == ["a"]
    assert places.in_flight == {}


async def test_the_least_recently_used_adapter_without_a_request_makes_room():
    engine = Engine(3)
    places = residency(engine)
    for name in "abcad":
        async with places.lease(ref(name)):
            pass
    assert engine.loaded == {"c", "a", "d"}
    async with places.lease(ref("c")), places.lease(ref("e")):
        assert engine.loaded == {"c", "d", "e"}


async def test_twelve_adapters_on_four_places_are_all_served():
    engine = Engine(4)
    places = residency(engine, concurrent=4)
    served = []

    async def ask(name: str) -> None:
        async with places.lease(ref(name)):
            assert len(places.in_flight) <= 4
            await asyncio.sleep(0.005)
            served.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            for number in range(12):
                group.create_task(ask(f"t{number}"))
    assert len(served) == 60
    assert set(served[:24]) >= {f"t{n}" for n in range(4)}
    assert places.waiting == 0


async def test_an_adapter_that_is_always_busy_cannot_starve_another():
    engine = Engine(1)
    places = residency(engine, concurrent=1)
    stop = asyncio.Event()

    async def hog() -> None:
        while not stop.is_set():
            async with places.lease(ref("hog")):
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(hog())
            await asyncio.sleep(0.005)  # never all at rest together
        began = asyncio.get_running_loop().time()
        async with places.lease(ref("quiet")):
            waited = asyncio.get_running_loop().time() - began
        stop.set()
    assert waited < 0.5


async def test_within_the_patience_a_running_adapter_lets_more_requests_in():
    engine = Engine(1)
    places = residency(engine, concurrent=1, patience_seconds=5.0)
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        await stack.enter_async_context(places.lease(ref("a")))
        other = group.create_task(_enter(places, "b"))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.5):
            async with places.lease(ref("a")):
                assert not other.done()


async def _enter(places: AdapterCache, name: str) -> None:
    async with places.lease(ref(name)):
        pass


async def test_who_finds_no_place_in_time_is_told_that_it_is_busy_and_leaves_the_line():
    places = residency(Engine(1), concurrent=1, wait_seconds=0.05)
    async with places.lease(ref("a")):
        with pytest.raises(EngineBusy):
            await _enter(places, "b")
        assert places.waiting == 0
    await _enter(places, "b")


async def test_a_waiter_that_is_cancelled_leaves_no_trace():
    places = residency(Engine(1), concurrent=1)
    async with asyncio.TaskGroup() as group:
        async with places.lease(ref("a")):
            gone = group.create_task(_enter(places, "b"))
            stays = group.create_task(_enter(places, "c"))
            await asyncio.sleep(0)
            gone.cancel()
        await stays
    assert places.in_flight == {}
    assert places.waiting == 0


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_gives_the_place_on():
    places = residency(Engine(1), concurrent=1)
    async with asyncio.TaskGroup() as group:
        async with places.lease(ref("a")):
            gone = group.create_task(_enter(places, "b"))
            stays = group.create_task(_enter(places, "c"))
            await asyncio.sleep(0)
        gone.cancel()  # its place was given to it, and it has not run since
        await stays
    assert places.in_flight == {}


async def test_forgetting_waits_for_the_last_lease():
    engine = Engine(2)
    places = residency(engine)
    async with places.lease(ref("a")):
        async with places.lease(ref("a")):
            await places.forget("a")
        assert engine.loaded == {"a"}
    assert engine.loaded == set()
    await places.forget("a")


async def test_a_request_that_comes_while_its_adapter_is_unloaded_gets_it_loaded_again():
    engine = Engine(2)
    engine.pause = 0.02
    places = residency(engine)
    await _enter(places, "a")
    async with asyncio.TaskGroup() as group:
        group.create_task(places.forget("a"))
        await asyncio.sleep(0.005)
        async with places.lease(ref("a")):
            assert engine.loaded == {"a"}
    assert engine.loads == ["a", "a"]


async def test_an_adapter_that_the_engine_refuses_takes_no_room():
    engine = Engine(1)
    places = residency(engine, concurrent=1)
    engine.refuse = AdapterRefused("no")
    with pytest.raises(AdapterRefused):
        await _enter(places, "bad")
    engine.refuse = None
    await _enter(places, "good")
    assert places.loaded == ["good"]


async def test_a_load_that_was_cut_off_counts_as_loaded_until_it_is_dropped():
    engine = Engine(1)
    engine.pause = 0.05
    places = residency(engine, concurrent=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await _enter(places, "a")
    assert places.loaded == ["a"]
    await _enter(places, "b")
    assert places.loaded == ["b"]


async def test_after_a_restart_of_the_engine_adapters_are_loaded_again():
    engine = Engine(2)
    places = residency(engine)
    await _enter(places, "a")
    engine.loaded.clear()
    places.reset()
    await _enter(places, "a")
    assert engine.loads == ["a", "a"]


async def test_everybody_in_line_is_turned_away_when_the_engine_goes():
    places = residency(Engine(1), concurrent=1)
    async with asyncio.TaskGroup() as group, places.lease(ref("a")):
        waiting = group.create_task(_outcome(places, "b"))
        await asyncio.sleep(0)
        places.reject_waiting(EngineUnavailable("gone"))
        assert isinstance(await waiting, EngineUnavailable)
    assert places.in_flight == {}


async def _outcome(places: AdapterCache, name: str) -> Exception | None:
    try:
        await _enter(places, name)
    except EngineUnavailable as exc:
        return exc
    return None


def test_limits_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="concurrent"):
        residency(Engine(1), concurrent=2)
