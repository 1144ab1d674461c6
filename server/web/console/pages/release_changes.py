"""Changes of what answers: promote, try as a canary, roll back, approve or reject.

Each has a page of its own that names the thing and says what happens. What was read there is sent along
(``revision``): where another person was faster, nothing changes and the page says who it was.
"""

from http import HTTPStatus
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.adapters import canary, versions
from server.adapters import service as adapters
from server.adapters.schemas import MAX_PERCENT, MIN_PERCENT, CanaryView
from server.adapters.versions import Version
from server.db.models import MAX_NUMBER, Decision, Tenant
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound, ServerError
from server.jobs import history, states
from server.settings import Settings
from server.tenants import service as tenants
from server.web.console.forms import read_form, see_other
from server.web.console.pages import release_view as view
from server.web.console.rendering import page
from server.web.console.session import signed_in

FIRST_PERCENT = 10
"""The share that the form proposes: few are hurt by a bad version, and ten answers come of a hundred."""


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


class ReleaseChangesController(Controller):
    """What is asked and done before another version answers."""

    include_in_schema = False
    path = "/console/t/{slug:str}/release"
    guards = (signed_in("admin"),)

    @get("/{version:int}/promote")
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

    @post("/{version:int}/promote")
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
        return see_other(f"{view.home_of(tenant)}/{version}?done={changed.live_revision}")

    @get("/{version:int}/canary")
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

    @post("/{version:int}/canary")
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
        return see_other(f"{view.home_of(tenant)}/{version}?done={owner.live_revision}")

    @get("/take-back")
    async def ask_to_take_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Ask once more, by the names of both versions."""
        return await _taking_back(request, tenant, database=database, settings=settings)

    @post("/take-back")
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
        return see_other(f"{view.home_of(tenant)}?done={owner.live_revision}")

    @get("/roll-back")
    async def ask_to_roll_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Ask once more, by the names of both versions."""
        return await _rollback(request, tenant, database=database, settings=settings)

    @post("/roll-back")
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
        return see_other(f"{view.home_of(tenant)}?done={changed.live_revision}")

    @get(["/{version:int}/approve", "/{version:int}/reject"])
    async def ask_to_decide(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask once more, by the version's name."""
        return await _decision(request, tenant, version, database=database)

    @post(["/{version:int}/approve", "/{version:int}/reject"])
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
        return see_other(f"{view.home_of(tenant)}/{version}")


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
        send=f"{view.home_of(tenant)}/{version}/promote",
        back=f"{view.home_of(tenant)}/{version}",
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
        send=f"{view.home_of(tenant)}/{version}/canary",
        back=f"{view.home_of(tenant)}/{version}",
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
        send=f"{view.home_of(tenant)}/take-back",
        back=view.home_of(tenant),
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
        send=f"{view.home_of(tenant)}/roll-back",
        back=view.home_of(tenant),
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
        back=f"{view.home_of(tenant)}/{version}",
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
