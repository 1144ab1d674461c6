"""Webhooks and their deliveries as people read them: states in words, as lists and as CSV.

Lists load no event's data, and are paged by the last row's id.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, func
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.db.models import DeliveryState, Tenant, WebhookDelivery, WebhookEndpoint
from server.db.scope import of_tenant
from server.webhooks.service import DELIVERY_PREFIX

PAGE = 30
ENDPOINT_COLUMNS = (
    "url",
    "events",
    "state",
    "last_event",
    "last_state",
    "last_at",
    "created_at",
    "id",
)
DELIVERY_COLUMNS = (
    "created_at",
    "event",
    "state",
    "attempts",
    "next_attempt_at",
    "delivered_at",
    "response_status",
    "response_text",
    "error",
    "id",
)
_COLUMNS = (
    WebhookDelivery.id,
    WebhookDelivery.event["type"].label("event"),
    WebhookDelivery.state,
    WebhookDelivery.attempts,
    WebhookDelivery.due_at,
    WebhookDelivery.delivered_at,
    WebhookDelivery.error,
    WebhookDelivery.response_status,
    WebhookDelivery.response_text,
    WebhookDelivery.created_at,
)


class DeliveryWord(msgspec.Struct, frozen=True):
    """What a delivery's state is called, and how it is shown. ``going``: it is about to be sent."""

    word: str
    tone: Literal["", "going", "ok", "warn", "bad"]
    going: bool = False


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery in a list. ``due_at``: when the next attempt is made, None when there is none."""

    id: str
    row_id: str
    event: str
    state: DeliveryWord
    attempts: int
    due_at: datetime | None
    delivered_at: datetime | None
    error: str | None
    response_status: int | None
    response_text: str | None
    created_at: datetime


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint in a list, with its last delivery, None where it had none in 30 days."""

    id: str
    url: str
    events: Sequence[str]
    enabled: bool
    created_at: datetime
    last: Delivery | None


async def list_endpoints(session: AsyncSession, tenant: Tenant) -> list[Endpoint]:
    """A tenant's endpoints, oldest first; there are ``MAX_ENDPOINTS`` at most."""
    scope = of_tenant(tenant.id)
    rows = list(await session.scalars(scope.select(WebhookEndpoint).order_by(WebhookEndpoint.id)))
    last = {row.id: await list_deliveries(session, row, limit=1) for row in rows}
    return [
        Endpoint(
            id=row.id,
            url=row.url,
            events=row.events,
            enabled=row.enabled,
            created_at=row.created_at,
            last=next(iter(last[row.id]), None),
        )
        for row in rows
    ]


async def list_deliveries(
    session: AsyncSession,
    endpoint: WebhookEndpoint,
    *,
    limit: int = PAGE,
    after: str | None = None,
) -> list[Delivery]:
    """The events for an endpoint, newest first, from behind the row ``after`` on."""
    query = (
        of_tenant(endpoint.tenant_id)
        .select(*_COLUMNS)
        .where(WebhookDelivery.endpoint_id == endpoint.id)
        .order_by(WebhookDelivery.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(WebhookDelivery.id < after)
    return [_delivery(row) for row in await session.execute(query)]


async def count_waiting(session: AsyncSession, endpoint: WebhookEndpoint) -> int:
    """How many events wait to be sent to an endpoint."""
    query = (
        of_tenant(endpoint.tenant_id)
        .select(func.count(WebhookDelivery.id))
        .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.state == "pending")
    )
    return await session.scalar(query) or 0


def endpoints_to_csv(endpoints: Sequence[Endpoint]) -> bytes:
    """Endpoints, a line each."""
    return spreadsheets.to_csv(
        ENDPOINT_COLUMNS,
        (
            (
                each.url,
                " ".join(each.events),
                "on" if each.enabled else "off",
                each.last.event if each.last else None,
                each.last.state.word if each.last else None,
                _iso(each.last.created_at) if each.last else None,
                _iso(each.created_at),
                each.id,
            )
            for each in endpoints
        ),
    )


def deliveries_to_csv(deliveries: Sequence[Delivery]) -> bytes:
    """Deliveries, a line each."""
    return spreadsheets.to_csv(
        DELIVERY_COLUMNS,
        (
            (
                _iso(each.created_at),
                each.event,
                each.state.word,
                each.attempts,
                _iso(each.due_at),
                _iso(each.delivered_at),
                each.response_status,
                each.response_text,
                each.error,
                each.id,
            )
            for each in deliveries
        ),
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=DELIVERY_PREFIX + row.id,
        row_id=row.id,
        event=row.event,
        state=_word(row.state, attempts=row.attempts, error=row.error),
        attempts=row.attempts,
        due_at=row.due_at if row.state == "pending" else None,
        delivered_at=row.delivered_at,
        error=row.error,
        response_status=row.response_status,
        response_text=row.response_text,
        created_at=row.created_at,
    )


def _word(state: DeliveryState, *, attempts: int, error: str | None) -> DeliveryWord:
    match state:
        case "delivered":
            return DeliveryWord("Delivered", "ok")
        case "failed":
            return DeliveryWord("Given up", "bad")
        case "pending" if error:
            return DeliveryWord("Retrying", "warn")
        case "pending":
            return DeliveryWord("Being sent" if attempts else "Waits", "going", going=True)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
