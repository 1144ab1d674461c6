"""A whole server on a port of this machine, over a fake engine; test files import from here."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import uvicorn
from litestar import Litestar
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from server.api.protocol import BoundedProtocol
from server.app import create_app
from server.auth import keys
from server.auth.schemas import KeyRequest, Scope
from server.db.models import Adapter, Tenant
from server.db.session import Database
from server.engine.backends.fake import fake_command
from server.engine.service import EngineService
from server.settings import Settings
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from tests.conftest import FAST
from tests.engines import engine_metrics

QUESTION: ChatCompletionUserMessageParam = {"role": "user", "content": "Where is my parcel?"}


@dataclass
class Serving:
    """A server that runs, and what tests do to it."""

    url: str
    app: Litestar
    engine: EngineService
    database: Database
    settings: Settings
    session: aiohttp.ClientSession
    _clients: list[AsyncOpenAI] = field(default_factory=list)

    async def tenant(self, slug: str = "acme", **fields: Any) -> Tenant:
        async with self.database.transaction() as session:
            return await tenants.create(session, TenantRequest(slug=slug, **fields))

    async def key(self, slug: str | None = "acme", *scopes: Scope) -> str:
        async with self.database.transaction() as session:
            tenant = await tenants.get(session, slug) if slug else None
            raw, _ = await keys.create(
                session, KeyRequest(scopes=scopes or ("chat",)), tenant=tenant
            )
        return raw

    async def adapter(
        self, slug: str = "acme", *, version: int = 1, live: bool = True, system_prompt: str = ""
    ) -> Adapter:
        """A version that the fake engine takes; its replies begin with its engine name."""
        async with self.database.transaction() as session:
            tenant = await tenants.get(session, slug)
            engine_name = f"{slug}.{version:012x}"
            adapter = Adapter(
                tenant_id=tenant.id,
                version=version,
                engine_name=engine_name,
                base_name=self.settings.base,
                base_sha256="0" * 64,
                system_prompt=system_prompt,
                state="ready",
            )
            session.add(adapter)
            await session.flush()
            if live:
                tenant.live_adapter_id = adapter.id
        folder = self.settings.adapters / engine_name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        return adapter

    def openai(self, key: str) -> AsyncOpenAI:
        """The official client, without its repetitions."""
        client = AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    def post(self, key: str, body: Any, path: str = "/v1/chat/completions") -> Any:
        """Send something that no well-behaved client would; use as a context manager."""
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        return self.session.post(
            self.url + path, data=data, headers={"authorization": f"Bearer {key}"}
        )

    async def refusal(self, key: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        """(status, error) of a completion that is refused."""
        body = {"model": "acme", "messages": [QUESTION], **fields}
        async with self.post(key, body) as response:
            answer = await response.json()
            assert set(answer) == {"error"}, answer
            return response.status, answer["error"]

    async def running(self) -> int:
        """Generations that the engine is working on."""
        for line in (await engine_metrics(self.engine.client)).splitlines():
            if line.startswith("vllm:num_requests_running"):
                return int(float(line.rpartition(" ")[2]))
        raise AssertionError("the engine does not say how many requests run")

    async def is_idle(self) -> bool:
        return await self.running() == 0

    async def is_busy(self) -> bool:
        return await self.running() > 0

    def kill_engine(self) -> None:
        """As the kernel does when memory runs out."""
        pid = self.engine.status.pid
        assert pid
        os.killpg(pid, signal.SIGKILL)


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until a condition, which may be asynchronous, is true."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.02)


class _Server(uvicorn.Server):
    """Leaves the test runner's signal handlers alone."""

    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def serving(
    settings: Settings, database: Database, *, wait: bool = True, **engine: Any
) -> AsyncIterator[Serving]:
    """Run a server; ``engine`` are options of the fake one."""
    settings.adapters.mkdir(parents=True, exist_ok=True)
    command = fake_command(
        base=settings.base, adapters=settings.adapters, run=settings.run, **engine
    )
    service = EngineService(
        base=settings.base, run=settings.run, command=command, timing=FAST, probe_seconds=60.0
    )
    app = create_app(settings, engine=service, database=database)
    server = _Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            access_log=False,
            http=BoundedProtocol,
        )
    )
    async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
        task = group.create_task(server.serve())
        try:
            await until(lambda: server.started or task.done(), 20)
            port = server.servers[0].sockets[0].getsockname()[1]
            made = Serving(
                url=f"http://127.0.0.1:{port}",
                app=app,
                engine=service,
                database=database,
                settings=settings,
                session=session,
            )
            if wait:
                await service.wait_ready(20)
            yield made
            await made.close()
        finally:
            await session.close()
            await service.stop(grace_seconds=0)
            server.should_exit = True


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough here: the engine is what these tests are about."""
    return sqlite_url


@pytest_asyncio.fixture
async def server(settings: Settings, database: Database) -> AsyncIterator[Serving]:
    """A server whose engine says 2,000 words a second to each."""
    async with serving(settings, database, tokens_per_second=2000) as made:
        yield made


@pytest_asyncio.fixture
async def slow_server(settings: Settings, database: Database) -> AsyncIterator[Serving]:
    """A server whose engine says ten words a second."""
    async with serving(settings, database, tokens_per_second=10) as made:
        yield made
