"""Pictures of every page, to look at: ``python -m tests.browser.screenshots FOLDER [NAME ...]``.

In light, dark and forced colours, 360 and 1440 pixels wide.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.conftest import Visits, chromium_path
from tests.browser.gallery import GalleryController, add_templates
from tests.browser.pages import PAGES
from tests.browser.seed import fill
from tests.browser.site import running_site

SCHEMES: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "forced": {"forced_colors": "active", "color_scheme": "dark"},
}
WIDTHS = (360, 1440)


def main(folder: Path, names: list[str]) -> None:
    """Write ``NAME-SCHEME-WIDTH.png`` of the pages with these names, or of all."""
    folder.mkdir(parents=True, exist_ok=True)
    add_templates()
    with (
        tempfile.TemporaryDirectory() as home,
        running_site(Path(home), GalleryController) as site,
        sync_playwright() as playwright,
    ):
        fill(site)
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        visits = Visits(browser, site)
        for look in PAGES:
            if names and look.name not in names:
                continue
            page = visits(look.path, look.who, status=look.status)
            for scheme, options in SCHEMES.items():
                page.emulate_media(color_scheme="light", forced_colors="none")
                page.emulate_media(**options)
                for width in WIDTHS:
                    page.set_viewport_size({"width": width, "height": 900})
                    path = folder / f"{look.name}-{scheme}-{width}.png"
                    page.screenshot(path=path, full_page=True)
                    print(path)
        visits.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
