"""The counts that copies of the server share: ``usage_minute``, and the totals of ``usage_day``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Tenant, UsageDay, UsageMinute, now
from server.db.scope import across_tenants
from server.limits.sliding_window import MINUTE

Amounts = tuple[int, int]  # requests, tokens
UsageKey = tuple[
    str, str, int
]  # tenant, key, number of the minute or day; no key: the tenant's sum


@dataclass(frozen=True, slots=True)
class Taken:
    """Counts that are about to be written."""

    minutes: dict[UsageKey, Amounts]
    days: dict[UsageKey, Amounts]


@dataclass(slots=True)
class TenantTotals:
    """One tenant's counts in the database. The key ``""`` stands for the sum of all keys."""

    _minutes: dict[tuple[str, int], Amounts] = field(default_factory=dict)
    _days: dict[str, Amounts] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """The ids of all keys that have counts."""
        return {key_id for key_id, _ in self._minutes} | set(self._days)

    def minute(self, key_id: str, number: int) -> Amounts:
        """A key's counts in a minute; zeros where there are none."""
        return self._minutes.get((key_id, number), (0, 0))

    def day(self, key_id: str) -> Amounts:
        """A key's counts in the day."""
        return self._days.get(key_id, (0, 0))

    def add_minute(self, key_id: str, number: int, amounts: Amounts) -> None:
        """Count a row, for its key and in the sum."""
        for place in {(key_id, number), ("", number)}:
            self._minutes[place] = _sum(self._minutes.get(place, (0, 0)), amounts)

    def add_day(self, key_id: str, amounts: Amounts) -> None:
        """Count a row, for its key and in the sum."""
        for place in {key_id, ""}:
            self._days[place] = _sum(self._days.get(place, (0, 0)), amounts)


class Totals:
    """Some tenants' counts in the database."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantTotals] = {}

    def of(self, tenant_id: str) -> TenantTotals:
        """One tenant's counts."""
        return self._tenants.setdefault(tenant_id, TenantTotals())


async def write_minutes(session: AsyncSession, rows: Mapping[UsageKey, Amounts]) -> None:
    """Add to the minutes of keys. Counts of tenants that are gone are dropped."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    wanted = {tenant_id for tenant_id, _, _ in rows}
    known = set(await session.scalars(select(Tenant.id).where(Tenant.id.in_(wanted))))
    # sorted, so that copies that write the same rows wait for each other without a deadlock
    for (tenant_id, key_id, number), (requests, tokens) in sorted(rows.items()):
        if tenant_id not in known:
            continue
        row = insert(UsageMinute).values(
            tenant_id=tenant_id,
            key_id=key_id,
            minute=_time(number),
            requests=requests,
            tokens=tokens,
        )
        added = {
            "requests": UsageMinute.requests + requests,
            "tokens": UsageMinute.tokens + tokens,
            "updated_at": now(),
        }
        await session.execute(
            row.on_conflict_do_update(index_elements=["tenant_id", "minute", "key_id"], set_=added)
        )


async def prune(session: AsyncSession, *, before: int) -> None:
    """Remove the minutes of all tenants before the one numbered ``before``."""
    old = across_tenants("a sweep of what no limit counts").delete(UsageMinute)
    await session.execute(old.where(UsageMinute.minute < _time(before)))


async def read(session: AsyncSession, tenant_ids: Collection[str], at: float) -> Totals:
    """What these tenants used in the minute of ``at`` (Unix seconds), the two before, and its UTC day."""
    totals = Totals()
    first = _time(int(at // MINUTE) - 2)
    all_tenants = across_tenants("counts of all that are active are read at once")
    minutes = all_tenants.select(
        UsageMinute.tenant_id,
        UsageMinute.key_id,
        UsageMinute.minute,
        UsageMinute.requests,
        UsageMinute.tokens,
    ).where(UsageMinute.tenant_id.in_(tenant_ids), UsageMinute.minute >= first)
    for tenant_id, key_id, minute, requests, tokens in await session.execute(minutes):
        number = int(minute.timestamp()) // MINUTE
        totals.of(tenant_id).add_minute(key_id, number, (requests, tokens))
    today = datetime.fromtimestamp(at, UTC).date()
    days = (
        all_tenants.select(
            UsageDay.tenant_id,
            UsageDay.key_id,
            func.sum(UsageDay.requests),
            func.sum(UsageDay.prompt_tokens + UsageDay.completion_tokens),
        )
        .where(UsageDay.tenant_id.in_(tenant_ids), UsageDay.day == today)
        .group_by(UsageDay.tenant_id, UsageDay.key_id)
    )
    for tenant_id, key_id, requests, tokens in await session.execute(days):
        totals.of(tenant_id).add_day(key_id, (int(requests), int(tokens)))
    return totals


def _time(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * MINUTE, UTC)


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return one[0] + other[0], one[1] + other[1]
