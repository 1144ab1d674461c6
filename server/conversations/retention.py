"""What is removed in time: conversations, nobody's visitors, and small records of use."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import budgets
from server.conversations.schemas import RefusedOriginView
from server.conversations.widgets import Site
from server.db.models import (
    LiveConversation,
    RefusedOrigin,
    UsedNonce,
    Visitor,
    Widget,
    new_id,
    now,
)
from server.db.scope import across_tenants, of_tenant

REFUSED_DAYS = 7
MAX_REFUSED = 50  # origins of a tenant and day: an attacker must not fill the table
_sweep = across_tenants("a sweep of what has expired")


async def delete_expired(session: AsyncSession) -> None:
    """Remove what has expired, of all tenants.

    Conversations go ``Widget.keep_days`` after their last message, with their messages and hand-offs,
    and visitors when they have had none for as long.
    """
    moment = now()
    await session.execute(_sweep.delete(UsedNonce).where(UsedNonce.expires_at <= moment))
    await budgets.delete_expired(session)
    old = moment.date() - timedelta(days=REFUSED_DAYS)
    await session.execute(_sweep.delete(RefusedOrigin).where(RefusedOrigin.day < old))
    for tenant_id, keep_days in await session.execute(
        _sweep.select(Widget.tenant_id, Widget.keep_days)
    ):
        scope, since = of_tenant(tenant_id), moment - timedelta(days=keep_days)
        await session.execute(
            scope.delete(LiveConversation).where(LiveConversation.last_at < since)
        )
        talking = scope.select(LiveConversation.visitor_id)
        await session.execute(
            scope.delete(Visitor).where(Visitor.updated_at < since, Visitor.id.not_in(talking))
        )


async def note_refused(session: AsyncSession, site: Site, origin: str) -> None:
    """Note that a site asked for the widget and may not show it; at most ``MAX_REFUSED`` a day."""
    scope, today = of_tenant(site.tenant.id), datetime.now(UTC).date()
    query = scope.select(RefusedOrigin.origin).where(RefusedOrigin.day == today)
    known = set(await session.scalars(query.limit(MAX_REFUSED)))
    if origin not in known and len(known) >= MAX_REFUSED:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(RefusedOrigin).values(
        id=new_id(), tenant_id=site.tenant.id, day=today, origin=origin, count=1
    )
    await session.execute(
        row.on_conflict_do_update(
            index_elements=["tenant_id", "day", "origin"],
            set_={"count": RefusedOrigin.count + 1, "updated_at": now()},
        )
    )


async def refused(session: AsyncSession, site: Site) -> list[RefusedOriginView]:
    """The sites of the last day that may not show the widget, the latest first."""
    since = now() - timedelta(days=1)
    query = of_tenant(site.tenant.id).select(RefusedOrigin)
    rows = await session.scalars(
        query.where(RefusedOrigin.updated_at >= since).order_by(RefusedOrigin.updated_at.desc())
    )
    found: dict[str, RefusedOriginView] = {}
    for row in rows:
        if row.origin not in found and row.origin not in site.widget.origins:
            found[row.origin] = RefusedOriginView(
                origin=row.origin, count=row.count, last_at=row.updated_at
            )
    return list(found.values())
