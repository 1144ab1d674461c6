"""What every test shares: engines to talk to, and a guard that keeps it from other hosts."""

import gc
import ipaddress
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from server.engine.backends.fake import fake_command
from server.engine.process.supervisor import Timing
from server.engine.service import AdapterRef, EngineService
from tests.server.engine.vllm.vllm_process import vllm_engine

__all__ = ["vllm_engine"]  # one real vLLM for all tests that ask for it

# An application and its libraries are 300,000 objects that stay: the default, 700, looks
# through them over and over.
gc.set_threshold(10_000, 20, 20)

# an installation's own settings, in the shell that starts the tests, are not the tests'
for _name in list(os.environ):
    if _name.startswith("TENANTUNE_") and not _name.startswith("TENANTUNE_TEST_"):
        del os.environ[_name]
os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")


class NetworkRefused(RuntimeError):
    """A test tried to reach something that is not this machine."""


def _refuse_other_hosts(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = args[1]
        if not isinstance(address, tuple) or _is_here(address[0]):
            return
    elif event == "socket.getaddrinfo":
        address = args[0]
        if address is None or _is_here(address):
            return
    else:
        return
    raise NetworkRefused(f"{event} {address!r}: tests use unix sockets and 127.0.0.1 only")


def _is_here(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("", "localhost")


sys.addaudithook(_refuse_other_hosts)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """A command that a test runs in this process keeps its files to itself; the next test not."""
    before = os.umask(0)
    os.umask(before)
    yield
    os.umask(before)


FAST = Timing(
    ready=20.0,
    health_every=0.1,
    health_timeout=0.5,
    health_misses=3,
    stable=30.0,
    short_lives=3,
    back_off_first=0.05,
    back_off_most=0.2,
    back_off_failed=0.3,
    term=0.5,
)
BASE = "fake-base"


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., AdapterRef]:
    """Adapters that the fake engine takes."""

    def make(name: str, *, poison: bool = False) -> AdapterRef:
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        if poison:
            (folder / "poison").touch()
        return AdapterRef(name=name, path=str(folder))

    return make


@pytest_asyncio.fixture
async def start_fake(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start engine services over fake engines; they are stopped after the test."""
    services: list[EngineService] = []

    async def start(
        *,
        ready: bool = True,
        timing: Timing = FAST,
        service: dict[str, Any] | None = None,
        **engine,
    ) -> EngineService:
        (tmp_path / "adapters").mkdir(exist_ok=True)
        command = fake_command(
            base=BASE, adapters=tmp_path / "adapters", run=tmp_path / "run", **engine
        )
        settings = {"probe_seconds": 60.0, **(service or {})}
        started = EngineService(
            base=BASE, run=tmp_path / "run", command=command, timing=timing, **settings
        )
        services.append(started)
        await started.start()
        if ready:
            await started.wait_ready(20)
        return started

    yield start
    for service in services:
        await service.stop(grace_seconds=0)
