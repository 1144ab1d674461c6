"""Where the console begins: all tenants, and the home of one."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.adapters import service as adapters
from server.conversations import inbox
from server.db.models import Tenant, now
from server.db.session import Database
from server.engine.overview import EngineState, state_of
from server.engine.service import EngineService
from server.jobs import runs, workers
from server.jobs import service as jobs
from server.jobs.recipes import default_recipe
from server.limits.limiter import RateLimiter
from server.settings import Settings
from server.spreadsheets import to_csv
from server.tenants import service as tenants
from server.transcripts import service as transcripts
from server.transcripts import uploads
from server.usage import report
from server.usage.schemas import UsageView
from server.web.console.downloads import csv_of_all
from server.web.console.navigation import address_of_page
from server.web.console.pages.first_steps import before_a_company, load_first_steps
from server.web.console.pages.tenants import PATH as NEW_TENANT
from server.web.console.pages.usage_view import nearest
from server.web.console.rendering import page
from server.web.console.session import signed_in

TENANTS_MOST = 50
RUNS_MOST = 10
DAYS = 7
CSV_COLUMNS = (
    "slug",
    "name",
    "live",
    "runs_to_approve",
    "runs_going_on",
    "conversations",
    f"requests_in_{DAYS}_days",
    f"errors_in_{DAYS}_days",
    f"tokens_in_{DAYS}_days",
    f"engine_seconds_in_{DAYS}_days",
)
FAILED_DAYS = 7  # an import that failed longer ago is not on the first page any more


class Use(NamedTuple):
    """What was used in ``DAYS`` days, today last, and what of it today."""

    requests_by_day: tuple[int, ...]
    requests: int
    errors: int
    tokens: int
    engine_seconds: float
    tokens_today: int
    engine_seconds_today: float
    refused_today: int


class TenantLine(NamedTuple):
    """A tenant in the list of all."""

    slug: str
    name: str
    live: str
    conversations: int
    working: int
    waiting: int
    use: Use


class Installation(NamedTuple):
    """What an operator must know first: whether there is who answers, reads and trains.

    ``running``: workers; ``waiting``: runs and uploads that wait for one.
    """

    engine: EngineState
    detail: str
    running: int
    waiting: int


class HomeController(Controller):
    """All tenants that the viewer may go to; who has one only goes there at once."""

    include_in_schema = False
    path = "/console"
    guards = (signed_in(),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        viewer: NamedDependency[Viewer],
        *,
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
        settings: NamedDependency[Settings],
        after: FromQuery[str | None] = None,
    ) -> Response[Any]:
        """The list; ``after`` is the slug of the last tenant on the page before."""
        ids = None if viewer.is_operator else list(viewer.roles)
        async with database.reading() as session:
            found = await tenants.list_for(session, ids, limit=TENANTS_MOST + 1, after=after)
            shown = found[:TENANTS_MOST]
            only = shown[0].id if len(shown) == 1 else None
            use = await _use(session, only, today=now().date())
            lines = await _lines(session, shown, use)
        if len(lines) == 1 and not viewer.is_operator and after is None:
            return Redirect(f"/console/t/{lines[0].slug}", status_code=303)
        installation = None
        if viewer.is_operator:
            async with database.reading() as session:
                installation = await _installation(session, engine)
        return await page(
            request,
            "home/tenants.html",
            lines=lines,
            next_slug=lines[-1].slug if len(found) > TENANTS_MOST else None,
            is_first_page=after is None,
            new_tenant=NEW_TENANT,
            steps=before_a_company(await default_recipe(settings))
            if not lines and viewer.is_operator
            else (),
            installation=installation,
        )

    @get("/tenants.csv")
    async def csv(
        self, viewer: NamedDependency[Viewer], database: NamedDependency[Database]
    ) -> Stream:
        """The same tenants, a line each."""
        ids = None if viewer.is_operator else list(viewer.roles)
        async with database.reading() as session:
            use = await _use(session, None, today=now().date())

        async def read(
            session: AsyncSession, limit: int, last: TenantLine | None
        ) -> list[TenantLine]:
            after = last.slug if last else None
            batch = await tenants.list_for(session, ids, limit=limit, after=after)
            return await _lines(session, batch, use)

        return await csv_of_all(database, read, _to_csv, "tenants.csv")


class TenantHomeController(Controller):
    """The home of a tenant."""

    include_in_schema = False
    path = "/console/t/{slug:str}"
    guards = (signed_in("viewer"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        limiter: NamedDependency[RateLimiter],
        slug: FromPath[str],
    ) -> Response[Any]:
        """What needs a person first, what is live, what goes on, what was used."""
        moment = now()
        async with database.reading() as session:
            conversations = await transcripts.count_conversations(session, [tenant.id])
            waiting = await runs.list_runs(
                session, tenant, states=["awaiting_approval"], limit=RUNS_MOST
            )
            working = await runs.list_runs(session, tenant, states=jobs.WORKING, limit=RUNS_MOST)
            failed = await transcripts.list_failed(
                session, tenant, since=moment - timedelta(days=FAILED_DAYS)
            )
            visitors = await inbox.count_waiting(session, tenant.id)
            drafts = await uploads.list_uploads(session, tenant, states=["draft"], limit=RUNS_MOST)
            live = await adapters.live_version(session, tenant)
            tried = (await tenants.view(session, tenant)).canary
            change = await adapters.last_change(session, tenant)
            use = (await _use(session, tenant.id, today=moment.date())).get(tenant.slug)
            first = await load_first_steps(
                session,
                tenant,
                viewer,
                settings=settings,
                drafts=drafts,
                working=working,
                waiting=waiting,
            )
        near = await limiter.now({tenant.id: tenant.limits})
        return await page(
            request,
            "home/tenant.html",
            conversations=conversations.get(tenant.id, 0),
            waiting=waiting,
            working=working,
            visitors=visitors,
            talks=address_of_page("Conversations", tenant),
            failed=[
                (row, source, uploads.for_a_page((row.error or {}).get("message", "")))
                for row, source in failed
            ],
            drafts=drafts,
            data=address_of_page("Data", tenant),
            live_name=f"{slug}@{live}" if live else "",
            live_since=change.created_at if live and change else None,
            tried=tried,
            release=address_of_page("Evaluate & release", tenant),
            use=use or _NOTHING,
            first=first,
            usage=address_of_page("Usage & limits", tenant),
            limit=nearest(near[tenant.id]),
            training=address_of_page("Training", tenant),
        )


async def _lines(
    session: AsyncSession, found: list[Tenant], use: dict[str, Use]
) -> list[TenantLine]:
    ids = [tenant.id for tenant in found]
    conversations = await transcripts.count_conversations(session, ids)
    working = await jobs.count_in(session, ids, jobs.WORKING)
    waiting = await jobs.count_in(session, ids, ["awaiting_approval"])
    return [
        TenantLine(
            slug=tenant.slug,
            name=tenant.name,
            live=f"{tenant.slug}@{view.live_version}" if view.live_version else "",
            conversations=conversations.get(tenant.id, 0),
            working=working.get(tenant.id, 0),
            waiting=waiting.get(tenant.id, 0),
            use=use.get(tenant.slug, _NOTHING),
        )
        for tenant, view in zip(found, await tenants.views(session, found), strict=True)
    ]


def _to_csv(lines: Sequence[TenantLine]) -> bytes:
    return to_csv(
        CSV_COLUMNS,
        (
            (
                line.slug,
                line.name,
                line.live,
                line.waiting,
                line.working,
                line.conversations,
                line.use.requests,
                line.use.errors,
                line.use.tokens,
                round(line.use.engine_seconds, 1),
            )
            for line in lines
        ),
    )


async def _use(session: AsyncSession, tenant_id: str | None, *, today: date) -> dict[str, Use]:
    """What each tenant used lately, by its slug; those that used nothing are absent."""
    first = today - timedelta(days=DAYS - 1)
    days = await report.by_day(session, tenant_id, first=first, last=today)
    return {slug: _added_up(of_days) for slug, of_days in days.items()}


def _added_up(days: list[UsageView]) -> Use:
    today = days[-1]
    return Use(
        requests_by_day=tuple(day.requests for day in days),
        requests=sum(day.requests for day in days),
        errors=sum(day.errors for day in days),
        tokens=sum(day.prompt_tokens + day.completion_tokens for day in days),
        engine_seconds=sum(day.gpu_seconds for day in days),
        tokens_today=today.prompt_tokens + today.completion_tokens,
        engine_seconds_today=today.gpu_seconds,
        refused_today=today.refused,
    )


async def _installation(session: AsyncSession, engine: EngineService | None) -> Installation:
    found = await workers.list_workers(session)
    waiting = await workers.list_waiting(session, found)
    return Installation(
        engine=state_of(engine),
        detail=engine.status.detail if engine is not None else "",
        running=sum(worker.alive for worker in found),
        waiting=waiting.jobs + waiting.imports,
    )


_NOTHING = Use((0,) * DAYS, 0, 0, 0, 0.0, 0, 0.0, 0)
