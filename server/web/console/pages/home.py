"""Where the console begins: all tenants, and the home of one."""

from datetime import date, timedelta
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.adapters import service as adapters
from server.conversations import inbox
from server.db.models import Tenant, now
from server.db.session import Database
from server.engine.service import EngineService
from server.jobs import runs
from server.jobs import service as jobs
from server.tenants import service as tenants
from server.transcripts import service as transcripts
from server.transcripts import uploads
from server.usage import report
from server.usage.schemas import UsageView
from server.web.console.navigation import address_of_page
from server.web.console.rendering import page
from server.web.console.session import signed_in
from training.data.dataset import MIN_EXAMPLES

TENANTS_MOST = 50
RUNS_MOST = 10
DAYS = 7
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


class TenantLine(NamedTuple):
    """A tenant in the list of all."""

    slug: str
    name: str
    live: str
    conversations: int
    working: int
    waiting: int
    use: Use


class Step(NamedTuple):
    """One of the steps from nothing to an assistant. ``href`` is empty where there is no page for it."""

    name: str
    text: str
    state: str
    href: str
    action: str


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
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
        after: FromQuery[str | None] = None,
    ) -> Response[Any]:
        """The list; ``after`` is the slug of the last tenant on the page before."""
        ids = None if viewer.is_operator else list(viewer.roles)
        async with database.reading() as session:
            found = await tenants.list_for(session, ids, limit=TENANTS_MOST + 1, after=after)
            lines = await _lines(session, found[:TENANTS_MOST], today=now().date())
        if len(lines) == 1 and not viewer.is_operator and after is None:
            return Redirect(f"/console/t/{lines[0].slug}", status_code=303)
        trouble = None
        if viewer.is_operator and engine is not None and engine.status.state != "ready":
            trouble = engine.status
        return await page(
            request,
            "home/tenants.html",
            lines=lines,
            next_slug=lines[-1].slug if len(found) > TENANTS_MOST else None,
            is_first_page=after is None,
            engine_trouble=trouble,
        )


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
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
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
            versions = await adapters.list_for(session, tenant)
            use = (await _use(session, tenant.id, today=moment.date())).get(tenant.slug)
        steps = _steps(
            tenant,
            viewer,
            conversations=conversations.get(tenant.id, 0),
            has_version=bool(versions),
            was_asked=use is not None and use.requests > 0,
        )
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
            steps=steps,
            is_new=any(step.state != "done" for step in steps),
            training=address_of_page("Training", tenant),
        )


async def _lines(session: AsyncSession, found: list[Tenant], *, today: date) -> list[TenantLine]:
    ids = [tenant.id for tenant in found]
    conversations = await transcripts.count_conversations(session, ids)
    working = await jobs.count_in(session, ids, jobs.WORKING)
    waiting = await jobs.count_in(session, ids, ["awaiting_approval"])
    only = ids[0] if len(ids) == 1 else None
    use = await _use(session, only, today=today)
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
    )


_NOTHING = Use((0,) * DAYS, 0, 0, 0, 0.0, 0, 0.0)


def _steps(
    tenant: Tenant, viewer: Viewer, *, conversations: int, has_version: bool, was_asked: bool
) -> list[Step]:
    """The four steps; the first that is not done is the one to take now."""
    enough = conversations >= MIN_EXAMPLES
    some = f"{conversations} are here, {MIN_EXAMPLES} are needed. " if conversations else ""
    steps = [
        Step("Company", f"{tenant.name} is set up.", "done", "", ""),
        Step(
            "Transcripts",
            f"{conversations} conversations are here."
            if enough
            else f"{some}Bring 30 or more conversations between your agents and customers.",
            "done" if enough else "",
            address_of_page("Data", tenant),
            "Bring transcripts",
        ),
        Step(
            "Train",
            "A first version is made."
            if has_version
            else "Some minutes. Nothing goes live by itself that fails its gates.",
            "done" if has_version else "",
            f"{address_of_page('Training', tenant)}/new"
            if address_of_page("Training", tenant)
            else "",
            "New run",
        ),
        Step(
            "Try",
            "The assistant has been asked." if was_asked else "Ask it what your customers ask.",
            "done" if was_asked else "",
            address_of_page("Widget", tenant),
            "Try it",
        ),
    ]
    first = next((number for number, step in enumerate(steps) if step.state != "done"), None)
    may = viewer.may(tenant.id, "admin")
    return [
        step._replace(
            state="now" if number == first else step.state,
            href=step.href if number == first and may else "",
        )
        for number, step in enumerate(steps)
    ]
