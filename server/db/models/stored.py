"""Answers that clients asked to keep."""

import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    DateTimeUTC,
    Json,
    JsonObject,
    Record,
    SafeString,
    SafeText,
    tenant_column,
)


class StoredCompletion(Record):
    """A chat completion that its client asked to keep: what was said, and the answer."""

    __tablename__ = "stored_completion"

    tenant_id: Mapped[str] = tenant_column()
    model: Mapped[str] = mapped_column(SafeText)
    messages: Mapped[list[Any]] = mapped_column(Json)
    answer: Mapped[JsonObject]
    client_metadata: Mapped[JsonObject | None]


class StoredResponse(Record):
    """A response (``/v1/responses``) that a later one can continue."""

    __tablename__ = "stored_response"

    tenant_id: Mapped[str] = tenant_column()
    previous_id: Mapped[str | None] = mapped_column(SafeString(32))
    items: Mapped[list[Any]] = mapped_column(Json)
    answer: Mapped[JsonObject]
    expires_at: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)
