"""Files of the API, and uploads in parts."""

import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    ForeignKey,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    Record,
    SafeString,
    SafeText,
    tenant_column,
)

UploadState = Literal["pending", "completed", "cancelled", "expired"]


class File(Record):
    """A file of ``/v1/files``; its bytes are in the blob store under ``sha256``."""

    __tablename__ = "file"

    tenant_id: Mapped[str] = tenant_column()
    sha256: Mapped[str] = mapped_column(SafeString(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    filename: Mapped[str] = mapped_column(SafeText)
    purpose: Mapped[str] = mapped_column(SafeString(40))
    expires_at: Mapped[datetime.datetime | None]


class Upload(Record):
    """A file that arrives in parts (``/v1/uploads``). ``size_bytes`` is the announced size.

    ``parts_sha256``: a hash of the parts' ids in their order, once it is completed.
    """

    __tablename__ = "upload"

    tenant_id: Mapped[str] = tenant_column()
    filename: Mapped[str] = mapped_column(SafeText)
    purpose: Mapped[str] = mapped_column(SafeString(40))
    mime_type: Mapped[str] = mapped_column(SafeText)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[UploadState] = mapped_column(SafeString(12), default="pending")
    file_seconds: Mapped[int | None]  # that the finished file is kept; None: without end
    file_id: Mapped[str | None] = mapped_column(SafeString(32))
    parts_sha256: Mapped[str | None] = mapped_column(SafeString(64))
    expires_at: Mapped[datetime.datetime]


class UploadPart(Record):
    """One part of an upload; its bytes are in the blob store."""

    __tablename__ = "upload_part"

    tenant_id: Mapped[str] = tenant_column()
    upload_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("upload.id", ondelete="CASCADE"), index=True
    )
    sha256: Mapped[str] = mapped_column(SafeString(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
