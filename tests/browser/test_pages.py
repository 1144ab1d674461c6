"""What holds for every page of the console: looked at once, in every way that matters."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page

import server
from tests.browser.checks import (
    WIDTHS,
    accessibility_faults,
    sideways,
    small_for_a_finger,
    small_targets,
)
from tests.browser.conftest import Visits
from tests.browser.pages import PAGES, Look

MOST_BYTES = 40 * 1024  # of a first load without a curve, as sent
MOST_BYTES_AGAIN = 6 * 1024  # of a page after another, whose styles and scripts are there
CURVE = "uplot.min.js"
PANEL = {path.name for path in (Path(server.__path__[0]) / "web/widget/static").iterdir()}

# What the page and its files took on the network, with an estimate of their headers: Resource Timing's
# transferSize, 0 from the cache. What the frame of a preview loads is not the page's.
_LOADED = """() => ["navigation", "resource"].flatMap((type) => performance.getEntriesByType(type))
  .map((entry) => [entry.name, entry.transferSize])"""


@pytest.mark.parametrize("look", PAGES, ids=lambda look: look.name)
def test_a_page_is_accessible_and_fits_and_is_small(visit: Visits, look: Look) -> None:
    page = visit(look.path, look.who, status=look.status)
    faults = _too_heavy(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        faults += [f"{width}: sideways: {fault}" for fault in sideways(page)]
        faults += [f"{width}: small: {fault}" for fault in small_targets(page)]
        for scheme in ("light", "dark") if width != 320 else ():
            page.emulate_media(color_scheme=scheme)
            found = accessibility_faults(page, colours_alone=scheme == "dark")
            faults += [f"{width}, {scheme}: {fault}" for fault in found]
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    faults += [f"text of twice the size: {fault}" for fault in sideways(page)]
    page.evaluate("document.documentElement.style.fontSize = ''")
    _point_with_a_finger(page)
    faults += [f"small for a finger: {fault}" for fault in small_for_a_finger(page)]
    assert not faults, "\n".join(faults)


def test_a_second_page_loads_itself_alone(visit: Visits) -> None:
    page = visit("/console", "operator")
    page.goto("/console/t/loaf")
    page.wait_for_load_state("load")
    loaded = _loaded(page)
    assert sum(loaded.values()) < MOST_BYTES_AGAIN, loaded
    assert len([url for url, size in loaded.items() if size]) == 1, loaded


def _too_heavy(page: Page) -> list[str]:
    page.wait_for_load_state("load")
    loaded = _loaded(page)
    own = {url: size for url, size in loaded.items() if not _of_the_panel(url)}
    if any(url.endswith(CURVE) for url in own) or sum(own.values()) <= MOST_BYTES:
        return []
    return [f"{sum(own.values()):,} bytes: {own}"]


def _loaded(page: Page) -> dict[str, int]:
    return dict(page.evaluate(_LOADED))


def _of_the_panel(url: str) -> bool:
    """Whether the widget's panel loads this, in the frame of its preview; it has a bar of its own."""
    path = urlsplit(url).path
    parts = ("/widget/preview", "/widget/preview.css")
    return path.startswith("/widget/") or path.endswith(parts) or path.rpartition("/")[2] in PANEL


def _point_with_a_finger(page: Page) -> None:
    """Make the device a phone: a narrow screen and a coarse pointer."""
    page.set_viewport_size({"width": 360, "height": 900})
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 1})
    assert page.evaluate("matchMedia('(pointer: coarse)').matches")
