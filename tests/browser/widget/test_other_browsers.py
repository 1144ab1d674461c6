"""The visitor's journey in Firefox and in WebKit, which is what Safari is made of."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.other_browsers import BROWSERS, FORGIVEN
from tests.browser.widget.conftest import Chat

pytestmark = pytest.mark.filterwarnings(FORGIVEN)

SECONDS = 30
QUESTION = "Can I skip a week?"
_BUTTON = "return document.querySelector('tenantune-chat')?.shadowRoot.querySelector('section ~ button, dialog ~ button')"
_FRAME = "return document.querySelector('tenantune-chat').shadowRoot.querySelector('iframe')"


@pytest.fixture(params=BROWSERS, scope="module")
def browser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebDriver]:
    with ExitStack() as stack:
        yield stack.enter_context(BROWSERS[request.param](tmp_path_factory.mktemp(request.param)))


def _wait(browser: WebDriver, script: str) -> Any:
    return WebDriverWait(browser, SECONDS).until(lambda _: browser.execute_script(script))


def _open(browser: WebDriver) -> None:
    """Press the page's button, and go into the panel's frame when it is ready."""
    browser.switch_to.default_content()
    _wait(browser, _BUTTON).click()
    browser.switch_to.frame(_wait(browser, _FRAME))
    _wait(
        browser,
        "return document.body && !document.body.hasAttribute('aria-busy') && document.readyState === 'complete'",
    )


def _find(browser: WebDriver, selector: str) -> Any:
    return WebDriverWait(browser, SECONDS).until(
        lambda _: next(
            (
                each
                for each in browser.find_elements(By.CSS_SELECTOR, selector)
                if each.is_displayed()
            ),
            None,
        )
    )


def test_a_visitor_asks_comes_back_and_reaches_a_person(browser: WebDriver, chat: Chat) -> None:
    # WebKit lets a frame of another site have the focus, but not give it to its field, until it was touched
    firefox = browser.capabilities["browserName"] == "firefox"
    focused = "document.activeElement.id === 'field'" if firefox else "document.hasFocus()"
    browser.get(chat.page())
    _open(browser)
    _wait(browser, f"return {focused}")
    field = _find(browser, "#field")
    field.click()
    field.send_keys(QUESTION, Keys.ENTER)
    _find(browser, ".them .after .icon")
    answer = _find(browser, ".them:has(.after) .text").text
    assert answer
    assert browser.execute_script("return document.querySelector('#field').value") == ""
    field.send_keys(Keys.ESCAPE)
    browser.switch_to.default_content()
    _wait(
        browser, "return document.activeElement.shadowRoot?.activeElement?.ariaExpanded === 'false'"
    )
    _open(browser)
    _wait(browser, f"return {focused}")
    browser.switch_to.default_content()
    [key] = browser.execute_script("return Object.keys(localStorage)")
    assert key == f"tenantune:{chat.keys['loaf']}"

    browser.refresh()
    _open(browser)
    assert _find(browser, ".me .text").text == QUESTION
    assert _find(browser, ".them:has(.after) .text").text == answer
    _find(browser, "#to-person").click()
    _find(browser, "#email").click()
    _find(browser, "#email").send_keys("noor@example.com", Keys.ENTER)
    assert "noor@example.com" in _find(browser, ".note.calm").text
    browser.switch_to.default_content()
    assert chat.shop.violations == []
