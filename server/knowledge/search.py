"""Finds the pieces of a tenant's articles that are nearest to a question, exactly.

A tenant's vectors are compared one by one: up to the quota of 100,000 that takes milliseconds (measured in
``tests/bench/knowledge.py``, and told in ``docs/how-to/give-it-knowledge.md``), and finds what is nearest, where an
index that approximates would sometimes not. They are kept in memory in float16, and made float32 in blocks
for the product.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Article, ArticleChunk, ArticleVersion, Tenant
from server.db.scope import of_tenant
from server.db.session import Database
from server.db.versioned_cache import VersionedCache
from server.embeddings.schemas import DIMENSIONS, FLOAT_BYTES
from server.knowledge.pieces import ROWS_AT_ONCE, piece_of
from server.knowledge.vectors import VECTOR_BYTES
from training.references import Piece

if TYPE_CHECKING:  # the server starts without it where nothing is searched
    import numpy as np

MAX_CACHED_BYTES = 512 << 20
"""Of all tenants' vectors in memory: of some 640,000 pieces."""
MAX_COUNT = 50
"""Of pieces that one search may ask for."""
_ID_BYTES = 32


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A piece that was found.

    ``headings``: those above it, outermost first, without the title. ``ordinal``: its place in the
    article, from 0. ``score``: the cosine of the two vectors, in float32.
    """

    article_id: str
    version: int
    name: str
    title: str
    headings: tuple[str, ...]
    text: str
    ordinal: int
    score: float

    @property
    def piece(self) -> Piece:
        """The piece as prompts show it."""
        return piece_of(
            self.article_id,
            self.version,
            self.ordinal,
            name=self.name,
            title=self.title,
            headings=self.headings,
            text=self.text,
        )


class _Matrix(msgspec.Struct, frozen=True):
    """A tenant's vectors at one revision: ``rows`` is (pieces, 384) in float16, ``norms`` their lengths."""

    revision: int
    ids: "np.ndarray"
    rows: "np.ndarray"
    norms: "np.ndarray"

    @property
    def size_bytes(self) -> int:
        return int(self.rows.nbytes + self.norms.nbytes + self.ids.nbytes)


class KnowledgeSearch:
    """The search over all tenants' articles. Use on one event loop; ``close`` when done.

    Each search asks for the tenant's revision first, which counts the changes of what is searched (on
    SQLite only after something was written): what was removed is not found by the next one.

    Args:
        database: where the articles are.
        max_cached_bytes: of vectors in memory; the tenant that was searched longest ago goes first.

    Example:
        answer = await embeddings.embed([question], tenant=tenant.id, dimensions=DIMENSIONS)
        for found in await search.search(tenant.id, answer.vectors[0], count=5):
            print(found.score, found.title, found.text)
    """

    def __init__(self, database: Database, *, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        self._database = database
        self._revisions: VersionedCache[str, int | None] = VersionedCache(database)
        self._max_bytes = max_cached_bytes
        self._matrices: OrderedDict[str, _Matrix] = OrderedDict()  # the latest last
        self._loading: dict[str, asyncio.Lock] = {}

    async def search(self, tenant_id: str, vector: bytes, count: int) -> list[Found]:
        """The pieces nearest to a vector, the nearest first; fewer where there are no more.

        Args:
            tenant_id: whose articles; no other's are looked at.
            vector: 384 numbers as little-endian float32, as the encoder gives them.
            count: how many, ``MAX_COUNT`` at most.

        Raises:
            ValueError: the vector has another length, or the count is out of bounds.
        """
        if len(vector) != DIMENSIONS * FLOAT_BYTES:
            raise ValueError(f"a vector has {DIMENSIONS} numbers in float32")
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"a search finds 1 to {MAX_COUNT} pieces, not {count}")
        matrix = await self._current(tenant_id)
        if matrix is None or not len(matrix.ids):
            return []
        nearest = await asyncio.to_thread(_nearest, matrix, vector, count)
        async with self._database.reading() as session:
            return await _found(session, tenant_id, nearest)

    async def has_articles(self, tenant_id: str) -> bool:
        """Whether a tenant has anything to search; as cheap as looking up its revision."""
        return bool(await self._revision(tenant_id))

    @property
    def cached_bytes(self) -> int:
        """How much memory the vectors take now."""
        return sum(each.size_bytes for each in self._matrices.values())

    def close(self) -> None:
        """Forget all, and close the connection that notices writes."""
        self._matrices.clear()
        self._revisions.close()

    async def _revision(self, tenant_id: str) -> int | None:
        async def ask() -> int | None:
            async with self._database.reading() as session:
                return await session.scalar(of_tenant(tenant_id).select(Tenant.knowledge_revision))

        return await self._revisions.get(tenant_id, ask)

    async def _current(self, tenant_id: str) -> _Matrix | None:
        """The tenant's vectors as they are now; None of one that has none, or is gone."""
        revision = await self._revision(tenant_id)
        if not revision:
            self._matrices.pop(tenant_id, None)
            return None
        lock = self._loading.setdefault(tenant_id, asyncio.Lock())
        try:
            async with lock:
                known = self._matrices.get(tenant_id)
                # a matrix that another search has just read may be newer than the revision asked for
                if known is None or known.revision < revision:
                    self._matrices.pop(tenant_id, None)
                    known = await _load(self._database, tenant_id, revision)
                    self._matrices[tenant_id] = known
                    self._make_room(tenant_id)
                else:
                    self._matrices.move_to_end(tenant_id)
                return known
        finally:
            if not lock.locked():
                self._loading.pop(tenant_id, None)

    def _make_room(self, kept: str) -> None:
        while self.cached_bytes > self._max_bytes and len(self._matrices) > 1:
            oldest = next(tenant for tenant in self._matrices if tenant != kept)
            del self._matrices[oldest]


async def _load(database: Database, tenant_id: str, revision: int) -> _Matrix:
    """Read a tenant's vectors; ``revision`` is from before, so that they are never older than it."""
    import numpy as np  # noqa: PLC0415

    from training.retrieval.nearest import lengths_of  # noqa: PLC0415 - loads numpy

    ids: list[bytes] = []
    parts: list[bytes] = []
    mine = of_tenant(tenant_id)
    async with database.reading() as session:
        current = list(
            await session.scalars(
                mine.select(ArticleVersion.id)
                .where(ArticleVersion.state == "current")
                .order_by(
                    ArticleVersion.id
                )  # all pieces are in the order of what is frozen for training
            )
        )
        for at in range(0, len(current), ROWS_AT_ONCE // 10):
            versions = current[at : at + ROWS_AT_ONCE // 10]
            query = mine.select(ArticleChunk.id, ArticleChunk.vector).where(
                ArticleChunk.version_id.in_(versions), ArticleChunk.vector.is_not(None)
            )
            result = await session.stream(
                query.order_by(ArticleChunk.version_id, ArticleChunk.ordinal)
            )
            async for batch in result.partitions(ROWS_AT_ONCE):
                for chunk_id, vector in batch:
                    if vector is not None and len(vector) == VECTOR_BYTES:
                        ids.append(chunk_id.encode())
                        parts.append(vector)

    def build() -> _Matrix:
        rows = np.frombuffer(b"".join(parts), dtype="<f2").reshape(-1, DIMENSIONS)
        return _Matrix(revision, np.array(ids, dtype=f"S{_ID_BYTES}"), rows, lengths_of(rows))

    return await asyncio.to_thread(build)


def _nearest(matrix: _Matrix, vector: bytes, count: int) -> list[tuple[str, float]]:
    """(id, cosine) of the nearest pieces, the nearest first; of equally near ones the earlier."""
    import numpy as np  # noqa: PLC0415

    from training.retrieval.nearest import nearest  # noqa: PLC0415 - loads numpy

    query = np.frombuffer(vector, dtype="<f4").astype(np.float32)
    found = nearest(matrix.rows, matrix.norms, query, count)
    return [(matrix.ids[at].decode(), score) for at, score in found]


async def _found(
    session: AsyncSession, tenant_id: str, nearest: Sequence[tuple[str, float]]
) -> list[Found]:
    """The pieces with their texts, of those that are still searched."""
    query = (
        of_tenant(tenant_id)
        .select(ArticleChunk, ArticleVersion, Article.id, Article.name)
        .join(ArticleVersion, ArticleChunk.version_id == ArticleVersion.id)
        .join(Article, ArticleVersion.article_id == Article.id)
        .where(
            ArticleChunk.id.in_([chunk_id for chunk_id, _ in nearest]),
            ArticleVersion.state == "current",
        )
    )
    rows = {row[0].id: row for row in await session.execute(query)}
    return [
        Found(
            article_id=article_id,
            version=version.number,
            name=name,
            title=version.title,
            headings=tuple(chunk.headings),
            text=chunk.text,
            ordinal=chunk.ordinal,
            score=score,
        )
        for chunk_id, score in nearest
        if chunk_id in rows
        for chunk, version, article_id, name in (rows[chunk_id],)
    ]
