"""Pictures of the widget in every state: ``python -m tests.browser.widget.screenshots FOLDER [STATE ...]``.

In light, dark and forced colours, 360 and 1440 pixels wide, in English and Arabic.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import chromium_path
from tests.browser.screenshots import SCHEMES, WIDTHS
from tests.browser.widget.conftest import Visitors, running_chat
from tests.browser.widget.states import STATES


def main(folder: Path, names: list[str]) -> None:
    """Write ``STATE-LANGUAGE-SCHEME-WIDTH.png`` of the states with these names, or of all."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        running_chat(Path(home)) as chat,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        visitors = Visitors(browser, chat)
        for state in STATES:
            if names and state.__name__ not in names:
                continue
            for lang in ("en", "ar"):
                for width in WIDTHS:
                    url = chat.page(lang=lang, teaser="Bread not rising? Ask, we answer at once.")
                    widget = visitors(url, width=width)
                    state(widget)
                    for scheme, options in SCHEMES.items():
                        widget.page.emulate_media(color_scheme="light", forced_colors="none")
                        widget.page.emulate_media(**options)
                        path = folder / f"{state.__name__}-{lang}-{scheme}-{width}.png"
                        widget.page.screenshot(path=path)
                        print(path)
                    widget.page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
