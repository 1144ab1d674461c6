"""How much a page loads."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page

import server
from tests.browser.conftest import Visits
from tests.browser.pages import PAGES, Look

PANEL = {path.name for path in (Path(server.__path__[0]) / "web/widget/static").iterdir()}
MOST_BYTES = 40 * 1024  # of a first load without a curve, as sent


# one look of each page: what a page says when it is asked otherwise weighs the same
EACH_PAGE = {urlsplit(look.path).path: look for look in reversed(PAGES)}.values()


@pytest.mark.parametrize("look", EACH_PAGE, ids=lambda look: look.name)
def test_a_first_load_is_small(visit: Visits, look: Look) -> None:
    page = visit("/console/nothing", look.who, status=404)
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    loaded = _bytes(page, look.path)
    cached = {url.rpartition("/")[2] for url, size in loaded.items() if not size}
    assert cached <= {"favicon.svg"}, loaded  # which a browser loads when it likes
    names = {url.rpartition("/")[2] for url in loaded}
    if "uplot.min.js" not in names:
        own = [size for url, size in loaded.items() if not _of_the_panel(url)]
        assert sum(own) <= MOST_BYTES, loaded


def test_a_second_page_loads_itself_alone(visit: Visits) -> None:
    page = visit("/console", "operator")
    loaded = _bytes(page, "/console/t/loaf")
    assert sum(loaded.values()) < 6 * 1024, loaded
    assert len([url for url, size in loaded.items() if size]) == 1, loaded


def _of_the_panel(url: str) -> bool:
    """Whether the widget's panel loads this, in the frame of its preview; it has a bar of its own."""
    path = urlsplit(url).path
    parts = ("/widget/preview", "/widget/preview.css")
    return path.startswith("/widget/") or path.endswith(parts) or path.rpartition("/")[2] in PANEL


def _bytes(page: Page, path: str) -> dict[str, int]:
    """What each file of a page has cost on the network, by address; 0 from the cache."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    addresses: dict[str, str] = {}
    sizes: dict[str, int] = {}
    session.on(
        "Network.requestWillBeSent",
        lambda event: addresses.update({event["requestId"]: event["request"]["url"]}),
    )
    session.on(
        "Network.loadingFinished",
        lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}),
    )
    page.goto(path)
    page.wait_for_load_state("networkidle")
    session.detach()
    # what is not known by address was asked for by the page before
    return {addresses[key]: int(size) for key, size in sizes.items() if key in addresses}
