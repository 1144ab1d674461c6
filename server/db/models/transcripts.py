"""Uploads of transcripts, their imports, and the conversations that came of them."""

import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    JsonObject,
    Record,
    SafeString,
    SafeText,
    tenant_column,
)

ImportState = Literal["draft", "queued", "running", "done", "failed"]


class SourceFile(Record):
    """An upload of transcripts, exactly as it arrived.

    Its bytes are in the blob store under ``sha256`` until ``removed_at``. They hold personal data and
    are removed when they have been read, or ``Tenant.keep_upload_days`` later.
    """

    __tablename__ = "source_file"
    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)

    tenant_id: Mapped[str] = tenant_column()
    filename: Mapped[str] = mapped_column(SafeText)
    sha256: Mapped[str] = mapped_column(SafeString(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    removed_at: Mapped[datetime.datetime | None]


class Import(Record):
    """One reading of a source file into conversations, and its result.

    A ``draft`` is a table whose columns somebody is about to check in the console: it is not read yet.
    ``started_at``: when a worker last began it; tenants take turns by it.
    """

    __tablename__ = "import"

    tenant_id: Mapped[str] = tenant_column()
    source_file_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("source_file.id", ondelete="CASCADE"), index=True
    )
    importer: Mapped[str | None] = mapped_column(SafeString(40))
    options: Mapped[JsonObject] = mapped_column(default=dict)
    state: Mapped[ImportState] = mapped_column(SafeString(20), default="queued", index=True)
    report: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class ConversationRow(Record):
    """A redacted conversation. ``digest`` is a hash of its text: equal ones are kept once.

    ``import_id`` is the import that brought it first; it belongs to that and to each import that has
    an ``ImportedAgain`` of it.
    """

    __tablename__ = "conversation"
    __table_args__ = (UniqueConstraint("tenant_id", "digest"),)

    tenant_id: Mapped[str] = tenant_column()
    import_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("import.id", ondelete="CASCADE"), index=True
    )
    external_id: Mapped[str] = mapped_column(SafeText)
    digest: Mapped[str] = mapped_column(SafeString(64))
    split: Mapped[str | None] = mapped_column(SafeString(12))
    body: Mapped[JsonObject]


class ImportedAgain(Record):
    """Says that an import holds a conversation that its tenant already had."""

    __tablename__ = "imported_again"
    __table_args__ = (UniqueConstraint("import_id", "conversation_id"),)

    tenant_id: Mapped[str] = tenant_column()
    import_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("import.id", ondelete="CASCADE")
    )
    conversation_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("conversation.id", ondelete="CASCADE"), index=True
    )
