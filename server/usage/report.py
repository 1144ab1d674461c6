"""Reports of what tenants used, for people and spreadsheets.

Requests come from the counts by day. Training comes from the jobs, as rows with the model
``training:<base>`` on the day that a job ended, so that past days do not change.
"""

import csv
import io
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Job, Tenant, UsageDay
from server.db.scope import TenantScope, across_tenants, of_tenant
from server.errors import Invalid
from server.spreadsheets import harmless
from server.usage.ledger import COUNTS, Counts
from server.usage.schemas import UsageView

Dimension = Literal["day", "model", "key"]
DIMENSIONS: tuple[Dimension, ...] = ("day", "model", "key")
MAX_ROWS = 50_000
COLUMNS = tuple(field.name for field in msgspec.structs.fields(UsageView))
_Place = tuple[str, date | None, str | None, str | None]  # tenant's slug, day, model, key


async def usage_of(
    session: AsyncSession,
    tenant_id: str | None,
    *,
    by: Collection[Dimension] = DIMENSIONS,
    first: date | None = None,
    last: date | None = None,
) -> list[UsageView]:
    """What was used, newest day first.

    Args:
        session: read from only.
        tenant_id: whose; None is everyone's, a row for each.
        by: what has a row of its own; the rest is added up.
        first: the first UTC day; None: from the beginning.
        last: the last UTC day, inclusive; None: until today.

    Raises:
        Invalid: more than ``MAX_ROWS`` rows.
    """
    scope = across_tenants("the operator sees what each used")
    if tenant_id is not None:
        scope = of_tenant(tenant_id)
    totals = await _requests(session, scope, by=by, first=first, last=last)
    await _add_training(session, scope, totals, by=by, first=first, last=last)
    if len(totals) > MAX_ROWS:
        raise _too_many()
    places = sorted(totals, key=lambda place: [each or "" for each in (place[0], *place[2:])])
    places.sort(key=lambda place: place[1] or date.min, reverse=True)
    return [_view(place, totals[place]) for place in places]


async def by_day(
    session: AsyncSession, tenant_id: str | None, *, first: date, last: date
) -> dict[str, list[UsageView]]:
    """By tenant's slug what it used on each UTC day from ``first`` to ``last``, oldest first.

    With None of all tenants that used something; ``tenant_id``'s own is absent where it used nothing.
    """
    found: dict[str, dict[date, UsageView]] = {}
    for view in await usage_of(session, tenant_id, by=["day"], first=first, last=last):
        if view.day is not None:
            found.setdefault(view.tenant, {})[view.day] = view
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return {
        slug: [of_day.get(day) or _view((slug, day, None, None), Counts()) for day in days]
        for slug, of_day in found.items()
    }


async def was_asked(session: AsyncSession, tenant_id: str) -> bool:
    """Whether a tenant's models were ever asked anything."""
    query = of_tenant(tenant_id).select(UsageDay.id).where(UsageDay.requests > 0).limit(1)
    return await session.scalar(query) is not None


def to_csv(rows: Sequence[UsageView]) -> str:
    """Rows as CSV (RFC 4180) with a header; no cell begins like a spreadsheet's formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (getattr(row, column) for column in COLUMNS)
        writer.writerow([harmless("" if cell is None else str(cell)) for cell in cells])
    return text.getvalue()


async def _requests(
    session: AsyncSession,
    scope: TenantScope,
    *,
    by: Collection[Dimension],
    first: date | None,
    last: date | None,
) -> dict[_Place, Counts]:
    columns: dict[Dimension, Any] = {
        "day": UsageDay.day,
        "model": UsageDay.model,
        "key": UsageDay.key_id,
    }
    chosen = [Tenant.slug, *(columns[name] for name in DIMENSIONS if name in by)]
    sums = [func.sum(getattr(UsageDay, name)).label(name) for name in COUNTS]
    query = scope.select(*chosen, *sums).join(Tenant, Tenant.id == UsageDay.tenant_id)
    if first is not None:
        query = query.where(UsageDay.day >= first)
    if last is not None:
        query = query.where(UsageDay.day <= last)
    found = (await session.execute(query.group_by(*chosen).limit(MAX_ROWS + 1))).all()
    totals = {}
    for row in found:
        values = row._mapping  # noqa: SLF001 - public, in spite of its name
        place = _place(
            values["slug"], values.get("day"), values.get("model"), values.get("key_id"), by=by
        )
        # PostgreSQL's sums of integers are decimals
        whole = {name: int(values[name]) for name in COUNTS if name != "gpu_seconds"}
        totals[place] = Counts(**whole, gpu_seconds=float(values["gpu_seconds"]))
    return totals


async def _add_training(
    session: AsyncSession,
    scope: TenantScope,
    totals: dict[_Place, Counts],
    *,
    by: Collection[Dimension],
    first: date | None,
    last: date | None,
) -> None:
    query = (
        scope.select(Tenant.slug, Job.base, Job.finished_at, Job.gpu_seconds)
        .join(Tenant, Tenant.id == Job.tenant_id)
        .where(Job.finished_at.is_not(None), Job.gpu_seconds > 0)
    )
    if first is not None:
        query = query.where(Job.finished_at >= datetime.combine(first, time.min, UTC))
    if last is not None:
        query = query.where(Job.finished_at <= datetime.combine(last, time.max, UTC))
    jobs = (await session.execute(query.limit(MAX_ROWS + 1))).all()
    if len(jobs) > MAX_ROWS:
        raise _too_many()
    for slug, base, finished_at, gpu_seconds in jobs:
        day = finished_at.date() if finished_at else None
        place = _place(slug, day, f"training:{base}", "", by=by)
        totals.setdefault(place, Counts()).gpu_seconds += gpu_seconds


def _place(
    slug: str, day: date | None, model: str | None, key_id: str | None, *, by: Collection[Dimension]
) -> _Place:
    return (
        slug,
        day if "day" in by else None,
        model if "model" in by else None,
        key_id if "key" in by else None,
    )


def _view(place: _Place, counts: Counts) -> UsageView:
    slug, day, model, key_id = place
    values = {name: getattr(counts, name) for name in COUNTS}
    values["gpu_seconds"] = round(counts.gpu_seconds, 6)
    return UsageView(tenant=slug, day=day, model=model, key_id=key_id, **values)


def _too_many() -> Invalid:
    return Invalid(
        f"That would be more than {MAX_ROWS:,} rows: ask for fewer days, or group by less.",
        param="first",
        code="too_many_rows",
    )
