"""Evaluate & release: versions, the evidence about one, and what is live: promote, approve, roll back.

Before that a version can answer a share of the requests, as the canary.

Each change has a page of its own that names the thing and says what happens. What was read there is sent
along (``revision``): where another person was faster, nothing changes and the page says who it was.
"""

from http import HTTPStatus
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.adapters import canary, versions
from server.adapters import service as adapters
from server.adapters.schemas import MAX_PERCENT, MIN_PERCENT, CanaryView, PromotionView
from server.adapters.versions import Version
from server.db.models import MAX_NUMBER, Decision, Tenant, now
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound, ServerError
from server.jobs import history, states
from server.settings import Settings
from server.tenants import service as tenants
from server.web.console.downloads import csv_file, read_all
from server.web.console.forms import read_form, see_other
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
FIRST_PERCENT = 10
"""The share that the form proposes: few are hurt by a bad version, and ten answers come of a hundred."""
_ADMIN = [signed_in("admin")]


class Question(NamedTuple):
    """What a person is asked before something changes.

    ``effects``: what happens, a sentence each. ``send``: where the form goes. ``back``: where to go
    instead. ``revision``: of what is live, as it was read; None where it is not compared. ``percent``: the
    share that is asked for too; None where there is none, and ``mistake`` is what is wrong with it.
    """

    title: str
    effects: list[str]
    act: str
    send: str
    back: str
    revision: int | None = None
    warning: str = ""
    danger: bool = False
    percent: str | None = None
    mistake: str = ""


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
            steps=[view.step_of(step, tenant.slug, names) for step in steps[:STEPS]],
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
    ) -> Response[bytes]:
        """Every version of the tenant, a line each."""
        async with database.reading() as session:
            found = await read_all(
                lambda limit, last: versions.list_versions(
                    session, tenant, limit=limit, below=last.version if last else None
                )
            )
        return csv_file(versions.to_csv(found), f"{tenant.slug}-models.csv")

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
            names = await actor_names(session, view.actors_of(found))
        shown = found[:STEPS_PAGE]
        return await page(
            request,
            "release/history.html",
            steps=[view.step_of(step, tenant.slug, names) for step in shown],
            older=shown[-1].revision if len(found) > len(shown) else None,
            first_page=below is None,
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
            steps=[view.step_of(step, tenant.slug, names) for step in steps],
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

    @get("/{version:int}/promote", guards=_ADMIN)
    async def ask_to_promote(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Ask once more, by the version's name."""
        return await _promotion(request, tenant, version, database=database, settings=settings)

    @post("/{version:int}/promote", guards=_ADMIN)
    async def promote(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Make a version live, or say why not."""
        revision = await _revision(request)
        try:
            async with database.transaction() as session:
                await versions.get_version(session, tenant, version)
                changed = await adapters.promote(
                    session,
                    await tenants.get(session, tenant.slug),
                    version=version,
                    actor=viewer.actor,
                    expected_revision=revision,
                )
        except Conflict as exc:
            return await _promotion(
                request, tenant, version, database=database, settings=settings, refused=exc
            )
        return see_other(f"{_home(tenant)}/{version}?done={changed.live_revision}")

    @get("/{version:int}/canary", guards=_ADMIN)
    async def ask_to_try(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Ask for the share that a version is to answer."""
        return await _trial(request, tenant, version, database=database, settings=settings)

    @post("/{version:int}/canary", guards=_ADMIN)
    async def try_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Let a version answer a share of the requests, or say why not."""
        revision = await _revision(request)
        given = (await read_form(request)).get("percent", "").strip()
        whole = given.isascii() and given.isdigit()
        percent = int(given[:9]) if whole else 0
        if not MIN_PERCENT <= percent <= MAX_PERCENT:
            return await _trial(
                request, tenant, version, database=database, settings=settings, given=given
            )
        try:
            async with database.transaction() as session:
                owner = await tenants.get(session, tenant.slug)
                await canary.start(
                    session,
                    owner,
                    version=version,
                    percent=percent,
                    base=settings.base,
                    actor=viewer.actor,
                    expected_revision=revision,
                )
        except Conflict as exc:
            return await _trial(
                request, tenant, version, database=database, settings=settings, refused=exc
            )
        return see_other(f"{_home(tenant)}/{version}?done={owner.live_revision}")

    @get("/take-back", guards=_ADMIN)
    async def ask_to_take_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Ask once more, by the names of both versions."""
        return await _taking_back(request, tenant, database=database, settings=settings)

    @post("/take-back", guards=_ADMIN)
    async def take_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """End the canary, or say why not."""
        revision = await _revision(request)
        try:
            async with database.transaction() as session:
                owner = await tenants.get(session, tenant.slug)
                await canary.end(session, owner, actor=viewer.actor, expected_revision=revision)
        except (Conflict, NotFound) as exc:
            return await _taking_back(
                request, tenant, database=database, settings=settings, refused=exc
            )
        return see_other(f"{_home(tenant)}?done={owner.live_revision}")

    @get("/roll-back", guards=_ADMIN)
    async def ask_to_roll_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Ask once more, by the names of both versions."""
        return await _rollback(request, tenant, database=database, settings=settings)

    @post("/roll-back", guards=_ADMIN)
    async def roll_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Make live what was before, or say why not."""
        revision = await _revision(request)
        try:
            async with database.transaction() as session:
                changed = await adapters.roll_back(
                    session,
                    await tenants.get(session, tenant.slug),
                    actor=viewer.actor,
                    expected_revision=revision,
                )
        except Conflict as exc:
            return await _rollback(
                request, tenant, database=database, settings=settings, refused=exc
            )
        return see_other(f"{_home(tenant)}?done={changed.live_revision}")

    @get(["/{version:int}/approve", "/{version:int}/reject"], guards=_ADMIN)
    async def ask_to_decide(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask once more, by the version's name."""
        return await _decision(request, tenant, version, database=database)

    @post(["/{version:int}/approve", "/{version:int}/reject"], guards=_ADMIN)
    async def decide(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Approve or reject a version that waits for it, or say why not."""
        try:
            async with database.transaction() as session:
                found = await versions.get_version(session, tenant, version)
                await states.decide(
                    session,
                    tenant.id,
                    _job_of(found),
                    decision=_decision_of(request),
                    actor=viewer.actor,
                )
        except Conflict as exc:
            return await _decision(request, tenant, version, database=database, refused=exc)
        return see_other(f"{_home(tenant)}/{version}")


def _home(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/release"


def _decision_of(request: Request[Any, Any, Any]) -> Decision:
    return "approved" if request.url.path.endswith("/approve") else "rejected"


def _job_of(version: Version) -> str:
    """The run that a version came of.

    Raises:
        Conflict: it came of none, so that none awaits a decision.
    """
    if version.job_id is None:
        raise Conflict(f"{version.name} does not await a decision.")
    return version.job_id


async def _revision(request: Request[Any, Any, Any]) -> int:
    """Of what is live, as the person who sends this form has seen it.

    Raises:
        Invalid: the form does not say.
    """
    given = (await read_form(request)).get("revision", "")
    if not (given.isascii() and given.isdigit() and int(given[:12]) <= MAX_NUMBER):
        raise Invalid("The form does not say what was live when it was opened: open it again.")
    return int(given)


def _actors(steps: list[PromotionView], tried: CanaryView | None) -> set[str]:
    """Those whose names a page needs."""
    return {*view.actors_of(steps), *([tried.actor] if tried else [])}


async def _promotes(
    session: AsyncSession, tenant: Tenant, tried: CanaryView | None
) -> tuple[str, str]:
    """What the button that makes the canary live says, and where it leads: a waiting one is approved."""
    if tried is None:
        return "", ""
    found = await versions.get_version(session, tenant, tried.version)
    word, page_ = ("Approve", "approve") if found.standing == "waiting" else ("Promote", "promote")
    return f"{word} {found.name}", f"{_home(tenant)}/{found.version}/{page_}"


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
            undo = f"{_home(tenant)}/roll-back"
        case "rollback":
            undo = await _again(session, tenant, step.from_version, "promote")
        case "canary":
            undo, before = f"{_home(tenant)}/take-back", steps[-1]
            if before is not step and (before.kind, before.canary_version) == (
                "canary",
                step.canary_version,
            ):
                undo, percent = (
                    f"{_home(tenant)}/{step.canary_version}/canary",
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
    return f"{_home(tenant)}/{found.version}/{what}" if possible else ""


async def _promotion(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    version: int,
    *,
    database: Database,
    settings: Settings,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks whether a version is to go live."""
    async with database.reading() as session:
        tenant = await tenants.get(session, tenant.slug)
        found = await versions.get_version(session, tenant, version)
        report = (await adapters.get(session, tenant, version=version)).report
        live = await adapters.live_version(session, tenant)
        tried = await canary.read(session, tenant, base=settings.base)
    now_live = f"{tenant.slug}@{live}" if live else "the base"
    verdict = view.verdict_of(report)
    why = "" if found.promotable else view.STANDING_WORDS[found.standing]
    if found.base != settings.base:
        why = (
            f"{found.name} was trained on the base {found.base}; this server runs {settings.base}, "
            "on which it cannot answer."
        )
    warning = ""
    if verdict is not None and verdict.result == "cannot_tell":
        warning = f"Its gates cannot tell: it {verdict.summary}."
    question = Question(
        title=f"Make {found.name} live?",
        effects=[
            f"From the next request on, {found.name} answers everybody who asks {tenant.slug}. "
            f"Now it is {now_live}.",
            "Answers that are under way end as they began.",
            f"{_capital(now_live)} stays: you can roll back to it at any time.",
            *_ended(tenant, tried),
        ],
        act=f"Make {found.name} live",
        send=f"{_home(tenant)}/{version}/promote",
        back=f"{_home(tenant)}/{version}",
        revision=tenant.live_revision,
        warning=warning,
    )
    return await _ask(request, question, database=database, refused=refused, why=why)


async def _trial(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    version: int,
    *,
    database: Database,
    settings: Settings,
    given: str | None = None,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks for a share; ``given`` is what somebody wrote that is none."""
    async with database.reading() as session:
        tenant = await tenants.get(session, tenant.slug)
        found = await versions.get_version(session, tenant, version)
        live = await adapters.live_version(session, tenant)
        tried = await canary.read(session, tenant, base=settings.base)
    now_live = f"{tenant.slug}@{live}" if live else "the base"
    changes_it = tried is not None and tried.version == version
    why = "" if found.triable else view.STANDING_WORDS[found.standing]
    if found.base != settings.base:
        why = (
            f"{found.name} was trained on the base {found.base}; this server runs {settings.base}, "
            "on which it cannot answer."
        )
    elif tried is not None and not changes_it:
        why = (
            f"{tenant.slug}@{tried.version} is the canary already, and there is one at a time: take it "
            "back or promote it first."
        )
    question = Question(
        title=f"Change the share of {found.name}?"
        if changes_it
        else f"Send a share to {found.name}?",
        effects=[
            f"From the next request on, {found.name} answers this share of those who ask "
            f"{tenant.slug}, and {now_live} the others.",
            "A visitor's conversation, and an end user whom your program names, stay with one version.",
            "What was counted so far begins anew, so that both are compared over the same time."
            if changes_it
            else "From then on this page counts what both answer, how often they fail, and thumbs.",
            "Should the engine refuse it, the answer comes from what is live, and the share ends.",
        ],
        act="Change the share" if changes_it else "Send this share",
        send=f"{_home(tenant)}/{version}/canary",
        back=f"{_home(tenant)}/{version}",
        revision=tenant.live_revision,
        percent=given
        if given is not None
        else str(tried.percent if tried is not None and changes_it else FIRST_PERCENT),
        mistake=""
        if given is None
        else f"Write a whole number from {MIN_PERCENT} to {MAX_PERCENT}.",
    )
    return await _ask(request, question, database=database, refused=refused, why=why)


async def _taking_back(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    *,
    database: Database,
    settings: Settings,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks whether the canary is to end."""
    async with database.reading() as session:
        tenant = await tenants.get(session, tenant.slug)
        tried = await canary.read(session, tenant, base=settings.base)
    name = f"{tenant.slug}@{tried.version}" if tried else "the canary"
    now_live = f"{tenant.slug}@{tried.live.version}" if tried and tried.live.version else "the base"
    question = Question(
        title=f"Take {name} back?",
        effects=[
            f"From the next request on, {now_live} answers everybody who asks {tenant.slug}.",
            "Answers that are under way end as they began.",
            f"{name} stays, answers to its own name, and can be tried again or made live.",
        ],
        act=f"Take {name} back",
        send=f"{_home(tenant)}/take-back",
        back=_home(tenant),
        revision=tenant.live_revision,
        danger=True,
    )
    why = "" if tried else "There is no canary: what is live answers everything."
    return await _ask(request, question, database=database, refused=refused, why=why)


def _ended(tenant: Tenant, tried: CanaryView | None) -> list[str]:
    """What a change of what is live does to a canary."""
    if tried is None:
        return []
    return [
        f"The canary, {tenant.slug}@{tried.version} with {tried.percent} % of the requests, ends."
    ]


async def _rollback(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    *,
    database: Database,
    settings: Settings,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks whether to go back."""
    why = ""
    async with database.reading() as session:
        tenant = await tenants.get(session, tenant.slug)
        live = await adapters.live_version(session, tenant)
        try:
            before = await adapters.before_live(session, tenant)
        except Conflict as exc:
            before, why = None, exc.message
        earlier = (await adapters.get_by_ids(session, tenant.id, [before])).get(before)
        tried = await canary.read(session, tenant, base=settings.base)
    to = f"{tenant.slug}@{earlier.version}" if earlier else "the base"
    now_live = f"{tenant.slug}@{live}" if live else "the base"
    question = Question(
        title=f"Roll back to {to}?",
        effects=[
            f"From the next request on, {to} answers everybody who asks {tenant.slug}. "
            f"Now it is {now_live}.",
            "Answers that are under way end as they began.",
            f"{_capital(now_live)} stays, and can be made live again.",
            *_ended(tenant, tried),
        ],
        act=f"Roll back to {to}",
        send=f"{_home(tenant)}/roll-back",
        back=_home(tenant),
        revision=tenant.live_revision,
        danger=True,
    )
    return await _ask(request, question, database=database, refused=refused, why=why)


async def _decision(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    version: int,
    *,
    database: Database,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks for a decision about a version that waits for one."""
    async with database.reading() as session:
        found = await versions.get_version(session, tenant, version)
        report = (await adapters.get(session, tenant, version=version)).report
        live = await adapters.live_version(session, tenant)
        decided = await history.read_decision(session, tenant.id, found.job_id)
        names = await actor_names(session, [decided.actor if decided else None])
    now_live = f"{tenant.slug}@{live}" if live else "the base"
    verdict = view.verdict_of(report)
    warning = ""
    if verdict is not None and verdict.result == "cannot_tell":
        warning = f"Its gates cannot tell: it {verdict.summary}."
    approves = _decision_of(request) == "approved"
    question = Question(
        title=f"{'Approve' if approves else 'Reject'} {found.name}?",
        effects=[
            f"Its run makes {found.name} live, in place of {now_live}, usually within seconds.",
            "A decision stands. Afterwards you can roll back.",
        ]
        if approves
        else [
            f"{_capital(now_live)} goes on answering; the run ends without a change.",
            f"{found.name} is kept, answers to its own name, and can be made live later.",
        ],
        act=f"{'Approve' if approves else 'Reject'} {found.name}",
        send=request.url.path,
        back=f"{_home(tenant)}/{version}",
        warning=warning if approves else "",
        danger=not approves,
    )
    why = "" if found.standing == "waiting" else f"{found.name} does not await a decision."
    if decided is not None:
        word = "approved" if decided.approved else "rejected"
        somebody = view.who(decided.actor, names) or "Somebody"
        why = f"{somebody} has {word} {found.name} already; the first decision stands."
    return await _ask(request, question, database=database, refused=refused, why=why)


def _capital(name: str) -> str:
    """A version or the base at the beginning of a sentence: names stay as they are."""
    return "The base" if name == "the base" else name


async def _ask(
    request: Request[Any, Any, Any],
    question: Question,
    *,
    database: Database,
    refused: ServerError | None,
    why: str,
) -> Response[str]:
    """A question with the form that answers it; what made it impossible, in words.

    ``refused``: the form was sent, and this came of it. ``why`` it is not possible at all.
    """
    tenant: Tenant = request.state["tenant"]
    last = None
    if refused is not None and refused.code == "revision_changed":
        async with database.reading() as session:
            steps = await adapters.history(session, tenant, limit=1)
            names = await actor_names(session, view.actors_of(steps))
        last = view.step_of(steps[0], tenant.slug, names)
    return await page(
        request,
        "release/confirm.html",
        status=HTTPStatus.CONFLICT
        if refused
        else HTTPStatus.UNPROCESSABLE_ENTITY
        if question.mistake
        else HTTPStatus.OK,
        bounds={"min": MIN_PERCENT, "max": MAX_PERCENT},
        question=question,
        refused=refused.message if refused else "",
        last=last,
        why=why,
    )
