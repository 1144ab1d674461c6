"""The colours can be read: computed from the tokens file, in both schemes (WCAG 2.2, 1.4.3, 1.4.11)."""

import re

import pytest

from server.web.static import FOLDERS

TOKENS = (FOLDERS[0] / "tokens.css").read_text()
TEXT, EDGE = 4.5, 3.0
GROUNDS = ("ground", "surface", "sunken")
PAIRS = [
    *(("ink", ground, TEXT) for ground in GROUNDS),
    *(("ink-2", ground, TEXT) for ground in GROUNDS),
    *(("accent", ground, TEXT) for ground in GROUNDS),
    *(("edge", ground, EDGE) for ground in ("surface", "sunken", "ground")),
    *(("focus", ground, EDGE) for ground in GROUNDS),
    ("on-accent", "accent", TEXT),
    ("accent", "accent-soft", TEXT),
    ("ink", "accent-soft", TEXT),
    ("edge", "accent-soft", EDGE),
    ("ink-2", "base-soft", TEXT),
    *((name, f"{name}-soft", TEXT) for name in ("base", "live", "cand", "ok", "warn", "bad")),
    *((name, "surface", TEXT) for name in ("base", "live", "cand", "ok", "warn", "bad")),
    *((name, "ground", EDGE) for name in ("accent", "cand", "bad")),  # the stages' marks
    ("ink", "line", TEXT),  # a link of the navigation under the pointer
]


def scheme(dark: bool) -> dict[str, str]:
    light, _, rest = TOKENS.partition("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--([\w-]+):\s*(#[0-9A-F]{6})", light))
    if dark:
        colours |= dict(re.findall(r"--([\w-]+):\s*(#[0-9A-F]{6})", rest))
    return colours


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_the_standard_says():
    assert round(contrast("#000000", "#FFFFFF"), 1) == 21.0
    assert round(contrast("#777777", "#FFFFFF"), 2) == 4.48


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_pair_of_colours_has_enough_contrast(dark):
    colours = scheme(dark)
    poor = [
        f"{over} on {under}: {ratio:.2f} of {least}"
        for over, under, least in PAIRS
        if (ratio := contrast(colours[over], colours[under])) < least
    ]
    assert not poor


def test_both_schemes_name_the_same_colours_and_each_is_paired():
    dark_part = TOKENS.partition("@media (prefers-color-scheme: dark)")[2]
    dark = set(re.findall(r"--([\w-]+):\s*#", dark_part))
    assert dark == set(scheme(dark=False))
    paired = {name for over, under, _ in PAIRS for name in (over, under)}
    assert dark == paired


def test_styles_name_no_colour_of_their_own():
    for sheet in FOLDERS[0].glob("*.css"):
        if sheet.name != "tokens.css":
            text = re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.DOTALL)
            assert not re.findall(r":[^;{}]*#[0-9a-fA-F]{3,8}\b", text), sheet.name
            used = set(re.findall(r"var\(--([\w-]+)", text))
            own = set(re.findall(r"(?<![\w-])--([\w-]+)\s*:", text))
            known = set(re.findall(r"--([\w-]+)\s*:", TOKENS))
            assert used <= known | own, sheet.name


def test_styles_have_no_left_and_right():
    for sheet in FOLDERS[0].glob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.DOTALL)
        sided = re.findall(
            r"(?<![\w-])((?:margin|padding|border|inset)?-?(?:left|right)\s*:|text-align:\s*(?:left|right))",
            text,
        )
        assert not sided, sheet.name
