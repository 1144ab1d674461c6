"""``/v1/fine_tuning``: the same jobs as on the admin side, in OpenAI's words."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import service as adapters
from server.api.guards import needs
from server.api.metadata import METADATA_PARAMETER
from server.api.openai.fine_tuning import request as asked
from server.api.openai.fine_tuning.schemas import (
    Checkpoint,
    EventList,
    FineTuningJob,
    JobBody,
    JobList,
)
from server.api.openai.fine_tuning.service import newest_events
from server.api.openai.fine_tuning.views import (
    CHECKPOINT,
    checkpoint_view,
    event_view,
    job_view,
)
from server.api.openai.idempotency import KEY_PARAMETER, digest_of, once
from server.api.openai.paging import MAX_LIMIT, Page, page_of
from server.auth.keys import Principal
from server.db.models import Job, Tenant, now
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound
from server.jobs import curve, results, service, states
from server.jobs.schemas import PUBLIC_ID
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


class FineTuningController(Controller):
    """Fine-tuning jobs, for tenants' keys with the scope ``train``."""

    path = "/v1/fine_tuning/jobs"
    tags = ("fine-tuning",)
    guards = (needs("train"),)

    @post(status_code=200, opt={"body": JobBody, "parameters": [KEY_PARAMETER]})
    async def create_fine_tuning_job(
        self,
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[FineTuningJob]:
        """Check the files, line by line, and queue a job that learns from them."""
        began = now()
        tenant_id = principal.require_tenant()
        data = await request.body()
        body = asked.parse(data)
        async with database.reading() as session:
            await asked.start_of(session, tenant_id, body.model, settings=settings)
            named = await asked.files_of(session, tenant_id, body)
        await asked.check_files(blobs, named, asked.method_of(body), settings=settings)

        async def work(session: AsyncSession) -> FineTuningJob:
            tenant = await tenants.get_by_id(session, tenant_id)
            job = await service.create_job(
                session,
                tenant,
                request=asked.to_request(body),
                settings=settings,
                learning=await asked.to_learning(session, tenant_id, body, settings=settings),
                actor=principal.actor,
            )
            return await _view(session, tenant, job)

        async def exists(session: AsyncSession, job_id: str) -> bool:
            try:
                job = await service.get_job(session, tenant_id, _row_id(job_id))
            except NotFound:
                return False
            return job.state not in {"cancelled", "failed"} and not job.cancel_requested

        digest = digest_of(data)
        return await once(
            request, database, work, digest=digest, began=began, guess=True, exists=exists
        )

    @get(opt={"parameters": [METADATA_PARAMETER]})
    async def list_fine_tuning_jobs(
        self,
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        after: FromQuery[str | None] = None,
        limit: Limit = 20,
    ) -> JobList:
        """The tenant's jobs, newest first; filtered by ``metadata[key]=value`` or ``metadata=null``."""
        if after is not None and not PUBLIC_ID.fullmatch(after):
            raise Invalid(f"Invalid value for 'after': no job's id: {after}.", param="after")
        pairs, none = asked.metadata_filter(request.query_params.multi_items())
        async with database.reading() as session:
            tenant = await tenants.get_by_id(session, principal.require_tenant())
            jobs = await service.list_jobs(
                session,
                tenant.id,
                limit=limit + 1,
                after=None if after is None else _row_id(after),
                metadata=pairs,
                without_metadata=none,
            )
            views = await _views(session, tenant, jobs[:limit])
        return JobList(data=views, has_more=len(jobs) > limit)

    @get("/{job_id:str}")
    async def retrieve_fine_tuning_job(
        self,
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> FineTuningJob:
        """One job."""
        async with database.reading() as session:
            tenant = await tenants.get_by_id(session, principal.require_tenant())
            with _openai_errors(job_id):
                job = await service.get_job(session, tenant.id, _row_id(job_id))
            return await _view(session, tenant, job)

    @post("/{job_id:str}/cancel", status_code=200)
    async def cancel_fine_tuning_job(
        self,
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> FineTuningJob:
        """Stop a job; it never yields a model."""
        return await _change(states.cancel, job_id, principal=principal, database=database)

    @post("/{job_id:str}/pause", status_code=200)
    async def pause_fine_tuning_job(
        self,
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> FineTuningJob:
        """Let a job save and give its place to others."""
        return await _change(states.pause, job_id, principal=principal, database=database)

    @post("/{job_id:str}/resume", status_code=200)
    async def resume_fine_tuning_job(
        self,
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> FineTuningJob:
        """Put a paused job back into the queue; it goes on where it was."""
        return await _change(states.resume, job_id, principal=principal, database=database)

    @get("/{job_id:str}/events")
    async def list_fine_tuning_events(
        self,
        job_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        after: FromQuery[str | None] = None,
        limit: Limit = 20,
    ) -> EventList:
        """What happened in a job, newest first."""
        async with database.reading() as session:
            tenant_id = principal.require_tenant()
            with _openai_errors(job_id):
                job = await service.get_job(session, tenant_id, _row_id(job_id))
            rows = await newest_events(session, job, limit=limit + 1, after=after)
        return EventList(data=[event_view(row) for row in rows[:limit]], has_more=len(rows) > limit)

    @get("/{job_id:str}/checkpoints")
    async def list_fine_tuning_checkpoints(
        self,
        job_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        after: FromQuery[str | None] = None,
        limit: Limit = 10,
    ) -> Page[Checkpoint]:
        """The step whose weights became the model.

        It is the only one that can be asked for by name: other checkpoints serve to resume, hold no
        finished adapter, and are removed when training ends.
        """
        async with database.reading() as session:
            tenant = await tenants.get_by_id(session, principal.require_tenant())
            with _openai_errors(job_id):
                job = await service.get_job(session, tenant.id, _row_id(job_id))
            found: list[Checkpoint] = []
            made = await adapters.get_by_ids(session, tenant.id, [job.adapter_id])
            adapter = made.get(job.adapter_id)
            if job.state == "succeeded" and adapter is not None and adapter.state != "deleted":
                point = curve.chosen((await curve.read_curve(session, job)).points)
                if point is not None and after != CHECKPOINT + adapter.id:
                    metrics = await results.metrics(session, job, point)
                    found = [
                        checkpoint_view(
                            job, adapter, slug=tenant.slug, point=point, metrics=metrics
                        )
                    ]
        return page_of(found, [each.id for each in found], limit=limit)


async def _change(
    change: Callable[[AsyncSession, str, str], Awaitable[Job]],
    job_id: str,
    *,
    principal: Principal,
    database: Database,
) -> FineTuningJob:
    """The job after ``change``, which takes the ids of the tenant's and the job's rows."""
    async with database.transaction() as session:
        tenant = await tenants.get_by_id(session, principal.require_tenant())
        with _openai_errors(job_id):
            job = await change(session, tenant.id, _row_id(job_id))
        return await _view(session, tenant, job)


@contextlib.contextmanager
def _openai_errors(job_id: str) -> Iterator[None]:
    """Errors as OpenAI has them: 404 with the id as sent, 400 where a job's state forbids it.

    Not 409, which OpenAI's clients repeat unless a header forbids it.
    """
    try:
        yield
    except NotFound as exc:
        raise NotFound(
            f"Could not find fine-tuning job: {job_id}",
            param="fine_tuning_job_id",
            code="fine_tuning_job_not_found",
        ) from exc
    except Conflict as exc:
        raise Invalid(exc.message, code=exc.code) from exc


def _row_id(job_id: str) -> str:
    """The row's id; empty, which no row has, where the text is not an id."""
    match = PUBLIC_ID.fullmatch(job_id)
    return match[1] if match else ""


async def _view(session: AsyncSession, tenant: Tenant, job: Job) -> FineTuningJob:
    return (await _views(session, tenant, [job]))[0]


async def _views(session: AsyncSession, tenant: Tenant, jobs: list[Job]) -> list[FineTuningJob]:
    wanted = [each for job in jobs for each in (job.adapter_id, job.start_adapter_id)]
    found = await adapters.get_by_ids(session, tenant.id, wanted)
    return [
        job_view(
            job,
            slug=tenant.slug,
            adapter=found.get(job.adapter_id),
            start=found.get(job.start_adapter_id),
        )
        for job in jobs
    ]
