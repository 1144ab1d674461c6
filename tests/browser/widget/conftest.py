"""Two tenants with widgets, and a shop's pages that carry them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, FrameLocator, Page
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import widgets
from server.conversations.schemas import WidgetPatch
from server.schemas import WidgetBudgets
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from server.webhooks.vault import Vault
from tests.browser.conftest import PATIENCE_MS
from tests.browser.site import Site, running_site
from tests.browser.watch import Watch
from tests.browser.widget.shop import Shop, running_shop

GREETING = "Hello friend! What can I do for you?"
SUGGESTIONS = ("Where is my order?", "Skip a week")
PLENTY = WidgetBudgets(  # all visitors here have one address
    address_sessions_per_minute=10_000,
    address_messages_per_minute=10_000,
    address_handoffs_per_day=10_000,
)
WORDS, TOKENS_PER_SECOND = 30, 60.0  # an answer takes half a second


@dataclass
class Chat:
    """A server with widgets: ``keys`` by tenant."""

    site: Site
    shop: Shop
    keys: dict[str, str]

    def page(self, slug: str = "loaf", **data: str) -> str:
        """The address of a shop's page with a widget."""
        data.setdefault("label", "Questions?")
        return self.shop.write(self.shop.tag(self.keys[slug], **data))

    def change(self, slug: str, **fields: Any) -> None:
        """Change a widget's settings."""
        self.site.write(lambda session: widgets.update(session, slug, WidgetPatch(**fields)))


@contextmanager
def running_chat(home: Path) -> Iterator[Chat]:
    """Run a server with two widgets, and the shop."""
    with (
        running_site(home, words=WORDS, tokens_per_second=TOKENS_PER_SECOND) as site,
        running_shop(site.url) as shop,
    ):
        vault = Vault(site.settings)
        site.run(vault.open(site.database))

        async def make(session: AsyncSession) -> dict[str, str]:
            names = {"loaf": "Lumen & Loaf", "northgate": "Northgate Parcel Logistics"}
            keys = {}
            for slug, name in names.items():
                await tenants.create(session, TenantRequest(slug=slug, name=name))
                await session.flush()
                keys[slug] = (await widgets.enable(session, slug, vault=vault)).public_key
            return keys

        made = Chat(site, shop, site.write(make))
        for slug in made.keys:
            made.change(
                slug,
                greeting=GREETING,
                suggestions=SUGGESTIONS,
                handoff_expected="Usually within 2 hours",
                handoff_hours="until 18:00",
                budgets=PLENTY,
            )
        yield made


@pytest.fixture(scope="package")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with running_chat(tmp_path_factory.mktemp("chat")) as made:
        yield made


class Widget:
    """The widget on a page, as its visitor uses it."""

    def __init__(self, page: Page, label: str = "Questions?") -> None:
        self.page = page
        self.button = page.locator("tenantune-chat").get_by_role("button").filter(has_text=label)
        self.panel: FrameLocator = page.frame_locator("tenantune-chat iframe")
        self.field = self.panel.locator("#field")
        self.log = self.panel.locator("#log")

    @property
    def frame(self) -> Frame:
        """The panel's frame."""
        for _ in range(100):
            for frame in self.page.frames:
                if "/panel?" in frame.url:
                    frame.locator("body[data-greeting]:not([aria-busy])").wait_for(state="attached")
                    return frame
            self.page.wait_for_timeout(20)  # Playwright hears of its new process a moment later
        raise AssertionError("the panel has no frame")

    def open(self) -> "Widget":
        """Press the button, and wait until the panel has its session."""
        self.button.click()
        self.panel.locator("body[data-greeting]:not([aria-busy])").wait_for()
        return self

    def ask(self, text: str) -> None:
        """Send a message by keyboard, and wait for the answer."""
        answers = self.panel.locator(".them .after")
        before = answers.count()
        self.say(text)
        answers.nth(before).wait_for()

    def say(self, text: str) -> None:
        """Send a message by keyboard."""
        self.field.fill(text)
        self.field.press("Enter")


def until(page: Page | Frame, condition: str) -> None:
    """Wait for an expression to hold. Playwright's own way needs ``eval``, which the policies forbid."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"does not come true: {condition}")


class Visitors:
    """Opens the shop's pages, each visitor with a browser context of their own."""

    def __init__(self, chromium: Browser, chat: Chat) -> None:
        self._chromium = chromium
        self._chat = chat
        self.opened: list[tuple[BrowserContext, Watch]] = []

    def __call__(self, url: str, *, width: int = 1440, script: str = "", **options: Any) -> Widget:
        """Go to a page. ``script`` runs before any of it; ``options`` are Playwright's."""
        options.setdefault("viewport", {"width": width, "height": 900 if width > 480 else 740})
        context = self._chromium.new_context(locale="en-GB", **options)
        allowed = [self._chat.site.url, self._chat.shop.url]
        self.opened.append((context, Watch(context, allowed=allowed)))
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.locator("tenantune-chat").first.wait_for(state="attached")
        return Widget(page)

    @property
    def faults(self) -> list[str]:
        return [fault for _, watch in self.opened for fault in watch.faults]

    def forgive(self, part: str) -> None:
        """Forget the faults that hold this text, in a test that expects them."""
        for _, watch in self.opened:
            assert any(part in fault for fault in watch.faults), watch.faults
            watch.faults[:] = [fault for fault in watch.faults if part not in fault]


@pytest.fixture
def visitor(chromium: Browser, chat: Chat) -> Iterator[Visitors]:
    """Opens pages as a visitor; after the test nothing may be wrong with any of them."""
    visitors = Visitors(chromium, chat)
    yield visitors
    for context, _ in visitors.opened:
        context.close()
    assert not visitors.faults, "\n".join(visitors.faults)
