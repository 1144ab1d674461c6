"""A tenant's colour becomes readable, and stays its own."""

import math
import random

import pytest

from server.conversations import colours
from server.conversations.colours import DARK_SURFACES, LIGHT_SURFACES, contrast, readable, theme


def hue_of(colour: str) -> float:
    return colours._to_oklch(colours._linear(colour)).hue


def test_contrast_is_wcags() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1


def test_oklch_is_ottossons() -> None:
    # his page's sRGB red: L 0.627955, C 0.257683, h 29.2339 degrees
    red = colours._to_oklch(colours._linear("#ff0000"))
    assert (red.lightness, red.chroma) == pytest.approx((0.627955, 0.257683), abs=1e-4)
    assert math.degrees(red.hue) == pytest.approx(29.2339, abs=0.01)


def test_any_colour_is_readable_in_both_schemes_with_text_upon_it() -> None:
    chance = random.Random(7)
    given = [f"#{chance.randrange(1 << 24):06x}" for _ in range(300)]
    for accent in [*given, "#ffffff", "#000000", "#ffff00", "#0000ff", "#808080"]:
        made = theme(accent)
        for shade, surfaces in ((made.light, LIGHT_SURFACES), (made.dark, DARK_SURFACES)):
            assert all(contrast(shade.colour, surface) >= 4.5 for surface in surfaces), accent
            assert contrast(shade.on, shade.colour) >= 4.5, accent
            assert shade.changed == (shade.colour != accent)


def test_what_is_readable_is_left_alone() -> None:
    made = theme("#9A3D12")
    assert (made.given, made.light.colour, made.light.changed) == ("#9a3d12", "#9a3d12", False)
    assert made.light.on == "#ffffff"
    assert made.dark.changed


@pytest.mark.parametrize("accent", ["#ff8800", "#22cc66", "#3399ff", "#cc33cc"])
def test_only_as_much_is_changed_as_is_needed_and_the_hue_stays(accent: str) -> None:
    darker = readable(accent, LIGHT_SURFACES, lighter=False)
    worst = min(contrast(darker, surface) for surface in LIGHT_SURFACES)
    assert 4.5 <= worst < 4.75
    turn = abs(math.degrees(hue_of(darker) - hue_of(accent)))
    assert min(turn, 360 - turn) < 3


@pytest.mark.parametrize("text", ["", "red", "#12345", "#1234567", "#12345g", "url(x)"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no colour"):
        theme(text)
