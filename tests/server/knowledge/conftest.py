"""Uploads of articles, read and embedded in the test's own process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.db.models import KnowledgeUpload, Tenant
from server.db.session import Database
from server.embeddings.client import _too_long
from server.embeddings.encoders import FakeEncoder
from server.embeddings.encoding_service import EncodingService, TextTooLong
from server.embeddings.schemas import DIMENSIONS, Embedded, EmbedRequest
from server.errors import Unavailable
from server.knowledge import importing, service
from server.knowledge.search import Found, KnowledgeSearch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference, stored


class Encoder:
    """The fake encoder without its process. ``down``: how many calls find it missing first."""

    def __init__(self) -> None:
        self._service = EncodingService(FakeEncoder())
        self.down = 0
        self.calls = 0
        self.texts: list[str] = []

    async def embed(self, texts: list[str], *, tenant: str, dimensions: int) -> Embedded:
        self.calls += 1
        if self.down:
            self.down -= 1
            raise Unavailable("starting")
        self.texts += texts
        try:
            return await self._service.embed(
                EmbedRequest(tenant=tenant, texts=texts, dimensions=dimensions)
            )
        except TextTooLong as exc:
            raise _too_long(exc.where, len(texts)) from exc


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


class Knowledge:
    """Uploads, reads and searches."""

    def __init__(
        self, database: Database, settings: Settings, blobs: BlobStore, encoder: Encoder
    ) -> None:
        self.database = database
        self.settings = settings
        self.blobs = blobs
        self.encoder = encoder
        self.search = KnowledgeSearch(database)

    async def queue(
        self, tenant: Tenant, data: bytes, filename: str = "a.md", name: str = ""
    ) -> KnowledgeUpload:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        async with (
            stored(self.database, self.blobs, chunks(), max_bytes=1 << 30) as (sha256, size),
            self.database.transaction() as session,
        ):
            await acquire_reference(session, self.blobs, sha256)
            return await service.queue_upload(
                session,
                tenant,
                sha256=sha256,
                size_bytes=size,
                filename=filename,
                name=name,
                settings=self.settings,
            )

    async def run(self, upload: KnowledgeUpload, **options: Any) -> KnowledgeUpload:
        await importing.run_upload(
            self.database,
            upload.id,
            settings=self.settings,
            embeddings=self.encoder,  # type: ignore[arg-type]
            blobs=self.blobs,
            pause_seconds=0,
            **options,
        )
        async with self.database.reading() as session:
            return await service.get_upload(session, upload.tenant_id, upload.id)

    async def add(
        self, tenant: Tenant, data: bytes | str, filename: str = "a.md", name: str = ""
    ) -> KnowledgeUpload:
        data = data.encode() if isinstance(data, str) else data
        return await self.run(await self.queue(tenant, data, filename, name))

    async def ask(self, tenant: Tenant, question: str, count: int = 5) -> list[Found]:
        answer = await self.encoder.embed([question], tenant=tenant.id, dimensions=DIMENSIONS)
        return await self.search.search(tenant.id, answer.vectors[0], count)

    async def articles(self, tenant: Tenant) -> list[service.Listed]:
        async with self.database.reading() as session:
            return await service.list_articles(session, tenant.id, limit=100)


@pytest.fixture
async def knowledge(
    database: Database, settings: Settings, blobs: BlobStore, encoder: Encoder
) -> AsyncIterator[Knowledge]:
    made = Knowledge(database, settings, blobs, encoder)
    yield made
    made.search.close()
