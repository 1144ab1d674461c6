"""Fine-tuning jobs over HTTP: ``/admin/tenants/{slug}/jobs``, imports, and scoring for workers."""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import File
from sqlalchemy.ext.asyncio import AsyncSession

from server.api.admin.adapters import AdapterController
from server.api.admin.upload import post_file, received
from server.api.guards import bearer, needs
from server.auth.keys import Principal
from server.db.models import MAX_NUMBER, Job
from server.db.session import Database
from server.engine.adapter_cache import AdapterRef
from server.engine.service import EngineService
from server.errors import EngineUnavailable, Invalid, NotFound, Unauthenticated
from server.jobs import service, states
from server.jobs.adapter_import import import_adapter
from server.jobs.parity import worker_token
from server.jobs.schemas import (
    SUFFIX,
    Decision,
    ImportForm,
    JobEventView,
    JobRequest,
    JobView,
    ScoreRequest,
    ScoreResponse,
)
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants


class AdapterImportController(AdapterController):
    """Adapters, and the import of one: Litestar wants a path's methods together."""

    @post_file("/adapters", form=ImportForm)
    async def import_(
        self,
        slug: FromPath[str],
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
        filename: Annotated[
            str, QueryParameter(description="The zip's name, where the body is the zip itself.")
        ] = "adapter.zip",
        suffix: Annotated[
            str | None,
            QueryParameter(pattern=f"^({SUFFIX})?$", description="Part of the model's name."),
        ] = None,
        require_approval: Annotated[
            bool | None, QueryParameter(description="A person promotes it, not the gates alone.")
        ] = None,
    ) -> JobView:
        """Import a zip of a PEFT adapter that was trained elsewhere, and queue its evaluation.

        Raw, or as the part `file` of a form. Only `adapter_config.json` and
        `adapter_model.safetensors` are read. The job evaluates it on the tenant's held-out
        conversations, and promotes it where it passes the gates.
        """
        async with database.reading() as session:
            await service.expect_transcripts(session, await tenants.get(session, slug))
        with scratch(settings, "adapter") as folder:
            async with (
                received(
                    request, filename, database=database, blobs=blobs, settings=settings
                ) as file,
                blobs.local(file.sha256, within=folder) as path,
            ):
                job = await import_adapter(
                    database,
                    slug,
                    path,
                    settings=settings,
                    request=_import_request(file.fields, suffix, require_approval),
                    name=file.filename,
                    actor=principal.actor,
                )
        async with database.reading() as session:
            return await service.view(session, job, slug)


def _import_request(
    fields: Mapping[str, Sequence[str]], suffix: str | None, approval: bool | None
) -> JobRequest:
    """The parameters of the query, and for those that are absent the form's fields."""
    form = {name: values[0] for name, values in fields.items()}
    try:
        msgspec.convert(form, ImportForm)
        query = {"suffix": suffix, "require_approval": approval}
        merged = form | {name: value for name, value in query.items() if value is not None}
        return msgspec.convert(merged, JobRequest, strict=False)
    except msgspec.ValidationError as exc:
        unknown = min(form.keys() - set(ImportForm.__struct_fields__), default=None)
        if unknown is not None:
            message = f"Unknown parameter: '{unknown}'."
            raise Invalid(message, param=unknown, code="unknown_parameter") from exc
        param = "suffix" if "$.suffix" in str(exc) else "require_approval"
        raise Invalid(f"Invalid value for '{param}': {exc}", param=param) from exc


class JobController(Controller):
    """Start, follow, stop and approve fine-tuning runs."""

    path = "/admin/tenants/{slug:str}/jobs"
    tags = ("jobs",)
    guards = (needs("train"),)

    @post()
    async def create(
        self,
        slug: FromPath[str],
        data: JSONBody[JobRequest],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> JobView:
        """Queue a run on everything imported so far."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            job = await service.create_job(
                session,
                tenant,
                request=data,
                settings=settings,
                actor=principal.actor,
            )
            return await service.view(session, job, slug)

    @get()
    async def list_(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[JobView]:
        """The tenant's runs, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            jobs = await service.list_jobs(session, tenant.id)
            return [await service.view(session, job, slug) for job in jobs]

    @get("/{job_id:str}")
    async def retrieve(
        self, slug: FromPath[str], job_id: FromPath[str], database: NamedDependency[Database]
    ) -> JobView:
        """One run."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            job = await service.get_job(session, tenant.id, job_id)
            return await service.view(session, job, slug)

    @get("/{job_id:str}/events")
    async def events(
        self,
        slug: FromPath[str],
        job_id: FromPath[str],
        database: NamedDependency[Database],
        after: Annotated[int, QueryParameter(ge=0, le=MAX_NUMBER)] = 0,
    ) -> list[JobEventView]:
        """What happened after event number ``after``, at most 500 at a time."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            await service.get_job(session, tenant.id, job_id)
            return await service.list_events(session, tenant.id, job_id, after=after)

    @post("/{job_id:str}/cancel", status_code=200)
    async def cancel(
        self,
        slug: FromPath[str],
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> JobView:
        """Stop a run; its adapter, if there is one already, is never promoted."""
        change = partial(states.cancel, actor=principal.actor)
        return await _change(change, slug, job_id, database=database)

    @post("/{job_id:str}/pause", status_code=200)
    async def pause(
        self,
        slug: FromPath[str],
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> JobView:
        """Pause a run: it saves, and its slot goes to another."""
        change = partial(states.pause, actor=principal.actor)
        return await _change(change, slug, job_id, database=database)

    @post("/{job_id:str}/resume", status_code=200)
    async def resume(
        self,
        slug: FromPath[str],
        job_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> JobView:
        """Put a paused run back into the queue; it goes on where it was."""
        change = partial(states.resume, actor=principal.actor)
        return await _change(change, slug, job_id, database=database)

    @post("/{job_id:str}/decision", status_code=200)
    async def decide(
        self,
        slug: FromPath[str],
        job_id: FromPath[str],
        data: JSONBody[Decision],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> JobView:
        """Approve or reject the adapter of a run that awaits it."""
        change = partial(states.decide, decision=data.decision, actor=principal.actor)
        return await _change(change, slug, job_id, database=database)

    @get("/{job_id:str}/report", media_type="text/html")
    async def report(
        self,
        slug: FromPath[str],
        job_id: FromPath[str],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> File:
        """The report as one self-contained HTML page."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            job = await service.get_job(session, tenant.id, job_id)
        path = settings.jobs / job.id / "report.html"
        if not path.exists():
            raise NotFound(f"job {job_id} has no report yet")
        return File(path, media_type="text/html", content_disposition_type="inline")


async def _change(
    change: Callable[[AsyncSession, str, str], Awaitable[Job]],
    slug: str,
    job_id: str,
    *,
    database: Database,
) -> JobView:
    """The job after ``change``, which takes the ids of the tenant and the job."""
    async with database.transaction() as session:
        tenant = await tenants.get(session, slug)
        job = await change(session, tenant.id, job_id)
        return await service.view(session, job, slug)


async def _only_workers(
    connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler
) -> None:
    expected = worker_token(connection.app.state.settings)
    if not hmac.compare_digest(bearer(connection).encode(), expected.encode()):
        raise Unauthenticated("not this installation's worker token")


class ScoringController(Controller):
    """Scores for workers, from the engine. Not part of the public interface."""

    path = "/internal"
    include_in_schema = False
    guards = (_only_workers,)

    @post("/score", status_code=200)
    async def score(
        self,
        data: JSONBody[ScoreRequest],
        engine: NamedDependency[EngineService | None],
        settings: NamedDependency[Settings],
    ) -> ScoreResponse:
        """Log-probabilities of each token of each sequence under an adapter."""
        folder = settings.adapters / data.adapter_name
        if folder.parent != settings.adapters or not folder.is_dir():
            raise Invalid(f"no adapter {data.adapter_name!r} in {settings.adapters}")
        if engine is None:
            raise EngineUnavailable("this server runs without an engine")
        adapter = AdapterRef(name=data.adapter_name, path=str(folder))
        # one after the other: a job must not crowd out the tenants' chats
        scores = [
            await engine.score(sequence, tenant=data.tenant, adapter=adapter)
            for sequence in data.sequences
        ]
        return ScoreResponse(logprobs=scores, dtype=await engine.dtype())
