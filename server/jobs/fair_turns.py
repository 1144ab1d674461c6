"""Whose import or job is next: tenants take turns, whoever has queued more, or sooner, or larger.

Among those that wait and have nothing under way, the tenant is next that was served longest ago,
with its oldest. Nothing is given to the workflow library before there is a place for it: its own
queues serve in the order of arrival.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Select, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Import, Job, JobState, SourceFile

IMPORTS_AT_ONCE = 8
"""Of as many tenants. Each is a process of some 40 MB, to which the system gives its share of the
cores: a short import is done in a moment beside long ones."""
FOR_SMALL_IMPORTS = 2
"""Of these places, so that a short import finds one however many tenants have long ones."""
SMALL_BYTES = 256 << 10
"""Two seconds of redaction, at the slowest."""
NEVER = datetime.min.replace(tzinfo=UTC)
WORKED_ON: tuple[JobState, ...] = ("queued", "validating", "running", "evaluating")


class Waiting(msgspec.Struct, frozen=True):
    """The oldest that a tenant has waiting. ``served``: when something of its was begun last."""

    id: str
    tenant_id: str
    served: datetime
    since: datetime
    small: bool = False


class Places(msgspec.Struct, frozen=True):
    """How many there are, and how many of them take only what is small."""

    total: int
    for_small: int = 0


def next_in_turn(
    waiting: Iterable[Waiting],
    *,
    places: Places,
    busy: Collection[str],
    large: int = 0,
    several: bool = False,
) -> list[str]:
    """The ids of what to begin now, in this order.

    ``busy``: the tenants of what is under way, each as often as it has something; ``large``: how
    much of it is not small. ``several``: whether a tenant may have more than one place, those with
    fewer first.
    """
    under_way = list(busy)
    chosen: list[str] = []
    for each in sorted(waiting, key=lambda w: (under_way.count(w.tenant_id), w.served, w.since)):
        if len(under_way) >= places.total:
            break
        if not several and each.tenant_id in under_way:
            continue
        if not each.small:
            if large >= places.total - places.for_small:
                continue
            large += 1
        under_way.append(each.tenant_id)
        chosen.append(each.id)
    return chosen


async def next_imports(session: AsyncSession, *, given: Collection[str]) -> list[str]:
    """Ids of the imports to begin now. ``given``: those that were begun, and may not have ended."""
    under_way = select(Import.tenant_id, SourceFile.size_bytes).join(
        SourceFile, Import.source_file_id == SourceFile.id
    )
    under_way = under_way.where(Import.id.in_(given), Import.state.in_(("queued", "running")))
    busy = [(row.tenant_id, row.size_bytes) for row in await session.execute(under_way)]
    oldest = select(Import.id, Import.tenant_id, Import.created_at, SourceFile.size_bytes).join(
        SourceFile, Import.source_file_id == SourceFile.id
    )
    first = _first_of_each(Import).where(Import.state == "queued", Import.id.not_in(given))
    rows = list(await session.execute(oldest.where(Import.id.in_(_ids(first)))))
    starts = select(Import.tenant_id, func.max(Import.started_at).label("at"))
    starts = starts.where(Import.tenant_id.in_([row.tenant_id for row in rows]))
    served = {
        row.tenant_id: row.at for row in await session.execute(starts.group_by(Import.tenant_id))
    }
    return next_in_turn(
        [
            Waiting(
                row.id,
                row.tenant_id,
                served.get(row.tenant_id) or NEVER,
                row.created_at,
                small=row.size_bytes <= SMALL_BYTES,
            )
            for row in rows
        ],
        places=Places(IMPORTS_AT_ONCE, FOR_SMALL_IMPORTS),
        busy=[tenant_id for tenant_id, _ in busy],
        large=sum(size > SMALL_BYTES for _, size in busy),
    )


async def next_jobs(
    session: AsyncSession, *, given: Collection[str], at_once: int
) -> list[tuple[str, int]]:
    """(id, attempt) of the jobs to begin now: with those of ``given`` that go on, ``at_once``.

    A job that is to learn from uploads that are still being read waits without a place.
    """
    under_way = select(Job.tenant_id).where(Job.id.in_(given), Job.state.in_(WORKED_ON))
    busy = list(await session.scalars(under_way))
    if len(busy) >= at_once:
        return []
    unread = exists().where(
        Import.tenant_id == Job.tenant_id,
        Import.state.in_(("queued", "running")),
        Import.created_at <= Job.created_at,
    )
    first = _first_of_each(Job).where(
        Job.state == "queued",
        Job.id.not_in(given),
        Job.training_file_id.is_not(None) | ~unread,
    )
    oldest = select(Job.id, Job.tenant_id, Job.created_at, Job.attempts)
    rows = list(await session.execute(oldest.where(Job.id.in_(_ids(first)))))
    starts = select(Job.tenant_id, func.max(Job.started_at).label("at"))
    starts = starts.where(Job.tenant_id.in_([row.tenant_id for row in rows]))
    served = {
        row.tenant_id: row.at for row in await session.execute(starts.group_by(Job.tenant_id))
    }
    attempts = {row.id: row.attempts for row in rows}
    chosen = next_in_turn(
        [
            Waiting(row.id, row.tenant_id, served.get(row.tenant_id) or NEVER, row.created_at)
            for row in rows
        ],
        places=Places(at_once),
        busy=busy,
        several=True,
    )
    return [(job_id, attempts[job_id]) for job_id in chosen]


def _first_of_each(kind: type[Import | Job]) -> Select[tuple[str, int]]:
    """Ids, each with its place, from 1, among those of its tenant by age."""
    order = func.row_number().over(partition_by=kind.tenant_id, order_by=(kind.created_at, kind.id))
    return select(kind.id, order.label("place"))


def _ids(numbered: Select[tuple[str, int]]) -> Select[tuple[str]]:
    table = numbered.subquery()
    return select(table.c.id).where(table.c.place == 1)
