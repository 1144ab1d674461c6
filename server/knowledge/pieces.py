"""Pieces of articles as prompts show them, and all of a tenant's as they are frozen for a training job."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from server.db.models import Article, ArticleChunk, ArticleVersion, Tenant
from server.db.scope import of_tenant
from server.db.session import Database
from server.knowledge.vectors import VECTOR_BYTES
from training.config import KNOWLEDGE_NAME
from training.references import Piece

if TYPE_CHECKING:  # loads numpy
    from training.adapters.package import KnowledgeRef

ROWS_AT_ONCE = 10_000  # read from the database


def piece_of(
    article_id: str,
    version: int,
    ordinal: int,
    *,
    name: str,
    title: str,
    headings: Sequence[str],
    text: str,
) -> Piece:
    """A piece as prompts show it.

    Args:
        article_id: of its article.
        version: the article's.
        ordinal: its place in the article, from 0.
        name: the article's; an address where it came with a sitemap.
        title: the article's.
        headings: those above it, outermost first.
        text: what it says.
    """
    return Piece(
        id=f"{article_id}@{version}#{ordinal}",
        title=title,
        headings=tuple(headings),
        text=text,
        url=name if _is_address(name) else None,
    )


async def freeze(database: Database, tenant: Tenant, folder: Path) -> Path | None:
    """Write what answers are shown of a tenant's articles, as they are now, to a file in a folder.

    The file is one of `training.retrieval.articles`: named by its hash, whole or not there, and never
    changed. Others of its kind are removed from the folder: an earlier call, which was killed, may have left one.
    None where the tenant has nothing that is searched, or has switched retrieval off.
    """
    pieces, vectors = await _read(database, tenant.id) if tenant.retrieval else ([], b"")
    return await asyncio.to_thread(_replace, pieces, vectors, folder)


async def _read(database: Database, tenant_id: str) -> tuple[list[Piece], bytes]:
    """The pieces that are searched, in the order in which `KnowledgeSearch` has them, and their vectors."""
    # one statement: what is replaced or deleted meanwhile is in it whole, or not at all
    query = (
        of_tenant(tenant_id)
        .select(
            ArticleChunk.ordinal,
            ArticleChunk.headings,
            ArticleChunk.text,
            ArticleChunk.vector,
            ArticleVersion.number,
            ArticleVersion.title,
            Article.id,
            Article.name,
        )
        .select_from(ArticleChunk)
        .join(ArticleVersion, ArticleChunk.version_id == ArticleVersion.id)
        .join(Article, ArticleVersion.article_id == Article.id)
        .where(ArticleVersion.state == "current", ArticleChunk.vector.is_not(None))
        .order_by(ArticleChunk.version_id, ArticleChunk.ordinal)
    )
    pieces: list[Piece] = []
    vectors: list[bytes] = []
    async with database.reading() as session:
        result = await session.stream(query)
        async for batch in result.partitions(ROWS_AT_ONCE):
            for ordinal, headings, text, vector, number, title, article_id, name in batch:
                if len(vector) == VECTOR_BYTES:
                    piece = piece_of(
                        article_id,
                        number,
                        ordinal,
                        name=name,
                        title=title,
                        headings=headings,
                        text=text,
                    )
                    pieces.append(piece)
                    vectors.append(vector)
    return pieces, b"".join(vectors)


def kept(folder: Path, knowledge: "KnowledgeRef | None") -> Path | None:
    """The file that was frozen in a job's folder for a version, where it is still there."""
    if knowledge is None:
        return None
    path = folder / KNOWLEDGE_NAME.format(sha256=knowledge.sha256)
    return path if path.is_file() else None


def _replace(pieces: Sequence[Piece], vectors: bytes, folder: Path) -> Path | None:
    """Write the file, where there are pieces, and remove what else there is."""
    import numpy as np  # noqa: PLC0415 - not before something is written

    from training.retrieval.articles import ArticleIndex  # noqa: PLC0415 - loads numpy

    path = None
    if pieces:
        rows = np.frombuffer(vectors, dtype="<f2").reshape(len(pieces), -1)
        path = ArticleIndex(pieces, rows).save(folder)
    for other in folder.glob(KNOWLEDGE_NAME.format(sha256="*")):
        if other != path:
            other.unlink()
    return path


def _is_address(name: str) -> bool:
    """Whether an article's name is where it can be read: pages that came with a sitemap have such."""
    try:
        parts = urlsplit(name)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
