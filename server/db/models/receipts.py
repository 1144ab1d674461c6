"""What answers rest on."""

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText, tenant_column


class Receipt(Record):
    """The receipt of one answer.

    ``dataset``: the hash of the dataset version that the adapter was trained on, where there was one.
    ``grounding``: what was found (`server.retrieval.schemas.Grounding`).
    """

    __tablename__ = "receipt"
    __table_args__ = (
        UniqueConstraint("tenant_id", "answer_id"),
        Index(
            None, "created_at"
        ),  # every answer has one: finding the expired must not read them all
    )

    tenant_id: Mapped[str] = tenant_column()
    answer_id: Mapped[str] = mapped_column(SafeString(64))
    model: Mapped[str] = mapped_column(SafeText)
    version: Mapped[int | None]
    dataset: Mapped[str | None] = mapped_column(SafeString(64))
    grounding: Mapped[JsonObject]
