"""Webhooks: the URLs that tenants' events are sent to, and the events that wait to be sent."""

import base64
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import WebhookDelivery, WebhookEndpoint, new_id, now
from server.db.scope import of_tenant
from server.errors import Conflict, NotFound, TooMany
from server.tenants import service as tenants
from server.webhooks.addresses import check_url
from server.webhooks.schemas import (
    TEST_EVENT,
    DeliveryView,
    EventType,
    WebhookPatch,
    WebhookRequest,
    WebhookView,
)
from server.webhooks.vault import PLAIN, Vault

SECRET_BYTES = 24  # Standard Webhooks' minimum; 32 characters without padding
MAX_ENDPOINTS = 10  # of a tenant; bounds how many deliveries it has at the same time
MAX_WAITING_TESTS = 5
DELIVERY_PREFIX = "wh_"
_RECORDED = ("url", "events", "enabled")


async def emit(
    session: AsyncSession,
    tenant_id: str,
    *,
    type: EventType,  # noqa: A002 - the event's own word
    data: dict[str, Any],
) -> None:
    """Write an event for every endpoint of the tenant that wants its type.

    The rows belong to the caller's transaction: an event is sent only if that is committed, and then
    by any copy of the server, until a receiver accepts it. ``data`` is that of OpenAI's event where it
    has this type: ``{"id": "ftjob-..."}``.
    """
    query = of_tenant(tenant_id).select(WebhookEndpoint).where(WebhookEndpoint.enabled)
    event = _event(type, data)
    for endpoint in await session.scalars(query):
        if type in endpoint.events:
            _queue(session, endpoint, event)
    await session.flush()


async def create(
    session: AsyncSession, request: WebhookRequest, *, slug: str, private: bool, vault: Vault
) -> WebhookEndpoint:
    """Add an endpoint to a tenant. ``private`` allows plain http and private addresses.

    Its row holds a new secret, encrypted by ``vault``.

    Raises:
        NotFound: there is no such tenant.
        Invalid: the server does not send to this URL.
        Conflict: the tenant has ``MAX_ENDPOINTS`` already.
        SecretUnreadable: this machine's key is not the one of the other machines.
    """
    check_url(request.url, private=private)
    tenant = await tenants.get(session, slug, lock=True)
    count = of_tenant(tenant.id).select(func.count(WebhookEndpoint.id))
    if (await session.scalar(count) or 0) >= MAX_ENDPOINTS:
        raise Conflict(
            f"A tenant may have {MAX_ENDPOINTS} webhooks: delete one first.",
            code="too_many_webhooks",
        )
    endpoint = WebhookEndpoint(
        tenant_id=tenant.id,
        url=request.url,
        events=sorted(set(request.events)),
        enabled=request.enabled,
    )
    await _give_secret(session, endpoint, vault)
    session.add(endpoint)
    await session.flush()
    audit.record(
        session,
        "webhook.created",
        tenant_id=tenant.id,
        subject=subject(endpoint),
        details={"events": endpoint.events, "enabled": endpoint.enabled},
    )
    return endpoint


async def list_for(session: AsyncSession, slug: str) -> list[WebhookEndpoint]:
    """A tenant's endpoints, oldest first."""
    tenant = await tenants.get(session, slug)
    query = of_tenant(tenant.id).select(WebhookEndpoint)
    return list(await session.scalars(query.order_by(WebhookEndpoint.id)))


async def get(
    session: AsyncSession, endpoint_id: str, *, slug: str, lock: bool = False
) -> WebhookEndpoint:
    """An endpoint of a tenant.

    Raises:
        NotFound: there is no such tenant, or it has no such endpoint.
    """
    tenant = await tenants.get(session, slug)
    endpoint = await of_tenant(tenant.id).get(session, WebhookEndpoint, endpoint_id, lock=lock)
    if endpoint is None:
        raise NotFound(f"There is no webhook '{endpoint_id}'.", code="webhook_not_found")
    return endpoint


async def update(
    session: AsyncSession, endpoint_id: str, patch: WebhookPatch, *, slug: str, private: bool
) -> WebhookEndpoint:
    """Change what the patch holds. Events that wait go to the new URL, or fail when disabled.

    Raises:
        NotFound: there is no such endpoint.
        Invalid: the server does not send to this URL.
    """
    endpoint = await get(session, endpoint_id, slug=slug, lock=True)
    before = audit.fields_of(endpoint, _RECORDED)
    if patch.url is not msgspec.UNSET:
        check_url(patch.url, private=private)
        endpoint.url = patch.url
    if patch.events is not msgspec.UNSET:
        endpoint.events = sorted(set(patch.events))
    if patch.enabled is not msgspec.UNSET:
        endpoint.enabled = patch.enabled
    await session.flush()
    after = audit.fields_of(endpoint, _RECORDED)
    if changed := audit.changes(before, after, private=("url",)):
        audit.record(
            session,
            "webhook.changed",
            tenant_id=endpoint.tenant_id,
            subject=subject(endpoint),
            details={"changes": changed},
        )
    return endpoint


async def delete(session: AsyncSession, endpoint_id: str, *, slug: str) -> None:
    """Remove an endpoint, and with it the events that wait for it.

    Raises:
        NotFound: there is no such endpoint.
    """
    endpoint = await get(session, endpoint_id, slug=slug)
    scope = of_tenant(endpoint.tenant_id)
    await session.execute(scope.delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint.id))
    audit.record(
        session, "webhook.deleted", tenant_id=endpoint.tenant_id, subject=subject(endpoint)
    )


async def rotate_secret(
    session: AsyncSession, endpoint_id: str, *, slug: str, overlap_seconds: int, vault: Vault
) -> WebhookEndpoint:
    """Give an endpoint a new secret. During the overlap both sign, and either verifies.

    Raises:
        NotFound: there is no such endpoint.
        SecretUnreadable: this machine's key is not the one of the other machines.
    """
    endpoint = await get(session, endpoint_id, slug=slug, lock=True)
    endpoint.previous_secret = endpoint.secret if overlap_seconds else None
    endpoint.previous_secret_until = (
        now() + timedelta(seconds=overlap_seconds) if overlap_seconds else None
    )
    await _give_secret(session, endpoint, vault)
    await session.flush()
    audit.record(
        session,
        "webhook.secret_rotated",
        tenant_id=endpoint.tenant_id,
        subject=subject(endpoint),
        details={"old_secret_ends_at": endpoint.previous_secret_until},
    )
    return endpoint


async def send_test(session: AsyncSession, endpoint_id: str, *, slug: str) -> WebhookDelivery:
    """Write an event of the type ``webhook.test``, for which one attempt is made.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: it is disabled.
        TooMany: earlier tests have not been sent yet.
    """
    endpoint = await get(session, endpoint_id, slug=slug, lock=True)
    _require_enabled(endpoint)
    waiting = await session.scalars(
        of_tenant(endpoint.tenant_id)
        .select(WebhookDelivery.event)
        .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.state == "pending")
    )
    if sum(event["type"] == TEST_EVENT for event in waiting) >= MAX_WAITING_TESTS:
        raise TooMany("Earlier tests of this webhook still wait.", retry_after_seconds=5.0)
    row = _queue(session, endpoint, _event(TEST_EVENT, {"id": endpoint.id}))
    await session.flush()
    return row


async def deliveries(
    session: AsyncSession, endpoint_id: str, *, slug: str, limit: int
) -> list[WebhookDelivery]:
    """The last events for an endpoint, newest first.

    Raises:
        NotFound: there is no such endpoint.
    """
    endpoint = await get(session, endpoint_id, slug=slug)
    query = of_tenant(endpoint.tenant_id).select(WebhookDelivery)
    query = query.where(WebhookDelivery.endpoint_id == endpoint.id)
    return list(await session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit)))


async def get_delivery(
    session: AsyncSession, endpoint_id: str, delivery_id: str, *, slug: str
) -> WebhookDelivery:
    """An event for an endpoint, by its id, with or without the prefix.

    Raises:
        NotFound: there is no such endpoint or event.
    """
    return await _delivery(session, await get(session, endpoint_id, slug=slug), delivery_id)


async def redeliver(
    session: AsyncSession, endpoint_id: str, delivery_id: str, *, slug: str
) -> WebhookDelivery:
    """Send an event again now, with the same id and a full set of attempts.

    Raises:
        NotFound: there is no such endpoint or event.
        Conflict: the endpoint is disabled.
    """
    endpoint = await get(session, endpoint_id, slug=slug)
    _require_enabled(endpoint)
    row = await _delivery(session, endpoint, delivery_id, lock=True)
    row.state, row.attempts, row.due_at = "pending", 0, now()
    row.delivered_at = row.error = row.response_status = row.response_text = None
    await session.flush()
    return row


def view(row: WebhookEndpoint) -> WebhookView:
    """An endpoint as the API shows it."""
    until = row.previous_secret_until
    return WebhookView(
        id=row.id,
        url=row.url,
        events=row.events,
        enabled=row.enabled,
        secret_hint=f"...{row.secret_hint or ''}",
        previous_secret_until=until if until and until > now() else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def view_delivery(row: WebhookDelivery) -> DeliveryView:
    """A delivery as the API shows it."""
    return DeliveryView(
        id=DELIVERY_PREFIX + row.id,
        state=row.state,
        attempts=row.attempts,
        due_at=row.due_at if row.state == "pending" else None,
        delivered_at=row.delivered_at,
        error=row.error,
        response_status=row.response_status,
        response_text=row.response_text,
        event=row.event,
        created_at=row.created_at,
    )


def subject(endpoint: WebhookEndpoint) -> Subject:
    """By its host alone: the rest of an address may be a secret, as of incoming webhooks of chats."""
    return Subject("webhook", endpoint.id, urlsplit(endpoint.url).hostname or endpoint.id)


def _event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"evt_{new_id()}",
        "object": "event",
        "created_at": int(now().timestamp()),
        "type": kind,
        "data": data,
    }


def _queue(
    session: AsyncSession, endpoint: WebhookEndpoint, event: dict[str, Any]
) -> WebhookDelivery:
    row = WebhookDelivery(
        tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id, event=event, due_at=now()
    )
    session.add(row)
    return row


async def _delivery(
    session: AsyncSession, endpoint: WebhookEndpoint, delivery_id: str, *, lock: bool = False
) -> WebhookDelivery:
    row_id = delivery_id.removeprefix(DELIVERY_PREFIX)
    row = await of_tenant(endpoint.tenant_id).get(session, WebhookDelivery, row_id, lock=lock)
    if row is None or row.endpoint_id != endpoint.id:
        raise NotFound(f"There is no delivery '{delivery_id}'.", code="delivery_not_found")
    return row


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.enabled:
        raise Conflict("This webhook is disabled: enable it first.", code="webhook_disabled")


async def _give_secret(session: AsyncSession, endpoint: WebhookEndpoint, vault: Vault) -> None:
    await vault.expect_shared(session)
    secret = PLAIN + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    endpoint.secret, endpoint.secret_hint = vault.seal(secret), secret[-4:]
