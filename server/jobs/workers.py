"""What an operator sees of workers: which live, what each works on, and what waits, and why."""

import datetime
from collections.abc import Collection
from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, SQLColumnExpression, func
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Import, Job, SourceFile, Tenant, WorkerProcess, now
from server.db.scope import across_tenants, of_installation
from server.jobs.heartbeat import LOST_SECONDS
from server.jobs.runs import run_state
from server.jobs.scheduling import ACTIVE_STATES, MAX_RUNNING_IMPORTS

WAITING_MOST = 50
"""Of jobs, and of imports, that are listed."""
EVERYONE = across_tenants("an operator sees the work of all tenants")

Kind = Literal["job", "import"]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A job or an import that is worked on, or waits.

    ``what``: its state in words, or why it waits. ``since``: when it began, or was queued.
    """

    kind: Kind
    id: str
    name: str
    slug: str
    tenant: str
    what: str
    since: datetime.datetime


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. ``alive``: it was seen within ``LOST_SECONDS``."""

    name: str
    host: str
    pid: int
    jobs_at_once: int
    started_at: datetime.datetime
    seen_at: datetime.datetime
    alive: bool
    work: tuple[Work, ...]


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for a worker: how many of each, and the oldest of them."""

    jobs: int
    imports: int
    oldest: tuple[Work, ...]


async def list_workers(session: AsyncSession) -> list[WorkerView]:
    """The workers that live or were killed lately, the oldest first, each with what it works on."""
    query = of_installation().select(WorkerProcess).order_by(WorkerProcess.id)
    rows = list(await session.scalars(query))
    jobs = await _jobs(session, [job_id for row in rows for job_id in row.jobs])
    imports = await _imports(session, [each for row in rows for each in row.imports])
    lost = now() - datetime.timedelta(seconds=LOST_SECONDS)
    return [
        WorkerView(
            name=row.name,
            host=row.host,
            pid=row.pid,
            jobs_at_once=row.jobs_at_once,
            started_at=row.created_at,
            seen_at=row.seen_at,
            alive=row.seen_at > lost,
            work=tuple(
                found[each]
                for found, ids in ((jobs, row.jobs), (imports, row.imports))
                for each in ids
                if each in found
            ),
        )
        for row in rows
    ]


async def list_waiting(session: AsyncSession, workers: Collection[WorkerView]) -> Waiting:
    """What is queued and not taken, and why not yet. ``workers``: those of ``list_workers``."""
    taken = [work.id for worker in workers if worker.alive for work in worker.work]
    places = sum(worker.jobs_at_once for worker in workers if worker.alive)
    active = await _count(session, Job.id, Job.state.in_(ACTIVE_STATES[1:]))
    older = EVERYONE.select(Import.id).where(
        Import.tenant_id == Job.tenant_id,
        Import.state.in_(("queued", "running")),
        Import.created_at <= Job.created_at,
    )
    unread = Job.training_file_id.is_(None) & older.exists()
    queued_jobs = (Job.state == "queued") & Job.id.not_in(taken)
    jobs = (
        EVERYONE.select(Job.id, Job.recipe_name, Job.created_at, Tenant.slug, Tenant.name, unread)
        .join(Tenant, Tenant.id == Job.tenant_id)
        .where(queued_jobs)
        .order_by(Job.created_at, Job.id)
        .limit(WAITING_MOST)
    )
    queued_imports = (Import.state == "queued") & Import.id.not_in(taken)
    imports = (
        EVERYONE.select(Import.id, SourceFile.filename, Import.created_at, Tenant.slug, Tenant.name)
        .join(Tenant, Tenant.id == Import.tenant_id)
        .join(SourceFile, SourceFile.id == Import.source_file_id)
        .where(queued_imports)
        .order_by(Import.created_at, Import.id)
        .limit(WAITING_MOST)
    )
    found = [
        Work(
            kind="job",
            id=job_id,
            name=f"run by {recipe}",
            slug=slug,
            tenant=tenant,
            what=_why(places, active, is_unread=is_unread),
            since=at,
        )
        for job_id, recipe, at, slug, tenant, is_unread in await session.execute(jobs)
    ]
    found += [
        Work(
            kind="import",
            id=import_id,
            name=filename,
            slug=slug,
            tenant=tenant,
            what=f"its tenant's turn: {MAX_RUNNING_IMPORTS} uploads are read at a time"
            if places
            else _NO_WORKER,
            since=at,
        )
        for import_id, filename, at, slug, tenant in await session.execute(imports)
    ]
    return Waiting(
        jobs=await _count(session, Job.id, queued_jobs),
        imports=await _count(session, Import.id, queued_imports),
        oldest=tuple(sorted(found, key=lambda work: work.since)[:WAITING_MOST]),
    )


_NO_WORKER = "a worker: none runs"


def _why(places: int, active: int, *, is_unread: bool) -> str:
    if not places:
        return _NO_WORKER
    if is_unread:
        return "uploads of its tenant, which are read first"
    if active >= places:
        return (
            "a place: the only one is taken" if places == 1 else f"a place: all {places} are taken"
        )
    return "its tenant's turn, in a moment"


async def _count(
    session: AsyncSession, column: SQLColumnExpression[str], condition: ColumnElement[bool]
) -> int:
    return await session.scalar(EVERYONE.select(func.count(column)).where(condition)) or 0


async def _jobs(session: AsyncSession, ids: Collection[str]) -> dict[str, Work]:
    query = EVERYONE.select(
        Job.id, Job.recipe_name, Job.state, Job.started_at, Job.created_at, Tenant.slug, Tenant.name
    )
    rows = await session.execute(
        query.join(Tenant, Tenant.id == Job.tenant_id).where(
            Job.id.in_(ids), Job.state.in_(ACTIVE_STATES)
        )
    )
    return {
        job_id: Work(
            kind="job",
            id=job_id,
            name=f"run by {recipe}",
            slug=slug,
            tenant=tenant,
            what=run_state(state, adapter=None, live=False).word,
            since=started_at or created_at,
        )
        for job_id, recipe, state, started_at, created_at, slug, tenant in rows
    }


async def _imports(session: AsyncSession, ids: Collection[str]) -> dict[str, Work]:
    query = (
        EVERYONE.select(
            Import.id,
            SourceFile.filename,
            Import.started_at,
            Import.created_at,
            Tenant.slug,
            Tenant.name,
        )
        .join(Tenant, Tenant.id == Import.tenant_id)
        .join(SourceFile, SourceFile.id == Import.source_file_id)
        .where(Import.id.in_(ids), Import.state.in_(("queued", "running")))
    )
    return {
        import_id: Work(
            kind="import",
            id=import_id,
            name=filename,
            slug=slug,
            tenant=tenant,
            what="Being read",
            since=started_at or created_at,
        )
        for import_id, filename, started_at, created_at, slug, tenant in await session.execute(
            query
        )
    }
