"""What holds for the widget in every state."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Frame, Page

from tests.browser.checks import (
    accessibility_faults,
    sideways,
    small_for_a_finger,
    small_targets,
)
from tests.browser.widget.conftest import Chat, Visitors, Widget
from tests.browser.widget.states import STATES, closed, unread

every_state = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
State = Callable[[Widget], None]


@every_state
@pytest.mark.parametrize("width", [360, 1440])
def test_a_state_is_accessible_and_fits(
    chat: Chat, visitor: Visitors, state: State, width: int
) -> None:
    widget = visitor(chat.page(teaser="Bread not rising? Ask, we answer at once."), width=width)
    state(widget)
    places: list[Page | Frame] = [widget.page]
    if state not in (closed, unread):
        places.append(widget.frame)
    faults = []
    for scheme in ("light", "dark"):
        widget.page.emulate_media(color_scheme=scheme)
        for place in places:
            faults += [f"{scheme}: {fault}" for fault in accessibility_faults(place)]
            faults += [f"sideways: {fault}" for fault in sideways(place)]
            faults += [f"small: {fault}" for fault in small_targets(place)]
    assert not faults, "\n".join(faults)


@every_state
def test_a_state_fits_320_pixels_with_text_of_twice_the_size(
    chat: Chat, visitor: Visitors, state: State
) -> None:
    widget = visitor(chat.page(), width=320)
    state(widget)
    if state not in (closed, unread):
        assert not sideways(widget.frame)
        widget.frame.evaluate("document.documentElement.style.fontSize = '200%'")
        assert not sideways(widget.frame)
    assert not sideways(widget.page)


@every_state
def test_targets_are_44_pixels_where_the_pointer_is_a_finger(
    chat: Chat, visitor: Visitors, state: State
) -> None:
    url = chat.page(teaser="Bread not rising?")
    widget = visitor(url, width=360, has_touch=True, is_mobile=True)
    state(widget)
    place = widget.page if state in (closed, unread) else widget.frame
    assert not small_for_a_finger(place)
