"""The console's main pages in Firefox and in WebKit: they come, their scripts run, nothing complains."""

from pathlib import Path
from typing import Any

import pytest
from litestar import Controller, get
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from server.web.console import rendering
from tests.browser.other_browsers import BROWSERS, FORGIVEN
from tests.browser.pages import DATA, RELEASE, TALKS, TRAINING
from tests.browser.seed import run_id, talk_id
from tests.browser.site import Site
from tests.browser.test_signing_in import PASSWORD, link_of

pytestmark = pytest.mark.filterwarnings(FORGIVEN)

SECONDS = 30
# neither driver tells what a page says on its console: a script before all others of a page keeps it
_WATCH = """
let leaving = false; // a request that is broken off by going on is no fault
addEventListener("beforeunload", () => (leaving = true));
const tell = (text) => leaving || sessionStorage.setItem("faults", `${sessionStorage.getItem("faults") ?? ""}${location.pathname}: ${text}\\n`);
addEventListener("error", (event) => tell(event.message ?? `no ${event.target.src ?? event.target.href}`), true);
addEventListener("unhandledrejection", (event) => tell(event.reason));
addEventListener("securitypolicyviolation", (event) => tell(`policy: ${event.effectiveDirective} ${event.blockedURI}`));
console.error = (...words) => tell(words.join(" "));
"""
_LOCAL_TIMES = "return [...document.querySelectorAll('main time')].every((each) => each.title)"
_CURVE = """
const canvas = document.querySelector("#curve canvas");
return canvas?.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((part) => part);
"""
_SHOWN = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
_OPENED = "return document.querySelector('#talk-title')?.textContent"


class _Watch(Controller):
    """Serves the script."""

    path = "/watch.js"
    include_in_schema = False

    @get(media_type="text/javascript")
    async def script(self) -> str:
        return _WATCH


@pytest.fixture
def watched(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, whose pages keep what goes wrong with them in the browser's session."""
    if "/watch.js" not in site.app.route_handler_method_map:
        site.app.register(_Watch)
    make = rendering.html
    monkeypatch.setattr(
        rendering,
        "html",
        lambda request, content, **more: make(
            request, content.replace("<head>", '<head><script src="/watch.js"></script>'), **more
        ),
    )
    return site


def wait(browser: WebDriver, script: str) -> Any:
    """Wait for a script to return something that holds."""
    return WebDriverWait(browser, SECONDS).until(lambda _: browser.execute_script(script))


def press(browser: WebDriver, selector: str) -> None:
    """Click what a selector finds."""
    browser.find_element(By.CSS_SELECTOR, selector).click()


def picture(browser: WebDriver, path: Path) -> None:
    """Take a picture of the page as it is now."""
    browser.execute_async_script(_SHOWN)
    browser.save_screenshot(str(path))


def faults(browser: WebDriver) -> str:
    """What went wrong so far, a line each."""
    found: str = browser.execute_script("return sessionStorage.getItem('faults') ?? ''")
    return found


@pytest.mark.parametrize("name", BROWSERS)
def test_the_main_pages_come_and_their_scripts_run(
    name: str, watched: Site, tmp_path: Path
) -> None:
    with BROWSERS[name](tmp_path) as browser:
        browser.set_window_size(1280, 900)
        browser.get(watched.url + link_of(watched, f"{name}@example.com"))
        browser.find_element(By.ID, "password").send_keys(PASSWORD)
        press(browser, "button.main")
        wait(browser, "return document.querySelector('h1')?.textContent === 'Tenants'")
        for page, title in (
            (DATA, "Data"),
            (f"{TRAINING}/{run_id(5)}", "Run of"),
            (RELEASE, "Evaluate"),
            (TALKS, "Conversations"),
        ):
            browser.get(watched.url + page)
            wait(browser, f"return document.querySelector('h1')?.textContent.startsWith('{title}')")
            wait(browser, _LOCAL_TIMES)
            if title == "Run of":
                wait(browser, _CURVE)
            picture(browser, tmp_path / f"{title}.png")
        press(browser, f"[data-talk][href*='{talk_id(2)}']")
        wait(browser, _OPENED)
        picture(browser, tmp_path / "a conversation.png")
        assert not faults(browser)
        # and they would have been noticed
        browser.execute_script("document.body.setAttribute('style', 'color: red')")
        browser.execute_script("document.body.append(document.createElement('script'))")
        browser.execute_script("document.body.lastChild.src = '/static/nothing.js'")
        wait(browser, "return sessionStorage.getItem('faults')?.includes('policy: style-src')")
        wait(browser, "return sessionStorage.getItem('faults')?.includes('nothing.js')")
