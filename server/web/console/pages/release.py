"""Evaluate & release: versions, the evidence about one, and what is live, with how to take a change back."""

from typing import Any

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.adapters import canary, versions
from server.adapters import service as adapters
from server.adapters.schemas import CanaryView, PromotionView
from server.db.models import MAX_NUMBER, Tenant, now
from server.db.session import Database
from server.errors import Conflict, NotFound
from server.jobs import history
from server.settings import Settings
from server.web.console.downloads import csv_of_all
from server.web.console.pages import release_view as view
from server.web.console.pages.vote import result_of
from server.web.console.rendering import page
from server.web.console.reports import report_page
from server.web.console.session import signed_in

STEPS = 6
"""Changes of what is live that the first page shows."""
STEPS_PAGE = 25
UNDO_SECONDS = 60.0
"""For how long after a change its page offers to take it back; with a script it goes after 10 s."""


class ReleaseController(Controller):
    """What people see of versions, and do with them."""

    include_in_schema = False
    path = "/console/t/{slug:str}/release"
    guards = (signed_in("viewer"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        below: FromQuery[int | None] = None,
        done: FromQuery[int | None] = None,
    ) -> Response[str]:
        """The tenant's versions, newest first, what waits for a person, and the last changes."""
        async with database.reading() as session:
            found = await versions.list_versions(
                session, tenant, limit=versions.PAGE + 1, below=below
            )
            waiting = await versions.list_waiting(session, tenant)
            steps = await adapters.history(session, tenant, limit=STEPS + 1)
            tried = await canary.read(session, tenant, base=settings.base)
            counted = await _counted(session, tenant, steps[:STEPS])
            names = await actor_names(session, _actors(steps, tried))
            to_promote = await _promotes(session, tenant, tried)
            live = await adapters.live_version(session, tenant)
            can_roll_back = await _can_roll_back(session, tenant)
            toast = await _toast(session, tenant, viewer, done)
        shown = found[: versions.PAGE]
        return await page(
            request,
            "release/versions.html",
            rows=[view.row_of(each) for each in shown],
            older=shown[-1].version if len(found) > len(shown) else None,
            first_page=below is None,
            waiting=[view.row_of(each) for each in waiting],
            steps=[view.step_of(step, tenant.slug, names, counted) for step in steps[:STEPS]],
            below=below,
            more_steps=len(steps) > STEPS,
            live_name=f"{tenant.slug}@{live}" if live else "",
            tried=view.canary_of(tried, tenant.slug, names),
            to_promote=to_promote,
            may_act=viewer.may(tenant.id, "admin"),
            can_roll_back=can_roll_back,
            toast_of=toast,
        )

    @get("/versions.csv")
    async def csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Stream:
        """Every version of the tenant, a line each."""
        return await csv_of_all(
            database,
            lambda session, limit, last: versions.list_versions(
                session, tenant, limit=limit, below=last.version if last else None
            ),
            versions.to_csv,
            f"{tenant.slug}-models.csv",
        )

    @get("/history")
    async def changes(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        below: FromQuery[int | None] = None,
    ) -> Response[str]:
        """Who changed what is live, and when."""
        async with database.reading() as session:
            found = await adapters.history(session, tenant, limit=STEPS_PAGE + 1, below=below)
            shown = found[:STEPS_PAGE]
            counted = await _counted(session, tenant, shown)
            names = await actor_names(session, view.actors_of(shown))
        return await page(
            request,
            "release/history.html",
            steps=[view.step_of(step, tenant.slug, names, counted) for step in shown],
            older=shown[-1].revision if len(found) > len(shown) else None,
            first_page=below is None,
        )

    @get("/history/{revision:int}")
    async def past_canary(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        revision: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """What came of a canary that has ended, or of a share that was changed."""
        async with database.reading() as session:
            found = await canary.read_past(session, tenant, min(revision, MAX_NUMBER - 2))
            [after] = await adapters.history(session, tenant, limit=1, below=found.revision + 2)
            names = await actor_names(session, {found.actor, after.actor})
        return await page(
            request,
            "release/past_canary.html",
            it=view.evidence_of(found, tenant.slug, names),
            until=found.until,
            ended=view.step_of(after, tenant.slug, names),
        )

    @get("/{version:int}")
    async def read(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        done: FromQuery[int | None] = None,
    ) -> Response[str]:
        """One version, with all that speaks for it and against it."""
        async with database.reading() as session:
            found = await versions.get_version(session, tenant, version)
            adapter = await adapters.get(session, tenant, version=version)
            dataset = await adapters.dataset_of(session, adapter)
            steps = await adapters.history(session, tenant, version=version)
            decided = await history.read_decision(session, tenant.id, adapter.job_id)
            tried = await canary.read(session, tenant, base=settings.base)
            if tried is not None and version not in (tried.version, tried.live.version):
                tried = None
            to_promote = await _promotes(session, tenant, tried)
            counted = await _counted(session, tenant, steps)
            names = await actor_names(
                session, [*_actors(steps, tried), decided.actor if decided else None]
            )
            can_roll_back = found.standing == "live" and await _can_roll_back(session, tenant)
            toast = await _toast(session, tenant, viewer, done)
            voted = await result_of(session, adapter, tenant)
        evaluation = view.evaluation_of(adapter.report)
        return await page(
            request,
            "release/version.html",
            row=view.row_of(found),
            found=found,
            voted=voted,
            said=view.STANDING_WORDS[found.standing],
            other_base="" if found.base == settings.base else settings.base,
            base=settings.base,
            has_report=adapter.report is not None,
            gates=view.gate_rows(adapter.report),
            verdict=view.verdict_of(adapter.report),
            scores=view.scores_of(evaluation),
            samples=view.samples_of(evaluation, found.name),
            sample_count=len(evaluation.samples) if evaluation else 0,
            made_of=view.card_of(adapter.report, found, dataset),
            steps=[view.step_of(step, tenant.slug, names, counted) for step in steps],
            decided=decided,
            names=names,
            tried=view.canary_of(tried, tenant.slug, names),
            to_promote=to_promote,
            may_act=viewer.may(tenant.id, "admin"),
            can_roll_back=can_roll_back,
            toast_of=toast,
        )

    @get("/{version:int}/report")
    async def report(
        self,
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """The report: a page of its own, which runs and loads nothing."""
        async with database.reading() as session:
            await versions.get_version(session, tenant, version)
            adapter = await adapters.get(session, tenant, version=version)
        if adapter.report is None:
            raise NotFound("This version has no report: it was made before there were reports.")
        return report_page(adapter.report)


def _actors(steps: list[PromotionView], tried: CanaryView | None) -> set[str]:
    """Those whose names a page needs."""
    return {*view.actors_of(steps), *([tried.actor] if tried else [])}


async def _counted(
    session: AsyncSession, tenant: Tenant, steps: list[PromotionView]
) -> dict[int, tuple[int, int]]:
    return await canary.requests_of(session, tenant, view.ended_canaries(steps, tenant))


async def _promotes(
    session: AsyncSession, tenant: Tenant, tried: CanaryView | None
) -> tuple[str, str]:
    """What the button that makes the canary live says, and where it leads: a waiting one is approved."""
    if tried is None:
        return "", ""
    found = await versions.get_version(session, tenant, tried.version)
    word, page_ = ("Approve", "approve") if found.standing == "waiting" else ("Promote", "promote")
    return f"{word} {found.name}", f"{view.home_of(tenant)}/{found.version}/{page_}"


async def _can_roll_back(session: AsyncSession, tenant: Tenant) -> bool:
    try:
        await adapters.before_live(session, tenant)
    except Conflict:
        return False
    return True


async def _toast(
    session: AsyncSession, tenant: Tenant, viewer: Viewer, revision: int | None
) -> dict[str, Any] | None:
    """What the viewer has just done, and how to take it back, while nobody changed it again."""
    if revision is None or revision != tenant.live_revision or not viewer.may(tenant.id, "admin"):
        return None
    steps = await adapters.history(session, tenant, limit=2)
    step = steps[0]
    if not view.is_fresh(step, actor=viewer.actor, now=now(), seconds=UNDO_SECONDS):
        return None
    percent = None
    match step.kind:
        case "promote":
            undo = f"{view.home_of(tenant)}/roll-back"
        case "rollback":
            undo = await _again(session, tenant, step.from_version, "promote")
        case "canary":
            undo, before = f"{view.home_of(tenant)}/take-back", steps[-1]
            if before is not step and (before.kind, before.canary_version) == (
                "canary",
                step.canary_version,
            ):
                undo, percent = (
                    f"{view.home_of(tenant)}/{step.canary_version}/canary",
                    before.canary_percent,
                )
        case _:
            undo = await _again(session, tenant, step.canary_version, "canary")
            percent = step.canary_percent
    return {
        "text": f"{view.step_of(step, tenant.slug, {step.actor: ''})['text']}.",
        "undo": undo,
        "revision": revision,
        "percent": percent,
    }


async def _again(session: AsyncSession, tenant: Tenant, version: int | None, what: str) -> str:
    """Where to send what lets a version answer again; empty where only the operator could."""
    if version is None:
        return ""
    try:
        found = await versions.get_version(session, tenant, version)
    except NotFound:
        return ""
    possible = found.promotable if what == "promote" else found.triable
    return f"{view.home_of(tenant)}/{found.version}/{what}" if possible else ""
