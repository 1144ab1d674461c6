"""The server's fixtures: an application with its own database, over ASGI."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from litestar import Litestar

import server.app as server_app
from server.app import create_app
from server.auth import keys
from server.auth.schemas import KeyRequest, Scope
from server.db.models import Import, SourceFile, Tenant
from server.db.session import Database
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from tests.databases import (
    database,
    database_url,
    migrated_postgres,
    migrated_sqlite,
    postgres,
    postgres_url,
    settings,
    sqlite_url,
)
from tests.server.applications import Applications

__all__ = [
    "database",
    "database_url",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres",
    "postgres_url",
    "settings",
    "sqlite_url",
]


@pytest.fixture(scope="session")
def applications() -> Applications:
    return Applications()


@pytest.fixture(autouse=True)
def lent(applications: Applications, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What ``create_app`` makes in a test is used again in the next."""
    monkeypatch.setattr(server_app, "Application", applications)
    yield
    applications.take_back()


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return BlobStore.open(settings.blobs)


@pytest.fixture
def app(settings: Settings, database: Database, blobs: BlobStore) -> Litestar:
    return create_app(settings, database=database, blobs=blobs)


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """Start and stop the application, both in one task, which a fixture's two halves are not."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            started.set()
            await stop.wait()

    task = asyncio.create_task(live())
    task.add_done_callback(lambda _: started.set())
    await started.wait()
    try:
        yield
    finally:
        stop.set()
        await task


@pytest_asyncio.fixture
async def client(app: Litestar) -> AsyncIterator[AsyncClient]:
    """Talks to the application on the test's own event loop; answers are read whole."""
    transport = ASGITransport(app=cast("Any", app), raise_app_exceptions=False)
    async with running(app), AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


@pytest.fixture
def make_tenant(database: Database) -> Callable[..., object]:
    """Make a tenant; returns its row."""

    async def make(slug: str = "acme", **fields: Any) -> Tenant:
        async with database.transaction() as session:
            return await tenants.create(session, TenantRequest(slug=slug, **fields))

    return make


@pytest.fixture
def make_key(database: Database) -> Callable[..., object]:
    """Make a key, the operator's without a slug; returns the header that carries it."""

    async def make(slug: str | None = None, *scopes: Scope) -> dict[str, str]:
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug) if slug else None
            request = KeyRequest(scopes=scopes or ("chat",))
            raw, _ = await keys.create(session, request, tenant=tenant)
        return {"authorization": f"Bearer {raw}"}

    return make


@pytest.fixture
def make_upload(database: Database) -> Callable[..., object]:
    """Queue an upload of a tenant, by slug, so that a job has something to wait for."""

    async def make(slug: str = "acme", **fields: Any) -> Import:
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            source = SourceFile(tenant_id=tenant.id, filename="a", sha256="0" * 64, size_bytes=1)
            session.add(source)
            await session.flush()
            made = Import(tenant_id=tenant.id, source_file_id=source.id, **fields)
            session.add(made)
            return made

    return make


@pytest_asyncio.fixture
async def operator(make_key) -> dict[str, str]:
    header: dict[str, str] = await make_key()
    return header
