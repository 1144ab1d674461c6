import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.embeddings.service import EmbeddingService, encoder_command
from server.engine.process.supervisor import Timing
from server.errors import TooMany, Unavailable
from tests.conftest import FAST


@asynccontextmanager
async def running(
    run: Path,
    *,
    idle_seconds: float = 600.0,
    wait_seconds: float = 20.0,
    timing: Timing = FAST,
    **options: float,
) -> AsyncIterator[EmbeddingService]:
    service = EmbeddingService(
        lambda: encoder_command(run, "fake", **options),
        run=run,
        timing=timing,
        start_seconds=wait_seconds,
        idle_seconds=idle_seconds,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run())
        try:
            yield service
        finally:
            task.cancel()


async def ask(service: EmbeddingService, *texts: str, tenant: str = "acme") -> list[bytes]:
    answer = await service.embed(list(texts), tenant=tenant, dimensions=384)
    return answer.vectors


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_the_process_starts_with_the_first_request_and_ends_unused(tmp_path):
    async with running(tmp_path, idle_seconds=0.2) as service:
        assert service.status.state == "stopped"
        assert list(tmp_path.iterdir()) == []
        first = await ask(service, "Hello")
        assert service.status.pid
        await until(lambda: service.status.state == "stopped")
        assert await ask(service, "Hello") == first
    assert service.status.state == "stopped"


async def test_nothing_is_left_when_the_service_ends(tmp_path):
    async with running(tmp_path) as service:
        await ask(service, "Hello")
        pid = service.status.pid
        assert pid
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        assert len(family) == 2
    assert not any(alive(member) for member in family)


async def test_a_process_that_is_killed_comes_back_for_the_next_request(tmp_path):
    async with running(tmp_path) as service:
        first = await ask(service, "Hello")
        pid = service.status.pid
        assert pid
        os.killpg(pid, signal.SIGKILL)
        await until(lambda: service.status.pid != pid)
        assert await ask(service, "Hello") == first
        assert service.status.restarts == 1


async def test_a_request_waits_for_the_start_only_so_long(tmp_path):
    async with running(tmp_path, wait_seconds=0.1, start_seconds=30) as service:
        with pytest.raises(Unavailable, match="starting") as refused:
            await ask(service, "Hello")
    assert refused.value.retry_after_seconds >= 1


async def test_requests_under_way_are_bounded_for_each_tenant(tmp_path):
    async with running(tmp_path, start_seconds=0.3) as service, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(service, "Hello")) for _ in range(32)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany):
            await ask(service, "Hello")
        other = await ask(service, "Hello", tenant="other")
        assert all([await task == other for task in tasks])


async def test_many_tenants_together_are_bounded_too(tmp_path):
    async with running(tmp_path, start_seconds=0.3) as service, asyncio.TaskGroup() as group:
        for number in range(128):
            group.create_task(ask(service, "Hello", tenant=f"tenant{number % 8}"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many"):
            await ask(service, "Hello", tenant="late")


SERVER = """
import asyncio, sys
from pathlib import Path
from server.embeddings.service import EmbeddingService, encoder_command

async def main():
    run = Path(sys.argv[1])
    service = EmbeddingService(lambda: encoder_command(run, "fake"), run=run)
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run())
        await service.embed(["Hello"], tenant="acme", dimensions=384)
        print("pid", service.status.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_process_ends_with_a_server_that_is_killed(tmp_path):
    server = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", SERVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    with server:
        assert server.stdout
        said = next(line for line in server.stdout if line.startswith("pid "))
        pid = int(said.removeprefix("pid "))
        children = psutil.Process(pid).children()
        server.kill()
    assert children
    await until(lambda: not any(alive(child.pid) for child in children))
