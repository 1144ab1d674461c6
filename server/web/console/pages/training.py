"""Training: the list of runs, a new one, one run as it goes on, and several together.

A page shows what the run's row and history hold, and nothing that a form once said. It works without a
script; with one, ``curve.js`` draws the points that come after it was rendered.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Redirect, Stream

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.db.models import MAX_NUMBER, Decision, Job, Tenant
from server.db.session import Database
from server.errors import Invalid, NotFound, ServerError
from server.jobs import curve as curves
from server.jobs import runs, service, states
from server.jobs.curve import CurveReader
from server.jobs.estimates import estimate_run
from server.jobs.feed import Batch, JobFeed
from server.jobs.recipes import default_recipe
from server.settings import Settings
from server.web.console.downloads import csv_file, csv_of_all
from server.web.console.figures import about
from server.web.console.forms import see_other
from server.web.console.pages.training_form import (
    BOUNDS,
    RunForm,
    empty_form,
    read_form,
    refused,
)
from server.web.console.pages.training_view import (
    HEADINGS,
    MEASURES,
    VOICES,
    adapter_of,
    best_of,
    compared_plot,
    measure_links,
    read_run,
    row_of,
    run_context,
)
from server.web.console.rendering import page
from server.web.console.reports import report_page
from server.web.console.session import may_still_read, signed_in

_COMMENT_SECONDS = 15.0  # proxies commonly cut a silent line after 30 to 60
_RETRY_MS = 1_000
_ADMIN = [signed_in("admin")]


class TrainingController(Controller):
    """What people see of runs, and do with them."""

    include_in_schema = False
    path = "/console/t/{slug:str}/training"
    guards = (signed_in("viewer"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        after: FromQuery[str | None] = None,
    ) -> Response[str]:
        """The tenant's runs, newest first."""
        async with database.reading() as session:
            found = await runs.list_runs(session, tenant, limit=runs.PAGE + 1, after=after)
            shown = found[: runs.PAGE]
            names = await actor_names(session, [run.actor for run in shown])
            prospect = None if found else await estimate_run(session, tenant, settings=settings)
        return await page(
            request,
            "training/runs.html",
            rows=[row_of(run) for run in shown],
            best=best_of(shown),
            names=names,
            older=shown[-1].id if len(found) > len(shown) else None,
            first_page=after is None,
            prospect=prospect,
            first=prospect and prospect.recipes[0],
            most=runs.COMPARED[1],
            about=about,
        )

    @get("/runs.csv")
    async def csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Stream:
        """Every run of the tenant, a line each."""
        return await csv_of_all(
            database,
            lambda session, limit, last: runs.list_runs(
                session, tenant, limit=limit, after=last.id if last else None
            ),
            runs.to_csv,
            f"{tenant.slug}-runs.csv",
        )

    @get("/compare")
    async def compare(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        run: Annotated[list[str] | None, QueryParameter()] = None,
        measure: FromQuery[str] = "loss",
    ) -> Response[str]:
        """Two to four runs over each other."""
        measure = measure if measure in MEASURES else "loss"
        ids = list(dict.fromkeys(run or ()))
        async with database.reading() as session:
            try:
                found = await runs.compare(session, tenant, ids)
            except ServerError as exc:
                if isinstance(exc, NotFound):
                    raise
                found, problem = [], exc.message
                choice = [row_of(each) for each in await runs.list_runs(session, tenant)]
            else:
                choice, problem = [], ""
        return await page(
            request,
            "training/compare.html",
            status=HTTPStatus.OK if found else HTTPStatus.UNPROCESSABLE_ENTITY,
            rows=[row_of(each.run) for each in found],
            choice=choice,
            chosen=ids,
            problem=problem,
            several_bases=len({each.base for each in found}) > 1,
            plot=compared_plot(found, measure),
            voices=VOICES,
            best=best_of([each.run for each in found]),
            measures=measure_links(measure, "".join(f"&run={each}" for each in ids)),
            heading=HEADINGS[measure],
            measure=measure,
        )

    @get("/new", guards=_ADMIN)
    async def new(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """The form that starts a run."""
        form = empty_form(settings, await default_recipe(settings))
        return await _form_page(request, tenant, form, database, settings)

    @post("/new", guards=_ADMIN)
    async def create(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Start a run, or show the form again with what is wrong."""
        asked, form = read_form(await request.form(), settings)
        if asked is None:
            return await _form_page(request, tenant, form, database, settings)
        try:
            async with database.transaction() as session:
                job = await service.create_job(
                    session, tenant, request=asked, settings=settings, actor=viewer.actor
                )
        except ServerError as exc:
            return await _form_page(request, tenant, refused(form, exc), database, settings)
        return _to_run(tenant, job.id)

    @get("/{job_id:str}")
    async def read(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        curve_reader: NamedDependency[CurveReader],
        measure: FromQuery[str] = "loss",
    ) -> Response[str]:
        """One run, as far as it is."""
        measure = measure if measure in MEASURES else "loss"
        async with database.reading() as session:
            shown = await read_run(session, tenant, job_id, reader=curve_reader)
            names = await actor_names(
                session, [shown.job.actor, *(line.actor for line in shown.log)]
            )
        return await page(
            request,
            "training/run.html",
            **run_context(shown, tenant, measure),
            names=names,
            may_act=viewer.may(tenant.id, "admin"),
        )

    @get("/{job_id:str}/events")
    async def events(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        job_feed: NamedDependency[JobFeed],
        after: Annotated[int, QueryParameter(ge=0, le=MAX_NUMBER)] = 0,
    ) -> Stream:
        """What happens after event number ``after``, or after the ``Last-Event-ID`` of a reconnection."""
        async with database.reading() as session:
            await service.get_job(session, tenant.id, job_id)
        job_feed.check_room()
        last = request.headers.get("last-event-id", "")
        if last.isascii() and last.isdigit():
            after = max(after, min(int(last[:12]), MAX_NUMBER))
        return Stream(
            _stream(
                job_feed.follow(tenant.id, job_id, after=after), partial(may_still_read, request)
            ),
            media_type="text/event-stream",
            headers={
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                "x-content-type-options": "nosniff",
            },
        )

    @get("/{job_id:str}/points.csv")
    async def points(
        self,
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[bytes]:
        """Every point of a run's curve."""
        async with database.reading() as session:
            job = await service.get_job(session, tenant.id, job_id)
            data = curves.to_csv(await curves.read_curve(session, job))
        return csv_file(data, f"{tenant.slug}-{job_id}-points.csv")

    @get("/{job_id:str}/report")
    async def report(
        self,
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """The report: a page of its own, which runs and loads nothing."""
        async with database.reading() as session:
            job = await service.get_job(session, tenant.id, job_id)
            adapter = await adapter_of(session, job)
        if adapter is None or adapter.report is None:
            raise NotFound("This run has no report yet: it is written after the evaluation.")
        return report_page(adapter.report)

    @get("/{job_id:str}/cancel", guards=_ADMIN)
    async def ask_to_cancel(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask once more, by the run's name."""
        async with database.reading() as session:
            (run,) = await runs.get_runs(session, tenant, [job_id])
        return await page(request, "training/cancel.html", row=row_of(run))

    @post("/{job_id:str}/cancel", guards=_ADMIN)
    async def cancel(
        self,
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Stop a run for good."""
        return await _change(states.cancel, tenant, job_id, viewer, database)

    @post("/{job_id:str}/pause", guards=_ADMIN)
    async def pause(
        self,
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Let a run save and wait."""
        return await _change(states.pause, tenant, job_id, viewer, database)

    @post("/{job_id:str}/resume", guards=_ADMIN)
    async def resume(
        self,
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Let a run go on."""
        return await _change(states.resume, tenant, job_id, viewer, database)

    @post("/{job_id:str}/decision", guards=_ADMIN)
    async def decide(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        job_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Approve or reject what came of a run."""
        given = (await request.form()).get("decision")
        if given not in ("approved", "rejected"):
            raise Invalid("Say 'approved' or 'rejected'.")
        decision: Decision = "approved" if given == "approved" else "rejected"
        change = partial(states.decide, decision=decision)
        return await _change(change, tenant, job_id, viewer, database)


async def _form_page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    form: RunForm,
    database: Database,
    settings: Settings,
) -> Response[str]:
    """The form; with errors it is an answer of 422."""
    async with database.reading() as session:
        prospect = await estimate_run(session, tenant, settings=settings)
    return await page(
        request,
        "training/new.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK,
        form=form,
        bounds=BOUNDS,
        prospect=prospect,
        base=settings.base,
        about=about,
    )


async def _stream(
    followed: AsyncGenerator[Batch | None], may_still: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes]:
    """A run's events as server-sent ones, with a comment now and then, until the run or the server ends.

    It ends too where who reads it was signed out, or lost their role, within ``_COMMENT_SECONDS``.

    ``marks`` holds measurements (`server.jobs.curve.Mark`); ``changed`` says that something else in the
    page is out of date; ``end`` that nothing will come.
    """
    yield f"retry: {_RETRY_MS}\n\n".encode()
    clock = asyncio.get_running_loop().time
    said = checked = clock()
    async with contextlib.aclosing(followed) as batches:
        async for batch in batches:
            if clock() - checked >= _COMMENT_SECONDS:
                if not await may_still():
                    return
                checked = clock()
            if batch is not None:
                yield _message(batch)
                said = clock()
            elif clock() - said >= _COMMENT_SECONDS:
                yield b": still here\n\n"
                said = clock()


def _message(batch: Batch) -> bytes:
    """A batch as server-sent events. Only the last one has an id: all of it is repeated or none."""
    marks = [mark for event in batch.events if (mark := curves.mark_of(event)) is not None]
    parts = []
    if len(marks) < len(batch.events):
        parts.append(b"event: changed\ndata: 1\n")
    if marks:
        parts.append(b"event: marks\ndata: " + msgspec.json.encode(marks) + b"\n")
    if batch.events:
        parts[-1] = f"id: {batch.events[-1].seq}\n".encode() + parts[-1]
    if batch.ended:
        parts.append(b"event: end\ndata: 1\n")
    return b"\n".join([*parts, b""])


async def _change(
    change: Callable[..., Awaitable[Job]],
    tenant: Tenant,
    job_id: str,
    viewer: Viewer,
    database: Database,
) -> Redirect:
    """Change a run's state, one of ``states``' functions, and go to its page."""
    async with database.transaction() as session:
        await change(session, tenant.id, job_id, actor=viewer.actor)
    return _to_run(tenant, job_id)


def _to_run(tenant: Tenant, job_id: str) -> Redirect:
    return see_other(f"/console/t/{tenant.slug}/training/{job_id}")
