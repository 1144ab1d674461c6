"""What a tenant's answers are grounded in: articles, their versions, and the pieces that are searched."""

import datetime
from typing import Literal

from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    Json,
    JsonObject,
    Record,
    SafeString,
    SafeText,
    tenant_column,
)

KnowledgeUploadState = Literal["queued", "running", "done", "failed", "cancelled"]
ArticleState = Literal["embedding", "current", "replaced"]


class KnowledgeUpload(Record):
    """A file of articles, its reading, and its result.

    Its bytes are in the blob store under ``sha256`` until ``removed_at``: they hold personal data, and
    are removed as soon as the reading has ended. ``name`` is what its article is to be called; empty:
    as the file. ``chunks`` are the pieces to be embedded, ``embedded`` those that are; both are 0
    until the file was read. ``started_at``: when a worker last began; tenants take turns by it.
    """

    __tablename__ = "knowledge_upload"

    tenant_id: Mapped[str] = tenant_column()
    filename: Mapped[str] = mapped_column(SafeText)
    name: Mapped[str] = mapped_column(SafeText, default="")
    sha256: Mapped[str] = mapped_column(SafeString(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[KnowledgeUploadState] = mapped_column(
        SafeString(20), default="queued", index=True
    )
    chunks: Mapped[int] = mapped_column(Integer, default=0)
    embedded: Mapped[int] = mapped_column(Integer, default=0)
    report: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]
    removed_at: Mapped[datetime.datetime | None]


class Article(Record):
    """An article by its name; what it says is in its versions."""

    __tablename__ = "article"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    tenant_id: Mapped[str] = tenant_column()
    name: Mapped[str] = mapped_column(SafeText)


class ArticleVersion(Record):
    """What an article said from one upload to the next. Its text never changes.

    ``embedding``: not searched yet; the version before it is. ``current``: searched. ``replaced``: to
    be read in the history, and not searched; at ``replaced_at``. ``sha256`` is of the title and the
    pieces, ``source_sha256`` of the uploaded file.
    """

    __tablename__ = "article_version"
    __table_args__ = (UniqueConstraint("article_id", "number"),)

    tenant_id: Mapped[str] = tenant_column()
    article_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("article.id", ondelete="CASCADE")
    )
    upload_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("knowledge_upload.id", ondelete="SET NULL"), index=True
    )
    number: Mapped[int] = mapped_column(Integer)
    state: Mapped[ArticleState] = mapped_column(SafeString(12), default="embedding")
    title: Mapped[str] = mapped_column(SafeText)
    format: Mapped[str] = mapped_column(SafeString(20))
    sha256: Mapped[str] = mapped_column(SafeString(64))
    source_sha256: Mapped[str] = mapped_column(SafeString(64))
    sections: Mapped[int] = mapped_column(Integer)
    chunks: Mapped[int] = mapped_column(Integer)
    characters: Mapped[int] = mapped_column(Integer)
    text_bytes: Mapped[int] = mapped_column(BigInteger)
    replaced_at: Mapped[datetime.datetime | None]


class ArticleChunk(Record):
    """A piece of a version of an article.

    ``vector``: 384 numbers as little-endian float16, null until the encoder has read it, and again when
    the version was replaced.
    """

    __tablename__ = "article_chunk"
    __table_args__ = (UniqueConstraint("version_id", "ordinal"),)

    tenant_id: Mapped[str] = tenant_column()
    version_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("article_version.id", ondelete="CASCADE")
    )
    ordinal: Mapped[int] = mapped_column(Integer)
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)
    headings: Mapped[list[str]] = mapped_column(Json)
    text: Mapped[str] = mapped_column(SafeText)
