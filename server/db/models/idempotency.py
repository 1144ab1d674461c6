"""Requests whose effect must happen once."""

import datetime

from sqlalchemy import (
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    DateTimeUTC,
    JsonObject,
    Record,
    SafeString,
    tenant_column,
)


class IdempotentRequest(Record):
    """A request whose effect must happen once, and its answer as soon as that is known.

    ``name``: the client's idempotency key, or the server's for a client that sends none.
    """

    __tablename__ = "idempotent_request"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    tenant_id: Mapped[str] = tenant_column()
    name: Mapped[str] = mapped_column(SafeString(300))
    request_sha256: Mapped[str] = mapped_column(SafeString(64))
    status: Mapped[int | None]
    answer: Mapped[JsonObject | None]
    expires_at: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)
