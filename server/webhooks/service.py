"""Webhooks: where tenants want to hear of events, and the events that wait to be sent."""

from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import WebhookDelivery, WebhookEndpoint, new_id, now
from server.webhooks.schemas import EventType

log = structlog.get_logger(__name__)


async def emit(
    session: AsyncSession,
    tenant_id: str,
    *,
    type: EventType,  # noqa: A002 - the event's own word
    data: dict[str, Any],
) -> None:
    """Write an event for every endpoint of the tenant that wants its type.

    The rows belong to the caller's transaction: what it undoes is never told to anybody, and what
    it commits is sent, by whichever copy of the server is faster, until somebody takes it.
    ``data`` is what OpenAI's event of this type has there: ``{"id": "ftjob-..."}``.
    """
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.tenant_id == tenant_id, WebhookEndpoint.enabled
    )
    event = {
        "id": f"evt_{new_id()}",
        "object": "event",
        "created_at": int(now().timestamp()),
        "type": type,
        "data": data,
    }
    for endpoint in await session.scalars(query):
        if type in endpoint.events:
            session.add(
                WebhookDelivery(
                    tenant_id=tenant_id, endpoint_id=endpoint.id, event=event, due_at=now()
                )
            )
    await session.flush()
