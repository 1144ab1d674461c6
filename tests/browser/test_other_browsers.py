"""The console's main pages in Firefox and in WebKit: they come, their scripts run, nothing complains."""

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.other_browsers import BROWSERS, FORGIVEN, LOG
from tests.browser.pages import TALKS, TRAINING
from tests.browser.seed import run_id, talk_id
from tests.browser.site import Site
from tests.browser.test_signing_in import PASSWORD, link_of

pytestmark = pytest.mark.filterwarnings(FORGIVEN)

SECONDS = 30
# what a script does to each page, and what it draws on this one
LOCAL_TIMES = "return [...document.querySelectorAll('main time')].every((each) => each.title)"
CURVE = "return document.querySelector('#curve canvas')?.width > 0"
OPENED = "return document.querySelector('#talk-title')?.textContent"
_COMPLAINTS = ("error", "refused", "violation", "blocked", "warn")


def wait(browser: WebDriver, script: str) -> Any:
    """Wait for a script to return something that holds."""
    return WebDriverWait(browser, SECONDS).until(lambda _: browser.execute_script(script))


def press(browser: WebDriver, selector: str) -> None:
    """Click what a selector finds."""
    browser.find_element(By.CSS_SELECTOR, selector).click()


@pytest.mark.parametrize("name", BROWSERS)
def test_the_main_pages_come_and_their_scripts_run(name: str, site: Site, tmp_path: Path) -> None:
    with BROWSERS[name](tmp_path) as browser:
        browser.set_window_size(1280, 900)
        browser.get(site.url + link_of(site, f"{name}@example.com"))
        browser.find_element(By.ID, "password").send_keys(PASSWORD)
        press(browser, "button.main")
        wait(browser, "return document.querySelector('h1')?.textContent === 'Tenants'")
        for page, title in (
            ("/console/t/loaf/data", "Data"),
            (f"{TRAINING}/{run_id(5)}", "Run of"),
            ("/console/t/loaf/release", "Evaluate"),
            (TALKS, "Conversations"),
        ):
            browser.get(site.url + page)
            wait(browser, f"return document.querySelector('h1')?.textContent.startsWith('{title}')")
            wait(browser, LOCAL_TIMES)
            if title == "Run of":
                wait(browser, CURVE)
            browser.save_screenshot(str(tmp_path / f"{title}.png"))
        press(browser, f"[data-talk][href*='{talk_id(2)}']")
        wait(browser, OPENED)
        browser.save_screenshot(str(tmp_path / "a conversation.png"))
    log = (tmp_path / LOG).read_text("utf-8", "replace")
    said = [line for line in log.splitlines() if site.url in line or "console" in line.lower()]
    assert not [line for line in said if any(each in line.lower() for each in _COMPLAINTS)], log
