import asyncio
import os
import signal
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import msgspec
import pytest

from server.engine.process import orphans
from server.engine.service import EngineService
from server.errors import Conflict, EngineUnavailable, StreamBroken
from tests.engines import engine_metrics, loaded_adapters

MESSAGES = [{"role": "user", "content": "hello"}]


def body(tokens: int = 8) -> dict[str, Any]:
    return {"messages": MESSAGES, "max_tokens": tokens, "min_tokens": tokens}


def text(payload: bytes) -> str:
    choices = msgspec.json.decode(payload)["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


async def read(service: EngineService, adapter=None, tokens: int = 8) -> str:
    async with service.stream(body(tokens), tenant="t", adapter=adapter) as payloads:
        return "".join([text(payload) async for payload in payloads])


async def until(state: str, service: EngineService, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        async for status in service.subscribe():
            if status.state == state:
                return


async def outcome(payloads: AsyncIterator[bytes]) -> str:
    try:
        async for _ in payloads:
            pass
    except StreamBroken as exc:
        return exc.message
    return "complete"


async def test_killing_the_engine_breaks_every_stream_and_it_comes_back(start_fake, make_adapter):
    service = await start_fake(tokens_per_second=50)
    adapter = make_adapter("acme.000000000001")
    async with asyncio.TaskGroup() as group:
        opened = asyncio.Barrier(9)

        async def stream(number: int) -> str:
            used = adapter if number % 2 else None
            async with service.stream(body(500), tenant="t", adapter=used) as payloads:
                await opened.wait()
                return await outcome(payloads)

        streams = [group.create_task(stream(number)) for number in range(8)]
        await opened.wait()
        for pid in orphans.members(service.status.pid):
            os.kill(pid, signal.SIGKILL)
    assert all(task.result() != "complete" for task in streams)
    with pytest.raises(EngineUnavailable) as caught:
        await read(service)
    assert caught.value.retry_after_seconds >= 1
    if service.status.restarts == 0:
        await until("restarting", service)
    await service.wait_ready(10)
    assert service.status.restarts == 1
    assert (await read(service, adapter)).startswith("[acme.000000000001]")


async def test_a_hung_engine_is_noticed_killed_and_replaced(start_fake):
    service = await start_fake(tokens_per_second=50)
    first = service.status.pid
    async with service.stream(body(500), tenant="t", adapter=None) as payloads:
        os.killpg(first, signal.SIGSTOP)
        began = monotonic()
        async with asyncio.timeout(10):
            assert "health checks" in await outcome(payloads)
        assert monotonic() - began < 5
    await service.wait_ready(10)
    assert service.status.pid != first
    assert orphans.members(first) == []


async def test_stopping_lets_streams_finish_within_the_grace(start_fake):
    service = await start_fake(tokens_per_second=100)
    opened = asyncio.Event()

    async def stream() -> str:
        async with service.stream(body(40), tenant="t", adapter=None) as payloads:
            opened.set()
            return await outcome(payloads)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(stream())
        await opened.wait()
        group.create_task(service.stop(grace_seconds=10))
        await asyncio.sleep(0.05)
        with pytest.raises(EngineUnavailable, match="stopping"):
            await read(service)
    assert running.result() == "complete"
    assert service.status.state == "stopped"


async def test_streams_that_outlast_the_grace_end_with_an_error(start_fake):
    service = await start_fake(tokens_per_second=20)
    group_id = service.status.pid

    async def stream() -> str:
        async with service.stream(body(2000), tenant="t", adapter=None) as payloads:
            return await outcome(payloads)

    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(stream()) for _ in range(5)]
        await asyncio.sleep(0.2)
        await service.stop(grace_seconds=0.2)
    assert {task.result() for task in streams} == {"the server is stopping"}
    assert orphans.members(group_id) == []


async def test_before_it_is_ready_requests_are_refused_with_a_time_to_come_back(start_fake):
    service = await start_fake(ready=False, start_seconds=0.5)
    with pytest.raises(EngineUnavailable) as caught:
        await read(service)
    assert caught.value.retry_after_seconds > 0
    seen = set()
    async for status in service.subscribe():
        seen.add(status.detail)
        if status.state == "ready":
            break
    assert "loading the weights" in seen


async def test_a_poisoned_engine_is_recycled(start_fake, make_adapter):
    service = await start_fake(service={"probe_seconds": 0.2})
    bad = make_adapter("bad.000000000001", poison=True)
    await read(service, bad)
    await until("restarting", service)
    await service.wait_ready(10)
    assert (await read(service)).startswith("[fake-base]")


async def test_an_engine_at_a_url_is_used_and_left_running(start_fake, tmp_path):
    owner = await start_fake()
    service = EngineService(
        base="fake-base", run=tmp_path, url=f"unix:{tmp_path / 'run' / 'engine.sock'}"
    )
    await service.start()
    await service.wait_ready(5)
    assert (await read(service)).startswith("[fake-base]")
    await service.stop(grace_seconds=1)
    assert (await read(owner)).startswith("[fake-base]")


async def test_an_engine_at_a_url_that_goes_and_comes_back(start_fake, tmp_path, make_adapter):
    owner = await start_fake()
    service = EngineService(
        base="fake-base",
        run=tmp_path,
        url=f"unix:{tmp_path / 'run' / 'engine.sock'}",
        timing=owner._keeper._timing,
    )
    await service.start()
    await service.wait_ready(5)
    adapter = make_adapter("acme.000000000001")
    await read(service, adapter)
    os.killpg(owner.status.pid, signal.SIGSTOP)
    await until("restarting", service)
    with pytest.raises(EngineUnavailable):
        await read(service, adapter)
    await service.wait_ready(20)
    assert "acme.000000000001" in await read(service, adapter)
    await service.stop(grace_seconds=1)


async def test_twelve_tenants_on_four_slots_are_all_served_while_long_streams_run(
    start_fake, make_adapter
):
    service = await start_fake(max_loras=4, max_cpu_loras=16, turn_seconds=0.05)
    adapters = [make_adapter(f"tenant-{n}.000000000001") for n in range(12)]
    first_words: list[str] = []
    finished: list[str] = []

    async def stream(adapter) -> None:
        async with service.stream(body(60), tenant="t", adapter=adapter) as payloads:
            async for payload in payloads:
                if text(payload).startswith("["):
                    first_words.append(adapter.name)
                    assert not finished, "it waited for another's stream to end"
        finished.append(adapter.name)

    async with asyncio.TaskGroup() as group:
        for adapter in adapters:
            group.create_task(stream(adapter))
    assert len(set(first_words)) == len(finished) == 12
    assert "fake:evictions_total 0.0" in await engine_metrics(service.client)


async def test_forty_adapters_through_eight_places_never_make_the_engine_evict(
    start_fake, make_adapter
):
    service = await start_fake(max_loras=2, max_cpu_loras=8, tokens_per_second=1000)
    adapters = [make_adapter(f"tenant-{n}.000000000001") for n in range(40)]
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(read(service, adapter)) for adapter in adapters]
    for adapter, answer in zip(adapters, answers, strict=True):
        assert answer.result().startswith(f"[{adapter.name}]")
    assert len(await loaded_adapters(service.client)) <= 8
    assert "fake:evictions_total 0.0" in await engine_metrics(service.client)


async def test_a_restart_breaks_open_answers_and_the_engine_comes_back(start_fake):
    service = await start_fake(tokens_per_second=50)
    pid = service.status.pid
    assert service.can_restart
    assert service.checked_at is not None
    async with service.stream(body(500), tenant="t", adapter=None) as payloads:
        service.restart("Ana restarted it")
        assert "Ana restarted it" in await outcome(payloads)
    await service.wait_ready(20)
    assert service.status.pid != pid
    assert service.status.ended == "Ana restarted it"
    assert (await service.figures.read()).kv_cache == 0.0


async def test_an_engine_that_runs_elsewhere_is_not_restarted_here(tmp_path):
    service = EngineService(base="b", run=tmp_path, url="http://user:secret@127.0.0.1:1/x")
    assert not service.can_restart
    assert service.client.address == "http://127.0.0.1:1/x"
    with pytest.raises(Conflict):
        service.restart("Ana wants it")
    await service.stop(grace_seconds=0)
