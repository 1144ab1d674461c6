"""What holds for every page of the console."""

import pytest

from tests.browser.checks import (
    WIDTHS,
    accessibility_faults,
    sideways,
    small_for_a_finger,
    small_targets,
)
from tests.browser.conftest import Visits
from tests.browser.pages import PAGES, Look

every_page = pytest.mark.parametrize("look", PAGES, ids=lambda look: look.name)


@every_page
def test_a_page_is_accessible_and_fits(visit: Visits, look: Look) -> None:
    page = visit(look.path, look.who, status=look.status)
    faults = []
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
    assert not faults, "\n".join(faults)


@every_page
def test_targets_are_44_pixels_where_the_pointer_is_a_finger(visit: Visits, look: Look) -> None:
    page = visit(look.path, look.who, status=look.status, width=360, has_touch=True, is_mobile=True)
    assert not small_for_a_finger(page)
