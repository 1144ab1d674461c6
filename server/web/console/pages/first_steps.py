"""The four steps from nothing to an assistant that answers: company, transcripts, train, try.

Each ticks itself by what is there, and says how long it takes. The first that is not done is the one to take
now, and leads on. When what is live was asked, the steps are gone.
"""

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.adapters import service as adapters
from server.db.models import Tenant
from server.jobs.estimates import Prospect, estimate_run
from server.jobs.runs import Run
from server.settings import Settings
from server.transcripts.uploads import SAMPLE_CONVERSATIONS, Upload
from server.usage import report
from server.web.console.figures import about
from server.web.console.navigation import address_of_page
from server.web.console.pages.tenants import PATH as NEW_TENANT
from training.config import load_recipe
from training.data.dataset import MIN_EXAMPLES

START = 30
"""Conversations to begin with; a run accepts fewer (``MIN_EXAMPLES``), and learns little from them."""
READING = "Reading takes seconds for hundreds, minutes for a hundred thousand."


class Way(NamedTuple):
    """A button of a step: a link or, where it ``sends``, a form without fields."""

    text: str
    href: str
    sends: bool = False
    is_main: bool = True


class Step(NamedTuple):
    """One of the steps; ``state`` is empty, ``now`` or ``done``. ``ways`` lead on from the one that is now."""

    name: str
    text: str
    state: str
    ways: tuple[Way, ...] = ()


class FirstSteps(NamedTuple):
    """The steps, and whether the one that is now will tick by itself: the page then looks again."""

    steps: tuple[Step, ...]
    going: bool


def before_a_company(recipe: str) -> tuple[Step, ...]:
    """The steps of an installation that has no tenant yet, for an operator."""
    return (
        Step(
            "Company",
            "Its name, and what the assistant is told first. A minute.",
            "now",
            (Way("Set up a company", NEW_TENANT),),
        ),
        Step("Transcripts", f"{_enough()}, or the sample. {READING}", ""),
        Step("Train", _unmeasured(recipe), ""),
        Step("Try", "Ask it what your customers ask. An answer takes seconds.", ""),
    )


async def load_first_steps(
    session: AsyncSession,
    tenant: Tenant,
    viewer: Viewer,
    *,
    settings: Settings,
    drafts: list[Upload],
    working: list[Run],
    waiting: list[Run],
) -> FirstSteps:
    """The steps of a tenant; none are left where what is live was asked.

    Args:
        session: read from only.
        tenant: whose.
        viewer: who reads them; only an admin is led on.
        settings: of the installation.
        drafts: uploads whose columns nobody has looked at.
        working: runs that go on.
        waiting: runs that wait for approval.
    """
    live = await adapters.live_version(session, tenant)
    if live is not None and await report.was_asked(session, tenant.id):
        return FirstSteps((), going=False)
    prospect = await estimate_run(session, tenant, settings=settings)
    newest = max((each.version for each in await adapters.list_for(session, tenant)), default=None)
    steps = (
        Step("Company", f"{tenant.name} is set up.", "done"),
        _transcripts(tenant, prospect, drafts),
        _train(tenant, prospect, working, newest=newest),
        _try(tenant, waiting, live=live, newest=newest),
    )
    first = next((at for at, step in enumerate(steps) if step.state != "done"), None)
    may = viewer.may(tenant.id, "admin")
    return FirstSteps(
        steps=tuple(
            step._replace(
                state="now" if at == first else step.state,
                ways=step.ways if at == first and may else (),
            )
            for at, step in enumerate(steps)
        ),
        going=bool(prospect.unread or working),
    )


def _transcripts(tenant: Tenant, prospect: Prospect, drafts: list[Upload]) -> Step:
    data = address_of_page("Data", tenant)
    count = prospect.conversations
    if not prospect.missing:
        return Step("Transcripts", f"{count:,} conversations are here.", "done")
    if prospect.unread:
        what = "An upload is" if prospect.unread == 1 else f"{prospect.unread} uploads are"
        return Step("Transcripts", f"{what} being read. {READING}", "", (Way("See it", data),))
    if drafts:
        return Step(
            "Transcripts",
            f"{drafts[0].filename} waits until somebody has looked at its columns. A minute.",
            "",
            (Way("Look at the columns", f"{data}/imports/{drafts[0].id}"),),
        )
    bring = Way("Bring transcripts", data)
    if count:
        some = f"{count} {'is' if count == 1 else 'are'} here, {MIN_EXAMPLES} are needed at least."
        return Step("Transcripts", f"{some} {READING}", "", (bring,))
    sample = (
        f"{_enough()}; or begin with the sample, {SAMPLE_CONVERSATIONS} conversations of an "
        f"invented bakery. {READING}"
    )
    load = Way("Load the sample", f"{data}/sample", sends=True, is_main=False)
    return Step("Transcripts", sample, "", (load, bring))


def _train(
    tenant: Tenant,
    prospect: Prospect,
    working: list[Run],
    *,
    newest: int | None,
) -> Step:
    training = address_of_page("Training", tenant)
    if newest is not None:
        return Step("Train", f"{tenant.slug}@{newest} is made.", "done")
    estimate = prospect.recipes[0]
    seconds = estimate.seconds
    if working:
        text = f"A run goes on: {working[0].state.word.lower()}. Its page says how long it still takes."
        return Step("Train", text, "", (Way("Watch it", f"{training}/{working[0].id}"),))
    takes = f"A run takes {about(seconds)}." if seconds else _unmeasured(estimate.recipe)
    text = f"{takes} Nothing goes live by itself that fails its gates."
    return Step("Train", text, "", (Way("New run", f"{training}/new"),))


def _try(tenant: Tenant, waiting: list[Run], *, live: int | None, newest: int | None) -> Step:
    release = address_of_page("Evaluate & release", tenant)
    if live is None and newest is not None:
        why = "waits for approval" if waiting else "is not live"
        return Step(
            "Try",
            f"{tenant.slug}@{newest} {why}: read what was measured of it, and decide. A minute.",
            "",
            (Way(f"Look at {tenant.slug}@{newest}", f"{release}/{newest}"),),
        )
    return Step(
        "Try",
        "Ask it what your customers ask, here or in the widget. An answer takes seconds.",
        "",
        (
            Way("Open the widget", address_of_page("Widget", tenant), is_main=False),
            Way("Ask it", f"{release}/ask"),
        ),
    )


def _enough() -> str:
    return f"Bring {START} or more conversations between your agents and customers"


def _unmeasured(recipe: str) -> str:
    """How long a run takes where none was measured yet: what its recipe allows it."""
    minutes = load_recipe(recipe).train_minutes
    if minutes:
        return f"{minutes:g} minutes of training at most, and then it is measured."
    return "Minutes to hours: a run measures its first batch, and then says how long it takes."
