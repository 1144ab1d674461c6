"""How often one visitor, or one address, may do something; shared by all servers through the database.

Minutes slide and days start at midnight UTC, with the arithmetic of ``server/limits``. What is refused
does not count. Of minutes, whose counts go, the most of the day is kept for the tenant to see: how much
it was, not by whom.
"""

import hashlib
import hmac
import ipaddress
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import case, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations.schemas import BudgetsUse
from server.conversations.widgets import Site
from server.db.models import UsageDay, WidgetUse, new_id, now
from server.db.scope import across_tenants, of_tenant
from server.errors import TooMany
from server.limits.sliding_window import DAY, MINUTE, Rate
from server.schemas import WidgetBudgets

_WORDS = {MINUTE: "a minute", DAY: "a day"}
# by field of ``WidgetBudgets``: the kind that is counted, and in which period
_COUNTED = {
    "visitor_messages_per_minute": ("messages", MINUTE),
    "visitor_messages_per_day": ("messages_of_day", DAY),
    "address_messages_per_minute": ("messages_from", MINUTE),
    "address_sessions_per_minute": ("sessions_from", MINUTE),
    "address_handoffs_per_day": ("handoffs_from", DAY),
}


class Budget(NamedTuple):
    """``limit`` times of ``kind`` in ``period`` seconds, by ``who``."""

    kind: str
    who: str
    limit: int
    period: int


def budget(limits: WidgetBudgets, name: str, who: str) -> Budget:
    """One of a widget's budgets, by its field's name, for a visitor or an address."""
    kind, period = _COUNTED[name]
    return Budget(kind, who, getattr(limits, name), period)


async def spend(
    session: AsyncSession,
    tenant_id: str,
    budgets: Sequence[Budget],
    *,
    clock: Callable[[], float] = time.time,
) -> None:
    """Count one use under every budget; the transaction undoes it where this raises.

    Raises:
        TooMany: one of them is spent; says when it works again.
    """
    at = clock()
    for budget in budgets:
        number, elapsed = divmod(at, budget.period)
        current = await _add(session, tenant_id, budget, int(number))
        before = 0
        if budget.period == MINUTE:
            before = await _count(session, tenant_id, budget, int(number) - 1)
        rate = Rate("requests", "", budget.limit, before, current - 1, elapsed, budget.period)
        wait = rate.wait(1)
        if wait > 0:
            raise TooMany(
                f"This is possible {budget.limit} times {_WORDS[budget.period]}. "
                f"Please try again in {_in_words(wait)}.",
                retry_after_seconds=wait,
                code="limit_reached",
            )
        if budget.period == MINUTE:
            used = math.ceil(current + before * (1 - elapsed / MINUTE))
            await _note_most(session, tenant_id, budget, used, day=int(at // DAY))


async def today(
    session: AsyncSession, site: Site, *, clock: Callable[[], float] = time.time
) -> BudgetsUse:
    """What was used of a widget's budgets since midnight UTC."""
    at, scope = clock(), of_tenant(site.tenant.id)
    kinds = {
        kind if period == DAY else _most_of(kind): name for name, (kind, period) in _COUNTED.items()
    }
    most = (
        scope.select(WidgetUse.kind, func.max(WidgetUse.count))
        .where(WidgetUse.kind.in_(kinds), WidgetUse.number == int(at // DAY))
        .group_by(WidgetUse.kind)
    )
    tokens = scope.select(func.sum(UsageDay.prompt_tokens + UsageDay.completion_tokens)).where(
        UsageDay.key_id == site.widget.id, UsageDay.day == datetime.fromtimestamp(at, UTC).date()
    )
    found = {kinds[kind]: count for kind, count in await session.execute(most)}
    return BudgetsUse(**found, tokens_per_day=int(await session.scalar(tokens) or 0))


def pseudonym(key: bytes, address: str | None) -> str:
    """An address as budgets keep it: the same for an IPv6 network of 64 bits, and not to be undone."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        plain = "unknown"
    else:
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        bits = 64 if found.version == 6 else 32  # noqa: PLR2004 - what a home or a phone gets
        plain = str(ipaddress.ip_network((found, bits), strict=False))
    return hmac.new(key, f"address:{plain}".encode(), hashlib.sha256).hexdigest()[:32]


async def delete_expired(session: AsyncSession) -> None:
    """Remove counts that no budget needs."""
    old = across_tenants("a sweep of what no budget counts").delete(WidgetUse)
    await session.execute(old.where(WidgetUse.expires_at <= now()))


async def _add(session: AsyncSession, tenant_id: str, budget: Budget, number: int) -> int:
    """Count one; returns the count with it."""
    row = _row(session, tenant_id, budget, number, count=1)
    counted = row.on_conflict_do_update(
        index_elements=["tenant_id", "kind", "who", "number"],
        set_={"count": WidgetUse.count + 1},
    )
    return (await session.execute(counted.returning(WidgetUse.count))).scalar_one()


async def _note_most(
    session: AsyncSession, tenant_id: str, budget: Budget, used: int, *, day: int
) -> None:
    """Keep what was used in a minute where nobody has used more today.

    The row is written as often a day as the budget is large: messages do not wait for each other here.
    """
    most = Budget(_most_of(budget.kind), "", budget.limit, DAY)
    if used <= await _count(session, tenant_id, most, day):
        return
    row = _row(session, tenant_id, most, day, count=used)
    larger = case((WidgetUse.count < used, used), else_=WidgetUse.count)
    await session.execute(
        row.on_conflict_do_update(
            index_elements=["tenant_id", "kind", "who", "number"], set_={"count": larger}
        )
    )


def _most_of(kind: str) -> str:
    return f"most_{kind}"


def _row(
    session: AsyncSession, tenant_id: str, budget: Budget, number: int, *, count: int
) -> postgresql.Insert | sqlite.Insert:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return insert(WidgetUse).values(
        id=new_id(),
        tenant_id=tenant_id,
        kind=budget.kind,
        who=budget.who,
        number=number,
        count=count,
        expires_at=datetime.fromtimestamp((number + 2) * budget.period, UTC),
    )


async def _count(session: AsyncSession, tenant_id: str, budget: Budget, number: int) -> int:
    query = (
        of_tenant(tenant_id)
        .select(WidgetUse.count)
        .where(
            WidgetUse.kind == budget.kind, WidgetUse.who == budget.who, WidgetUse.number == number
        )
    )
    return await session.scalar(query) or 0


def _in_words(seconds: float) -> str:
    if seconds < 2 * MINUTE:
        return f"{math.ceil(seconds)} s"
    minutes = timedelta(seconds=seconds) // timedelta(minutes=1) + 1
    return f"{minutes} minutes" if minutes < 2 * MINUTE else f"{minutes // 60} hours"
