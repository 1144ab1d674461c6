"""Browsers at a server that runs. Everything here ends with this folder's tests.

Playwright's synchronous interface keeps an event loop in the thread that it was started in, so it may
not outlive them: asynchronous tests of other folders run in the same thread.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.checks import absent
from tests.browser.gallery import GalleryController, add_templates
from tests.browser.seed import fill
from tests.browser.site import Site, running_site
from tests.browser.watch import Watch

HERE = "tests/browser"
PATIENCE_MS = 30_000  # a busy machine takes its time; what is there already costs none
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if f"{HERE}/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


def chromium_path() -> str | None:
    """Where the system's Chromium is: at best its headless shell, which takes a third of the CPU."""
    names = (
        "chromium-headless-shell",
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    )
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        absent("Chromium", "`make browsers` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two tenants: ``loaf``, where much has happened, and ``northgate``, a new one."""
    add_templates()
    with running_site(tmp_path_factory.mktemp("site"), GalleryController) as made:
        fill(made)
        yield made


class Visits:
    """Opens pages, each in a browser context of its own, and remembers what was wrong with them."""

    def __init__(self, chromium: Browser, site: Site) -> None:
        self._chromium = chromium
        self._site = site
        self._opened: list[tuple[BrowserContext, Watch]] = []

    def __call__(
        self, path: str, who: str = "", *, width: int = 1440, status: int = 200, **options: Any
    ) -> Page:
        """Open a page of the site: ``visit("/console", "operator", color_scheme="dark")``.

        ``who`` is signed in, as in ``Site.sign_in``; nobody by default. ``status`` is what the page
        must answer. ``options`` are Playwright's, of a new context.
        """
        options.setdefault("viewport", {"width": width, "height": 900})
        context = self._chromium.new_context(base_url=self._site.url, locale="en-GB", **options)
        self._opened.append((context, Watch(context, allowed=[self._site.url])))
        if who:
            cookie = {"name": "tt", "value": self._site.sign_in(who), "url": self._site.url}
            context.add_cookies([cookie])  # type: ignore[list-item]
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        response = page.goto(path)
        assert response is not None
        assert response.status == status, f"{path}: {response.status}, {page.title()}"
        return page

    @property
    def faults(self) -> list[str]:
        """What was wrong with all pages so far: see ``Watch``."""
        return [fault for _, watch in self._opened for fault in watch.faults]

    def forgive(self) -> None:
        """Forget the faults, in a test that expects them."""
        for _, watch in self._opened:
            watch.faults.clear()

    def close(self) -> None:
        """Close every context."""
        for context, _ in self._opened:
            context.close()


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Visits]:
    """Opens pages; after the test nothing may be wrong with any of them."""
    visits = Visits(chromium, site)
    yield visits
    visits.close()
    assert not visits.faults, "\n".join(visits.faults)
