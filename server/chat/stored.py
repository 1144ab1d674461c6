"""Chat completions that clients asked to keep (``"store": true``)."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.json_contains import json_contains
from server.db.models import StoredCompletion, now
from server.db.scope import across_tenants, of_tenant
from server.errors import NotFound
from server.tenants import service as tenants

log = structlog.get_logger(__name__)

KEPT_FOR = timedelta(days=30)
PREFIX = "chatcmpl-"


async def keep(
    session: AsyncSession,
    tenant_id: str,
    *,
    completion_id: str,
    model: str,
    messages: list[Any],
    answer: dict[str, Any],
    metadata: dict[str, str] | None,
) -> None:
    """Keep a conversation and its answer for ``KEPT_FOR``; nothing of a tenant that is gone."""
    if not await tenants.exists_for_update(session, tenant_id):
        log.info("completion of a tenant that is gone was not kept", tenant_id=tenant_id)
        return
    session.add(
        StoredCompletion(
            id=completion_id.removeprefix(PREFIX),
            tenant_id=tenant_id,
            model=model,
            messages=messages,
            answer=answer,
            client_metadata=metadata,
        )
    )
    await session.flush()


async def delete_expired(session: AsyncSession) -> None:
    """Delete what was kept for ``KEPT_FOR``, of all tenants."""
    old = across_tenants("a sweep of what was kept").delete(StoredCompletion)
    await session.execute(old.where(StoredCompletion.created_at < now() - KEPT_FOR))


async def get(session: AsyncSession, tenant_id: str, completion_id: str) -> StoredCompletion:
    """One completion.

    Raises:
        NotFound: never kept, deleted, or another tenant's.
    """
    row_id = completion_id.removeprefix(PREFIX)
    found = await of_tenant(tenant_id).get(session, StoredCompletion, row_id)
    if found is None or not completion_id.startswith(PREFIX):
        raise NotFound(
            f"Completion with id '{completion_id}' not found. Only completions that were created "
            "with 'store': true are kept.",
            param="completion_id",
        )
    return found


async def delete(session: AsyncSession, tenant_id: str, completion_id: str) -> None:
    """Delete a completion.

    Raises:
        NotFound: as ``get``.
    """
    await session.delete(await get(session, tenant_id, completion_id))
    await session.flush()


async def find(
    session: AsyncSession,
    tenant_id: str,
    *,
    limit: int,
    after: str | None,
    newest_first: bool,
    model: str | None,
    metadata: Mapping[str, str],
) -> list[StoredCompletion]:
    """A tenant's completions in the order of their time.

    Args:
        session: read from only.
        tenant_id: whose.
        limit: how many at most.
        after: the id of a completion; only those behind it, in this order.
        newest_first: the order.
        model: only those of this model, as the client named it.
        metadata: only those with all of these pairs.

    Raises:
        NotFound: there is no completion ``after``.
    """
    query = of_tenant(tenant_id).select(StoredCompletion)
    if model is not None:
        query = query.where(StoredCompletion.model == model)
    for key, value in metadata.items():
        query = query.where(json_contains(StoredCompletion.client_metadata, key, value))
    row_id = StoredCompletion.id
    if after is not None:
        last = await get(session, tenant_id, after)
        query = query.where(row_id < last.id if newest_first else row_id > last.id)
    order = row_id.desc() if newest_first else row_id.asc()
    return list(await session.scalars(query.order_by(order).limit(limit)))
