"""Responses that are kept, to be read again and to be continued.

A response keeps its own input and output; what came before is in the responses before it. One that
another continues is kept as long as the newest of those that do.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import literal
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.chat import stored
from server.db.models import StoredResponse, now
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.errors import Invalid, NotFound
from server.responses.items import MAX_ITEMS, Item, read_items, response_of
from server.retrieval import receipts
from server.tenants import service as tenants

log = structlog.get_logger(__name__)

PREFIX = "resp_"
KEPT_DAYS = 30
DELETE_EVERY_SECONDS = 600.0


class History(NamedTuple):
    """What came before a response, oldest first: ``ids`` of responses, and their items."""

    ids: list[str]
    items: list[Item]


async def get(session: AsyncSession, tenant_id: str, response_id: str) -> StoredResponse:
    """A response that is kept.

    Raises:
        NotFound: never kept, deleted, expired, or another tenant's.
    """
    query = of_tenant(tenant_id).select(StoredResponse)
    found = await session.scalar(
        query.where(
            StoredResponse.id == response_id.removeprefix(PREFIX),
            StoredResponse.expires_at > now(),
        )
    )
    if found is None or not response_id.startswith(PREFIX):
        raise NotFound(f"Response with id '{response_id}' not found.")
    return found


async def history(session: AsyncSession, tenant_id: str, previous_id: str | None) -> History:
    """What comes before a response that continues another.

    Raises:
        Invalid: there is no such response (``previous_response_not_found``), one before it is
            gone, or it failed.
    """
    if previous_id is None:
        return History([], [])
    rows = await _chain(session, tenant_id, previous_id)
    missing = previous_id
    if rows and rows[0].previous_id is not None:
        missing = f"{PREFIX}{rows[0].previous_id}"
    elif rows:
        if rows[-1].answer["status"] == "failed":
            raise Invalid(
                f"Response with id '{previous_id}' failed: there is nothing to go on from.",
                param="previous_response_id",
            )
        return History([row.id for row in rows], _items(rows))
    raise Invalid(
        f"Previous response with id '{missing}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


async def input_items(session: AsyncSession, tenant_id: str, response_id: str) -> list[Item]:
    """Everything that a response was made from, oldest first.

    Raises:
        NotFound: as ``get``.
    """
    row = await get(session, tenant_id, response_id)
    before = []
    if row.previous_id is not None:
        before = await _chain(session, tenant_id, f"{PREFIX}{row.previous_id}")
    return [*_items(before), *read_items(row.items)]


async def find_items(
    session: AsyncSession, tenant_id: str, item_ids: Iterable[str]
) -> dict[str, Item]:
    """The items that are kept, by id; the others are left out."""
    wanted = {item: response for item in item_ids if (response := response_of(item))}
    if not wanted:
        return {}
    query = of_tenant(tenant_id).select(StoredResponse)
    rows = await session.scalars(
        query.where(
            StoredResponse.id.in_(set(wanted.values())),
            StoredResponse.expires_at > now(),
        )
    )
    return {item.id: item for item in _items(list(rows)) if item.id in wanted}


async def keep(
    session: AsyncSession,
    tenant_id: str,
    response_id: str,
    *,
    answer: dict[str, Any],
    items: Sequence[Item],
    before: Sequence[str],
) -> None:
    """Keep a response for ``KEPT_DAYS``, and those before it for as long.

    Nothing is kept of a tenant that is gone.

    Args:
        session: the caller commits it.
        tenant_id: whose it is.
        response_id: with its prefix.
        answer: OpenAI's object, of which ``status`` and ``output`` are read again here.
        items: the response's own input.
        before: ids, without their prefix, of the responses that it continues, oldest first.
    """
    if not await tenants.exists_for_update(session, tenant_id):
        log.info("response of a tenant that is gone was not kept", tenant_id=tenant_id)
        return
    expires_at = now() + timedelta(days=KEPT_DAYS)
    session.add(
        StoredResponse(
            id=response_id.removeprefix(PREFIX),
            tenant_id=tenant_id,
            previous_id=before[-1] if before else None,
            items=msgspec.to_builtins(items),
            answer=answer,
            expires_at=expires_at,
        )
    )
    if before:
        longer = of_tenant(tenant_id).update(StoredResponse).values(expires_at=expires_at)
        await session.execute(longer.where(StoredResponse.id.in_(before)))
    await session.flush()


async def delete_response(session: AsyncSession, tenant_id: str, response_id: str) -> None:
    """Delete a response. Those that continue it cannot be continued any more.

    Raises:
        NotFound: as ``get``.
    """
    await session.delete(await get(session, tenant_id, response_id))
    await session.flush()


async def delete_expired(session: AsyncSession) -> None:
    """Delete what has expired, of all tenants: it must not depend on whether one comes back."""
    old = across_tenants("a sweep of what has expired").delete(StoredResponse)
    await session.execute(old.where(StoredResponse.expires_at <= now()))


async def delete_expired_forever(database: Database) -> None:
    """Delete expired responses and chat completions every now and then, until cancelled.

    Several copies of the server may do so at the same time.
    """
    while True:
        await asyncio.sleep(DELETE_EVERY_SECONDS)
        try:
            async with database.transaction() as session:
                await delete_expired(session)
                await stored.delete_expired(session)
                await receipts.delete_expired(session)
        except (SQLAlchemyError, OSError) as exc:
            log.warning("expired responses were not removed; trying again", error=str(exc))


async def _chain(session: AsyncSession, tenant_id: str, last_id: str) -> list[StoredResponse]:
    """A response and those before it, oldest first, in one query.

    Empty where it is not kept. Where the first has one before it, that is gone.
    """
    if not last_id.startswith(PREFIX):
        return []
    scope = of_tenant(tenant_id)
    chain = (
        scope.select(StoredResponse.id, StoredResponse.previous_id, literal(0).label("depth"))
        .where(StoredResponse.id == last_id.removeprefix(PREFIX), StoredResponse.expires_at > now())
        .cte(recursive=True)
    )
    before = (
        scope.select(StoredResponse.id, StoredResponse.previous_id, chain.c.depth + 1)
        .join(chain, StoredResponse.id == chain.c.previous_id)
        .where(chain.c.depth < MAX_ITEMS)
    )
    chain = chain.union_all(before)
    rows = scope.select(StoredResponse).join(chain, StoredResponse.id == chain.c.id)
    return list(await session.scalars(rows.order_by(chain.c.depth.desc())))


def _items(rows: Iterable[StoredResponse]) -> list[Item]:
    kept: list[Any] = []
    for row in rows:
        kept += row.items
        kept += row.answer["output"]
    return read_items(kept)
