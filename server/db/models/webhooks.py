"""Webhooks and their deliveries."""

import datetime
from typing import Literal

from sqlalchemy import (
    Boolean,
    ForeignKey,
    Index,
    Integer,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    Json,
    JsonObject,
    Record,
    SafeString,
    SafeText,
    tenant_column,
)

DeliveryState = Literal["pending", "delivered", "failed"]


class WebhookEndpoint(Record):
    """A URL that a tenant's events are sent to. Its secret signs, so a hash of it is not enough.

    Secrets are encrypted (``server/webhooks/vault.py``); ``secret_hint`` is the end of the
    current one. ``previous_secret`` signs too until ``previous_secret_until``, so that a receiver has
    time to change.
    """

    __tablename__ = "webhook_endpoint"

    tenant_id: Mapped[str] = tenant_column()
    url: Mapped[str] = mapped_column(SafeText)
    secret: Mapped[str] = mapped_column(SafeText)
    secret_hint: Mapped[str | None] = mapped_column(SafeString(4))
    previous_secret: Mapped[str | None] = mapped_column(SafeText)
    previous_secret_until: Mapped[datetime.datetime | None]
    events: Mapped[list[str]] = mapped_column(Json, default=list)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)


class WebhookDelivery(Record):
    """One event for one endpoint, written in the transaction of what it reports.

    ``response_status`` and ``response_text`` are of the last attempt: the HTTP status, and the first
    characters of what stood in the answer; null where there was no answer.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (Index(None, "state", "due_at"), Index(None, "endpoint_id", "id"))

    tenant_id: Mapped[str] = tenant_column()
    endpoint_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("webhook_endpoint.id", ondelete="CASCADE")
    )
    event: Mapped[JsonObject]
    state: Mapped[DeliveryState] = mapped_column(SafeString(12), default="pending")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[datetime.datetime]
    delivered_at: Mapped[datetime.datetime | None]
    error: Mapped[str | None] = mapped_column(SafeText)
    response_status: Mapped[int | None] = mapped_column(Integer)
    response_text: Mapped[str | None] = mapped_column(SafeText)
