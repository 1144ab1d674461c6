"""What the console consists of: one line a page, shown to those who may open it."""

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.conversations import inbox
from server.db.models import Tenant
from server.heads import service as heads
from server.jobs import service as jobs
from server.knowledge import service as knowledge
from server.tenants import service as tenants
from server.transcripts import uploads

SWITCHER_MOST = 30  # tenants that the switcher lists; the page of all tenants has the others


class Count(NamedTuple):
    """A number beside a page's name. ``going``: it is of work in progress, not of work to be done."""

    number: int
    word: str
    going: bool = False


class Page(NamedTuple):
    """A page of the navigation.

    ``role`` is the least that may open it; ``waits`` counts what waits there, in a tenant.
    """

    name: str
    icon: str
    path: str
    role: Literal["viewer", "reviewer", "admin", "operator"]
    waits: Callable[[AsyncSession, str], Awaitable[Count]] | None = None


class Item(NamedTuple):
    """A page as the navigation shows it; ``counts``: a number may stand beside its name."""

    name: str
    icon: str
    href: str
    current: str  # of aria-current: "page", "true" for a page below it, or nothing
    counts: bool = False
    number: int = 0
    word: str = ""
    going: bool = False


class Section(NamedTuple):
    """Items under a title."""

    title: str
    items: list[Item]


class Choice(NamedTuple):
    """A tenant in the switcher."""

    slug: str
    name: str
    live: str


class Shell(NamedTuple):
    """What surrounds a page's content."""

    nav: tuple[Section, ...] = ()
    tenants: tuple[Choice, ...] = ()
    role: str = ""
    live: str = ""
    here: str = ""
    attention: str = ""


async def _runs_going_on(session: AsyncSession, tenant_id: str) -> Count:
    states = await jobs.count_by_state(session, tenant_id)
    return Count(sum(states.get(state, 0) for state in jobs.WORKING), "running", going=True)


async def _need_a_person(session: AsyncSession, tenant_id: str) -> Count:
    number = await inbox.count_waiting(session, tenant_id)
    return Count(number, "needs a person" if number == 1 else "need a person")


async def _uploads_going_on(session: AsyncSession, tenant_id: str) -> Count:
    states = await uploads.count_unfinished(session, tenant_id)
    if states.get("draft"):
        return Count(states["draft"], "to be checked")
    return Count(sum(states.values()), "being read", going=True)


async def _articles_going_on(session: AsyncSession, tenant_id: str) -> Count:
    number = await knowledge.count_unfinished(session, tenant_id)
    return Count(number, "being read", going=True)


async def _heads_going_on(session: AsyncSession, tenant_id: str) -> Count:
    number = await heads.count_unfinished(session, tenant_id)
    return Count(number, "being trained", going=True)


async def _waiting(session: AsyncSession, tenant_id: str) -> Count:
    states = await jobs.count_by_state(session, tenant_id)
    return Count(states.get("awaiting_approval", 0), "awaiting approval")


TENANT_PAGES = (
    Page("Home", "home", "/console/t/{slug}", "viewer"),
    Page("Data", "data", "/console/t/{slug}/data", "viewer", _uploads_going_on),
    Page("Knowledge", "book", "/console/t/{slug}/knowledge", "viewer", _articles_going_on),
    Page("Training", "train", "/console/t/{slug}/training", "viewer", _runs_going_on),
    Page("Evaluate & release", "release", "/console/t/{slug}/release", "viewer", _waiting),
    Page("Heads", "tag", "/console/t/{slug}/heads", "viewer", _heads_going_on),
    Page("Conversations", "chat", "/console/t/{slug}/conversations", "viewer", _need_a_person),
)
SETUP_PAGES: tuple[Page, ...] = (
    Page("Widget", "widget", "/console/t/{slug}/widget", "admin"),
    Page("API keys", "key", "/console/t/{slug}/keys", "admin"),
    Page("Webhooks", "hook", "/console/t/{slug}/webhooks", "admin"),
    Page("Usage & limits", "use", "/console/t/{slug}/usage", "viewer"),
    Page("Audit log", "log", "/console/t/{slug}/audit", "admin"),
)
OPERATOR_PAGES = (
    Page("Tenants", "tenants", "/console", "operator"),
    Page("People", "people", "/console/people", "operator"),
    Page("Operator keys", "key", "/console/keys", "operator"),
    Page("Usage", "use", "/console/usage", "operator"),
    Page("Engine & workers", "engine", "/console/engine", "operator"),
    Page("Audit log", "log", "/console/audit", "operator"),
)

_ROLE_NAMES = {"viewer": "Viewer", "reviewer": "Reviewer", "admin": "Tenant admin"}


def address_of_page(name: str, tenant: Tenant) -> str:
    """Where a tenant's page of this name is; empty where there is none."""
    for page in (*TENANT_PAGES, *SETUP_PAGES):
        if page.name == name:
            return page.path.format(slug=tenant.slug)
    return ""


async def load_shell(
    session: AsyncSession,
    viewer: Viewer,
    tenant: Tenant | None,
    *,
    path: str,
) -> Shell:
    """What surrounds a page: which pages and tenants its viewer may go to, and what waits there."""
    visible = await tenants.list_for(
        session,
        None if viewer.is_operator else list(viewer.roles),
        limit=SWITCHER_MOST,
    )
    choices = tuple(
        Choice(
            view.slug, view.name, f"{view.slug}@{view.live_version}" if view.live_version else ""
        )
        for view in await tenants.views(session, visible)
    )
    live = next((choice.live for choice in choices if tenant and choice.slug == tenant.slug), "")
    sections = [
        Section(title, await _items(session, pages, viewer, tenant, path))
        for title, pages in (
            ("", TENANT_PAGES if tenant else ()),
            ("Set-up", SETUP_PAGES if tenant else ()),
            ("Installation" if tenant else "", OPERATOR_PAGES),
        )
    ]
    nav = tuple(section for section in sections if section.items)
    items = [item for section in nav for item in section.items]
    role = "Operator" if viewer.is_operator else ""
    if not role and tenant is not None:
        role = _ROLE_NAMES[viewer.roles[tenant.id]]
    return Shell(
        nav=nav,
        tenants=choices,
        role=role or "Signed in",
        live=f"live: {live}" if live else "the base answers" if tenant else "",
        here=next((item.name for item in items if item.current), ""),
        attention=", ".join(f"{item.number} {item.word}" for item in items if item.number),
    )


async def _items(
    session: AsyncSession,
    pages: tuple[Page, ...],
    viewer: Viewer,
    tenant: Tenant | None,
    path: str,
) -> list[Item]:
    found = []
    for page in pages:
        if page.role == "operator":
            if not viewer.is_operator:
                continue
        elif tenant is None or not viewer.may(tenant.id, page.role):
            continue
        href = page.path.format(slug=tenant.slug if tenant else "")
        count = Count(0, "")
        if page.waits is not None and tenant is not None:
            count = await page.waits(session, tenant.id)
        current = _current(page, href, path)
        found.append(Item(page.name, page.icon, href, current, page.waits is not None, *count))
    return found


def _current(page: Page, href: str, path: str) -> str:
    if path.rstrip("/") == href:
        return "page"
    # home is above every page of its tenant: only itself is current there
    is_above = path.startswith(f"{href}/") and page not in (TENANT_PAGES[0], OPERATOR_PAGES[0])
    return "true" if is_above else ""
