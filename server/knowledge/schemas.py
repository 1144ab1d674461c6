"""What the knowledge endpoints take and give."""

from typing import Any

import msgspec

from server.db.models import (
    Article,
    ArticleChunk,
    ArticleState,
    ArticleVersion,
    KnowledgeUpload,
    KnowledgeUploadState,
)
from server.files.names import clean_name
from server.schemas import Moment


class KnowledgeForm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an upload's form, beside its part ``file``. ``name``: what the article is called."""

    name: str | msgspec.UnsetType = msgspec.UNSET


class KnowledgeUploadView(msgspec.Struct, frozen=True, kw_only=True):
    """A file of articles and what came of it. ``report`` is there once it was read.

    ``chunks`` are the pieces that its new articles were cut into, ``embedded`` those of them that have
    a vector. An article is searched when all of its pieces have one.
    """

    id: str
    state: KnowledgeUploadState
    filename: str
    sha256: str
    size_bytes: int
    chunks: int
    embedded: int
    report: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: Moment
    finished_at: Moment | None


class ArticleVersionView(msgspec.Struct, frozen=True, kw_only=True):
    """What an article said from one upload to the next.

    ``sha256`` is of its title and pieces, ``source_sha256`` of the uploaded file. ``upload``: which
    upload brought it.
    """

    version: int
    state: ArticleState
    title: str
    format: str
    sha256: str
    source_sha256: str
    sections: int
    chunks: int
    characters: int
    upload: str | None
    created_at: Moment
    replaced_at: Moment | None


class ArticleView(msgspec.Struct, frozen=True, kw_only=True):
    """An article. ``current`` is what is searched; ``coming`` takes its place when it is embedded."""

    id: str
    name: str
    created_at: Moment
    current: ArticleVersionView | None
    coming: ArticleVersionView | None


class ArticleHistory(msgspec.Struct, frozen=True, kw_only=True):
    """An article with all of its versions that are kept, newest first."""

    id: str
    name: str
    created_at: Moment
    versions: list[ArticleVersionView]


class ChunkView(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an article: ``headings`` are those above it, outermost first."""

    ordinal: int
    headings: list[str]
    text: str
    embedded: bool


class FoundView(msgspec.Struct, frozen=True, kw_only=True):
    """A piece that was found. ``score``: the cosine of its vector and the question's, 1 at most."""

    article: str
    version: int
    name: str
    title: str
    headings: list[str]
    text: str
    ordinal: int
    score: float


class KnowledgeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """How much a tenant has of what it may have.

    ``chunks`` are searched, or will be; ``text_bytes`` count old versions as well.
    """

    articles: int
    chunks: int
    max_chunks: int
    text_bytes: int
    max_text_bytes: int


def upload_view(row: KnowledgeUpload) -> KnowledgeUploadView:
    """An upload as its tenant sees it."""
    return KnowledgeUploadView(
        id=row.id,
        state=row.state,
        filename=clean_name(row.filename),
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        chunks=row.chunks,
        embedded=row.embedded,
        report=row.report,
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def version_view(row: ArticleVersion) -> ArticleVersionView:
    """A version as its tenant sees it."""
    return ArticleVersionView(
        version=row.number,
        state=row.state,
        title=row.title,
        format=row.format,
        sha256=row.sha256,
        source_sha256=row.source_sha256,
        sections=row.sections,
        chunks=row.chunks,
        characters=row.characters,
        upload=row.upload_id,
        created_at=row.created_at,
        replaced_at=row.replaced_at,
    )


def article_view(
    row: Article, current: ArticleVersion | None, coming: ArticleVersion | None
) -> ArticleView:
    """An article as lists show it."""
    return ArticleView(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        current=version_view(current) if current else None,
        coming=version_view(coming) if coming else None,
    )


def chunk_view(row: ArticleChunk) -> ChunkView:
    """A piece as its tenant sees it."""
    return ChunkView(
        ordinal=row.ordinal,
        headings=row.headings,
        text=row.text,
        embedded=row.vector is not None,
    )
