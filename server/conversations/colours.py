"""A tenant's colour, made readable: lighter or darker in OKLCH until it has 4.5:1, its hue kept.

Contrast is that of WCAG 2.2 (1.4.3). OKLCH and its matrices are Björn Ottosson's
(https://bottosson.github.io/posts/oklab/); in it a change of lightness leaves the hue as people see it.
"""

import math
import re
from typing import NamedTuple

import msgspec

MIN_CONTRAST = 4.5  # WCAG 2.2 AA, text
# what the panel draws text and links on (``server/web/widget/static/panel.css``)
LIGHT_SURFACES = ("#ffffff", "#f4f2ee")
DARK_SURFACES = ("#1a1c19", "#262824")
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_ROUNDING = 1e-6
_STEP = 0.005  # of lightness; from black to white in 200 steps


class Shade(msgspec.Struct, frozen=True, kw_only=True):
    """A colour in one scheme: as text on its surfaces, and with ``on`` written upon it.

    ``changed``: it is not the colour that was asked for.
    """

    colour: str
    on: str
    contrast: float
    changed: bool


class Theme(msgspec.Struct, frozen=True, kw_only=True):
    """The colour that was asked for, and what it becomes in the light and in the dark scheme."""

    given: str
    light: Shade
    dark: Shade


class _Oklch(NamedTuple):
    lightness: float
    chroma: float
    hue: float


def theme(accent: str) -> Theme:
    """What a widget makes of an accent colour (``#rrggbb``).

    Raises:
        ValueError: it is no such colour.
    """
    accent = normal(accent)
    return Theme(
        given=accent,
        light=_shade(accent, LIGHT_SURFACES, lighter=False),
        dark=_shade(accent, DARK_SURFACES, lighter=True),
    )


def normal(colour: str) -> str:
    """The colour in lower case.

    Raises:
        ValueError: it is not of the form ``#rrggbb``.
    """
    if not _HEX.fullmatch(colour):
        raise ValueError(f"'{colour[:40]}' is no colour: write six hexadecimal digits, as #9a3d12")
    return colour.lower()


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours, from 1 to 21."""
    first, second = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def readable(colour: str, surfaces: tuple[str, ...], *, lighter: bool) -> str:
    """The colour itself where it has 4.5:1 on all surfaces, else the nearest lightness that has.

    Chroma is lowered where the screen cannot show it at that lightness. ``lighter``: the direction.
    """
    if _fits(colour, surfaces):
        return colour
    start = _to_oklch(_linear(colour))
    step = _STEP if lighter else -_STEP
    lightness = start.lightness
    while 0 <= lightness <= 1:
        lightness += step
        found = _in_gamut(_Oklch(min(1.0, max(0.0, lightness)), start.chroma, start.hue))
        if _fits(found, surfaces):
            return found
    return "#ffffff" if lighter else "#000000"


def _shade(accent: str, surfaces: tuple[str, ...], *, lighter: bool) -> Shade:
    colour = readable(accent, surfaces, lighter=lighter)
    # of black and white one has 4.58 at least on any colour: their contrasts multiply to 21
    upon = max(("#ffffff", "#000000"), key=lambda ink: contrast(ink, colour))
    worst = min(contrast(colour, surface) for surface in surfaces)
    return Shade(colour=colour, on=upon, contrast=round(worst, 2), changed=colour != accent)


def _fits(colour: str, surfaces: tuple[str, ...]) -> bool:
    return all(contrast(colour, surface) >= MIN_CONTRAST for surface in surfaces)


def _linear(colour: str) -> tuple[float, float, float]:
    """Red, green and blue as light, from sRGB's curve."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4  # noqa: PLR2004
        for part in parts
    )
    return red, green, blue


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _to_oklch(light: tuple[float, float, float]) -> _Oklch:
    red, green, blue = light
    long = math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    medium = math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    lightness = 0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short
    a = 1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short
    b = 0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short
    return _Oklch(lightness, math.hypot(a, b), math.atan2(b, a))


def _to_light(colour: _Oklch) -> tuple[float, float, float]:
    a, b = colour.chroma * math.cos(colour.hue), colour.chroma * math.sin(colour.hue)
    long = (colour.lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (colour.lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (colour.lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _in_gamut(colour: _Oklch) -> str:
    """The colour with the most of its chroma that sRGB has at this lightness."""
    low, high = 0.0, colour.chroma
    if _shown(_to_light(colour)):
        low = high
    for _ in range(20):
        if high - low < 1e-4:  # noqa: PLR2004 - less than a step of sRGB
            break
        middle = (low + high) / 2
        if _shown(_to_light(colour._replace(chroma=middle))):
            low = middle
        else:
            high = middle
    return _to_hex(_to_light(colour._replace(chroma=low)))


def _shown(light: tuple[float, float, float]) -> bool:
    return all(-_ROUNDING <= part <= 1 + _ROUNDING for part in light)


def _to_hex(light: tuple[float, float, float]) -> str:
    def encoded(part: float) -> int:
        part = min(1.0, max(0.0, part))
        curved = 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055  # noqa: PLR2004
        return round(curved * 255)

    return "#" + "".join(f"{encoded(part):02x}" for part in light)
