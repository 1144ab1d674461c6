"""A real worker reads articles, is killed, and goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func

from server.db.models import ArticleChunk, KnowledgeUpload
from server.db.scope import of_tenant
from server.knowledge import service
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from tests import knowledge_files as files
from tests.server.jobs.worker_process import wait_until, worker

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_a_killed_worker_goes_on_where_it_was(tmp_path: Path, make_tenant, database):
    settings = Settings(home=tmp_path, database_url=str(database.url.database))
    await make_tenant("acme")
    pages = {f"{n}.md": f"# P{n}\n\n" + f"Sentence of {n}. " * 900 for n in range(40)}

    async def chunks() -> AsyncIterator[bytes]:
        yield files.zipped(pages)

    blobs = BlobStore.open(settings.blobs)
    sha256, size = await blobs.put_stream(chunks(), max_bytes=1 << 30)
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        row = await service.queue_upload(
            session,
            tenant,
            sha256=sha256,
            size_bytes=size,
            filename="pages.zip",
            settings=settings,
        )

    async def embedded() -> int:
        async with database.reading() as session:
            query = of_tenant(tenant.id).select(func.count(ArticleChunk.id))
            return await session.scalar(query.where(ArticleChunk.vector.is_not(None))) or 0

    with worker(tmp_path) as process:
        while not await embedded():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
        process.kill()
    before = await embedded()
    with worker(tmp_path):
        done = await wait_until(database, KnowledgeUpload, row.id, {"done", "failed"})
    assert done.state == "done", done.error
    assert done.chunks == done.embedded == await embedded() > before > 0
    async with database.reading() as session:
        listed = await service.list_articles(session, tenant.id, limit=100)
    assert len(listed) == 40
    assert all(each.current and not each.coming for each in listed)
