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
from tests.browser.widget.states import STATES, answered, closed, unread, writing

every_state = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
State = Callable[[Widget], None]


@every_state
def test_a_state_is_accessible_and_fits(chat: Chat, visitor: Visitors, state: State) -> None:
    """At each width in turn, as for who turns a phone; last with text of twice the size."""
    widget = visitor(chat.page(teaser="Bread not rising? Ask, we answer at once."), width=1440)
    state(widget)
    places: list[Page | Frame] = [widget.page]
    if state not in (closed, unread):
        places.append(widget.frame)
    faults = []
    for width, scheme in ((1440, "light"), (1440, "dark"), (360, "dark"), (360, "light")):
        widget.page.set_viewport_size({"width": width, "height": 800})
        widget.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of two words
        for place in places:
            found = [*accessibility_faults(place), *sideways(place), *small_targets(place)]
            faults += [f"{width} {scheme}: {fault}" for fault in found]
    widget.page.set_viewport_size({"width": 320, "height": 800})
    faults += [f"320: {fault}" for place in places for fault in sideways(place)]
    if state not in (closed, unread):
        widget.frame.evaluate("document.documentElement.style.fontSize = '200%'")
        faults += [f"320, 200 %: {fault}" for place in places for fault in sideways(place)]
    assert not faults, "\n".join(faults)


def test_nothing_moves_for_who_wants_less_motion(chat: Chat, visitor: Visitors) -> None:
    moving = "document.getAnimations().filter((each) => each.playState === 'running').length"
    for motion, least in (("no-preference", 1), ("reduce", 0)):
        widget = visitor(chat.page(), reduced_motion=motion)
        writing(widget)
        assert widget.frame.evaluate(moving) >= least
        assert (widget.frame.evaluate(moving) == 0) == (motion == "reduce")


def test_with_forced_colours_what_is_filled_has_an_edge(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page(), forced_colors="active")
    answered(widget)
    edges = """(names) => names.filter((name) => {
      const { borderTopWidth, borderTopStyle } = getComputedStyle(document.querySelector(name));
      return borderTopStyle === "none" || parseFloat(borderTopWidth) < 1;
    })"""
    assert widget.frame.evaluate(edges, [".me .text", ".them .text", ".face", "#send"]) == []
    colours = """() => ["#send", "#field"].map((name) => getComputedStyle(document.querySelector(name)).color)"""
    disabled, written = widget.frame.evaluate(colours)
    assert disabled != written
    # a browser draws its own ground behind the digit, so it must be the ground that the badge has
    widget.page.evaluate("Tenantune.close()")
    ground = """(badge) => {
      badge.style.background = "CanvasText";
      const text = getComputedStyle(badge).backgroundColor;
      badge.style.background = "";
      return [getComputedStyle(badge).backgroundColor !== text, getComputedStyle(badge).color === text];
    }"""
    assert widget.page.locator("tenantune-chat b").evaluate(ground) == [True, True]


@every_state
def test_targets_are_44_pixels_where_the_pointer_is_a_finger(
    chat: Chat, visitor: Visitors, state: State
) -> None:
    url = chat.page(teaser="Bread not rising?")
    widget = visitor(url, width=360, has_touch=True, is_mobile=True)
    state(widget)
    place = widget.page if state in (closed, unread) else widget.frame
    assert not small_for_a_finger(place)
