"""Decisions about fine-tuning jobs: made as rows, which the worker picks up."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Adapter, DatasetVersion, Job, JobEvent, JobState, Tenant
from server.errors import Conflict, Invalid, NotFound
from server.jobs.schemas import FINAL_STATES, JobEventView, JobRequest, JobView
from training.errors import BadInput
from training.spec import Objectives, load_recipe, recipe_names


async def create_job(
    session: AsyncSession, tenant: Tenant, *, request: JobRequest, base: str, default_recipe: str
) -> Job:
    """Queue a job. The row is the job: the worker starts what it finds queued.

    Raises:
        Invalid: the recipe is not one that ships.
    """
    name = request.recipe or default_recipe
    if name not in recipe_names():  # never a path: this comes from a request
        known = ", ".join(recipe_names())
        raise Invalid(f"no recipe {name!r}; there are: {known}", param="recipe")
    try:
        recipe = load_recipe(name)
    except BadInput as exc:
        raise Invalid(str(exc), param="recipe") from exc
    job = Job(
        tenant_id=tenant.id,
        state="queued",
        stage="queued",
        base=base,
        recipe_name=name,
        recipe=msgspec.to_builtins(recipe),
        seed=request.seed,
        objectives=msgspec.to_builtins(request.objectives),
        suffix=request.suffix or None,
        require_approval=request.require_approval,
    )
    session.add(job)
    await session.flush()
    await add_event(session, job, kind="state", body={"state": "queued"})
    return job


async def get_job(session: AsyncSession, tenant_id: str, job_id: str) -> Job:
    """One job of this tenant.

    Raises:
        NotFound: no such job, or another tenant's.
    """
    job = await session.scalar(select(Job).where(Job.tenant_id == tenant_id, Job.id == job_id))
    if job is None:
        raise NotFound(f"no job {job_id}")
    return job


async def list_jobs(session: AsyncSession, tenant_id: str, *, limit: int = 50) -> list[Job]:
    """This tenant's jobs, newest first."""
    query = select(Job).where(Job.tenant_id == tenant_id).order_by(Job.created_at.desc())
    return list(await session.scalars(query.limit(limit)))


async def list_events(
    session: AsyncSession, tenant_id: str, job_id: str, *, after: int = 0, limit: int = 500
) -> list[JobEventView]:
    """A job's history after event number ``after``, oldest first."""
    query = (
        select(JobEvent)
        .where(
            JobEvent.tenant_id == tenant_id,
            JobEvent.job_id == job_id,
            JobEvent.seq > after,
        )
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    return [
        JobEventView(seq=row.seq, kind=row.kind, body=row.body, at=row.created_at)
        for row in await session.scalars(query)
    ]


async def view(session: AsyncSession, job: Job, tenant_slug: str) -> JobView:
    """The job as shown to its tenant."""
    dataset = adapter = None
    if job.dataset_id:
        dataset = await session.scalar(
            select(DatasetVersion.sha256).where(
                DatasetVersion.tenant_id == job.tenant_id, DatasetVersion.id == job.dataset_id
            )
        )
    if job.adapter_id:
        version = await session.scalar(
            select(Adapter.version).where(
                Adapter.tenant_id == job.tenant_id, Adapter.id == job.adapter_id
            )
        )
        adapter = f"{tenant_slug}@{version}"
    return JobView(
        id=job.id,
        tenant=tenant_slug,
        state=msgspec.convert(job.state, type=JobView.__annotations__["state"]),
        stage=job.stage,
        recipe=job.recipe_name,
        seed=job.seed,
        suffix=job.suffix or "",
        base=job.base,
        objectives=msgspec.convert(job.objectives, Objectives),
        require_approval=job.require_approval,
        dataset=dataset,
        adapter=adapter,
        progress=job.progress,
        estimate=job.estimate,
        error=job.error,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
