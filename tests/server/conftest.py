"""The server's fixtures: an application with its own database, over ASGI."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from litestar import Litestar
from litestar.testing import AsyncTestClient

from server.app import create_app
from server.blobs import BlobStore
from server.db.models import Tenant
from server.db.session import Database
from server.settings import Settings
from server.tenants import keys
from server.tenants import service as tenants
from server.tenants.schemas import KeyRequest, Scope, TenantRequest
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


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return BlobStore.open(settings.blobs)


@pytest.fixture
def app(settings: Settings, database: Database, blobs: BlobStore) -> Litestar:
    return create_app(settings, database=database, blobs=blobs)


@pytest_asyncio.fixture
async def client(app: Litestar) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async with AsyncTestClient(app) as made:
        yield made


@pytest.fixture
def make_tenant(database: Database) -> Callable[..., object]:
    """Make a tenant; returns its row."""

    async def make(slug: str = "acme", **fields: object) -> Tenant:
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


@pytest_asyncio.fixture
async def operator(make_key) -> dict[str, str]:
    return await make_key()
