"""What answers rest on."""

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText, tenant_column


class Receipt(Record):
    """The receipt of one answer.

    ``dataset``: the hash of the dataset version of the index, where there was one. ``grounding``: what was found in it
    (`server.retrieval.schemas.Grounding`).
    """

    __tablename__ = "receipt"
    __table_args__ = (UniqueConstraint("tenant_id", "answer_id"),)

    tenant_id: Mapped[str] = tenant_column()
    answer_id: Mapped[str] = mapped_column(SafeString(64))
    model: Mapped[str] = mapped_column(SafeText)
    version: Mapped[int | None]
    dataset: Mapped[str | None] = mapped_column(SafeString(64))
    grounding: Mapped[JsonObject]
