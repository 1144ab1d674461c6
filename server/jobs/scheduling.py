"""Which imports, jobs and uploads of articles start next: round robin between tenants.

Of the tenants with something queued, the one that was served longest ago comes first, with its
oldest import or job. How much a tenant has queued, and how large it is, does not matter.

Nothing is handed to DBOS before there is a slot for it: DBOS's queues are first in, first out.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Import, Job, JobState, KnowledgeUpload, SourceFile
from server.db.scope import across_tenants

MAX_RUNNING_IMPORTS = 8
"""Each of another tenant. An import is a process of some 40 MB, and the system shares the cores
between them: a short import is done in a moment beside long ones."""
SLOTS_FOR_SMALL_IMPORTS = 2
"""Of these slots, so that a short import finds one however many tenants have long ones."""
SMALL_IMPORT_BYTES = 256 << 10
"""Two seconds of redaction, at the slowest."""
MAX_RUNNING_UPLOADS = 2
"""Files of articles, each of another tenant: one is read while the encoder works on the other."""
NEVER = datetime.min.replace(tzinfo=UTC)
EVERYONE = across_tenants("tenants take turns, so all are looked at")
ACTIVE_STATES: tuple[JobState, ...] = ("queued", "validating", "running", "evaluating")


class Queued(msgspec.Struct, frozen=True):
    """The oldest import or job that a tenant has queued.

    ``last_served``: when an import or job of this tenant was last started.
    """

    id: str
    tenant_id: str
    last_served: datetime
    queued_at: datetime
    small: bool = False


class Slots(msgspec.Struct, frozen=True):
    """How many run at a time, and how many of these slots take only what is small."""

    total: int
    for_small: int = 0


def round_robin(
    queued: Iterable[Queued],
    *,
    slots: Slots,
    running: Collection[str],
    running_large: int = 0,
    many_per_tenant: bool = False,
) -> list[str]:
    """The ids to start now, in this order.

    Args:
        queued: at most one for each tenant.
        slots: the total, the occupied ones included.
        running: for each occupied slot, the id of its tenant.
        running_large: how many of the occupied slots hold something that is not small.
        many_per_tenant: whether a tenant may have more than one slot; those with fewer come first.
    """
    tenants = list(running)
    chosen: list[str] = []
    for each in sorted(
        queued, key=lambda q: (tenants.count(q.tenant_id), q.last_served, q.queued_at)
    ):
        if len(tenants) >= slots.total:
            break
        if not many_per_tenant and each.tenant_id in tenants:
            continue
        if not each.small:
            if running_large >= slots.total - slots.for_small:
                continue
            running_large += 1
        tenants.append(each.tenant_id)
        chosen.append(each.id)
    return chosen


async def next_imports(session: AsyncSession, *, started: Collection[str]) -> list[str]:
    """Ids of the imports to start now. ``started``: those that were, and may not have ended."""
    under_way = EVERYONE.select(Import.tenant_id, SourceFile.size_bytes).join(
        SourceFile, Import.source_file_id == SourceFile.id
    )
    under_way = under_way.where(Import.id.in_(started), Import.state.in_(("queued", "running")))
    running = [(row.tenant_id, row.size_bytes) for row in await session.execute(under_way)]
    oldest = EVERYONE.select(
        Import.id, Import.tenant_id, Import.created_at, SourceFile.size_bytes
    ).join(SourceFile, Import.source_file_id == SourceFile.id)
    first = _numbered_by_tenant(Import).where(Import.state == "queued", Import.id.not_in(started))
    rows = list(await session.execute(oldest.where(Import.id.in_(_first_ids(first)))))
    starts = EVERYONE.select(Import.tenant_id, func.max(Import.started_at).label("at"))
    starts = starts.where(Import.tenant_id.in_([row.tenant_id for row in rows]))
    served = {
        row.tenant_id: row.at for row in await session.execute(starts.group_by(Import.tenant_id))
    }
    return round_robin(
        [
            Queued(
                row.id,
                row.tenant_id,
                served.get(row.tenant_id) or NEVER,
                row.created_at,
                small=row.size_bytes <= SMALL_IMPORT_BYTES,
            )
            for row in rows
        ],
        slots=Slots(MAX_RUNNING_IMPORTS, SLOTS_FOR_SMALL_IMPORTS),
        running=[tenant_id for tenant_id, _ in running],
        running_large=sum(size > SMALL_IMPORT_BYTES for _, size in running),
    )


async def next_jobs(
    session: AsyncSession, *, started: Collection[str], max_running: int
) -> list[tuple[str, int]]:
    """(id, attempt) of the jobs to start now.

    A job that is to learn from uploads which are still being read waits, and takes no slot.

    Args:
        session: one that reads is enough.
        started: ids of jobs that were started, and may not have ended.
        max_running: how many jobs run at a time, those of ``started`` included.
    """
    under_way = EVERYONE.select(Job.tenant_id).where(
        Job.id.in_(started), Job.state.in_(ACTIVE_STATES)
    )
    running = list(await session.scalars(under_way))
    if len(running) >= max_running:
        return []
    older = EVERYONE.select(Import.id).where(
        Import.tenant_id == Job.tenant_id,
        Import.state.in_(("queued", "running")),
        Import.created_at <= Job.created_at,
    )
    first = _numbered_by_tenant(Job).where(
        Job.state == "queued",
        Job.id.not_in(started),
        Job.training_file_id.is_not(None) | ~older.exists(),
    )
    oldest = EVERYONE.select(Job.id, Job.tenant_id, Job.created_at, Job.attempts)
    rows = list(await session.execute(oldest.where(Job.id.in_(_first_ids(first)))))
    starts = EVERYONE.select(Job.tenant_id, func.max(Job.started_at).label("at"))
    starts = starts.where(Job.tenant_id.in_([row.tenant_id for row in rows]))
    served = {
        row.tenant_id: row.at for row in await session.execute(starts.group_by(Job.tenant_id))
    }
    attempts = {row.id: row.attempts for row in rows}
    chosen = round_robin(
        [
            Queued(row.id, row.tenant_id, served.get(row.tenant_id) or NEVER, row.created_at)
            for row in rows
        ],
        slots=Slots(max_running),
        running=running,
        many_per_tenant=True,
    )
    return [(job_id, attempts[job_id]) for job_id in chosen]


async def next_uploads(session: AsyncSession, *, started: Collection[str]) -> list[str]:
    """Ids of the uploads of articles to read now. ``started``: those that were, and may not have ended."""
    under_way = EVERYONE.select(KnowledgeUpload.tenant_id).where(
        KnowledgeUpload.id.in_(started), KnowledgeUpload.state.in_(("queued", "running"))
    )
    running = list(await session.scalars(under_way))
    if len(running) >= MAX_RUNNING_UPLOADS:
        return []
    first = _numbered_by_tenant(KnowledgeUpload).where(
        KnowledgeUpload.state == "queued", KnowledgeUpload.id.not_in(started)
    )
    oldest = EVERYONE.select(
        KnowledgeUpload.id, KnowledgeUpload.tenant_id, KnowledgeUpload.created_at
    )
    rows = list(await session.execute(oldest.where(KnowledgeUpload.id.in_(_first_ids(first)))))
    starts = EVERYONE.select(
        KnowledgeUpload.tenant_id, func.max(KnowledgeUpload.started_at).label("at")
    )
    starts = starts.where(KnowledgeUpload.tenant_id.in_([row.tenant_id for row in rows]))
    served = {
        row.tenant_id: row.at
        for row in await session.execute(starts.group_by(KnowledgeUpload.tenant_id))
    }
    return round_robin(
        [
            Queued(row.id, row.tenant_id, served.get(row.tenant_id) or NEVER, row.created_at)
            for row in rows
        ],
        slots=Slots(MAX_RUNNING_UPLOADS),
        running=running,
    )


def _numbered_by_tenant(kind: type[Import | Job | KnowledgeUpload]) -> Select[str, int]:
    """Ids, each with its position, from 1, among those of its tenant by age."""
    order = func.row_number().over(partition_by=kind.tenant_id, order_by=(kind.created_at, kind.id))
    return EVERYONE.select(kind.id, order.label("position"))


def _first_ids(numbered: Select[str, int]) -> Select[str]:
    table = numbered.subquery()
    return select(table.c.id).where(table.c.position == 1)
