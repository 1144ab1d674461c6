"""The form of a widget's settings: its fields, what was typed into them, and what is wrong with that."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from server.conversations import colours
from server.conversations.colours import Shade, Theme
from server.conversations.schemas import LANGUAGES, Language, WidgetPatch
from server.conversations.widgets import Site
from server.errors import ServerError

LANGUAGE_NAMES: dict[Language, str] = {
    "en": "English",
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "ar": "Arabic",
    "ja": "Japanese",
}
# what to do where a field holds what `WidgetPatch` does not take
_ADVICE = {
    "display_name": "Use 200 characters at most.",
    "greeting": "Use 1,000 characters at most.",
    "suggestions": "Write six lines at most, of 120 characters each.",
    "teaser": "Use 200 characters at most.",
    "accent": "Write six hexadecimal digits, as #9a3d12.",
    "language": "Choose one of the languages.",
    "handoff_hours": "Use 200 characters at most.",
    "handoff_expected": "Use 200 characters at most.",
    "keep_days": "Give a whole number of days from 1 to 3,650.",
    "allow_localhost": "Tick it or not.",
}


class WidgetForm(NamedTuple):
    """What is in the form: ``values`` by field as text, ``errors`` by field's id."""

    values: dict[str, str]
    errors: dict[str, str]


class Correction(NamedTuple):
    """What becomes of a colour in one scheme, and why, in a sentence."""

    scheme: str
    shade: Shade
    surface: str
    why: str


def stored_form(site: Site) -> WidgetForm:
    """The form with what is set."""
    widget = site.widget
    values = {
        "display_name": widget.display_name,
        "greeting": widget.greeting,
        "suggestions": "\n".join(widget.suggestions),
        "teaser": widget.teaser,
        "accent": widget.accent,
        "language": widget.language,
        "handoff_hours": widget.handoff_hours,
        "handoff_expected": widget.handoff_expected,
        "keep_days": str(widget.keep_days),
        "allow_localhost": "yes" if widget.allow_localhost else "",
    }
    return WidgetForm(values, {})


def read_widget_form(fields: Mapping[str, str]) -> tuple[WidgetPatch | None, WidgetForm]:
    """The change that a form makes, None where something is wrong with it; and the form again."""
    values = {name: fields.get(name, "").replace("\r\n", "\n").strip() for name in _ADVICE}
    days = values["keep_days"]
    given: dict[str, Any] = {
        **values,
        "suggestions": [line.strip() for line in values["suggestions"].split("\n") if line.strip()],
        "keep_days": int(days[:6]) if days.isascii() and days.isdigit() else None,
        "allow_localhost": values["allow_localhost"] == "yes",
    }
    errors: dict[str, str] = {}
    for name, value in given.items():
        try:
            msgspec.convert({name: value}, WidgetPatch)
        except msgspec.ValidationError:
            errors[name] = _ADVICE[name]
    form = WidgetForm(values, errors)
    return (None if errors else msgspec.convert(given, WidgetPatch)), form


def refused(form: WidgetForm, exc: ServerError) -> WidgetForm:
    """The form with what the service said against it."""
    field = exc.param if exc.param in form.values else ""
    return WidgetForm(form.values, {field or "": exc.message})


def language_choices() -> list[dict[str, str]]:
    """The languages of a panel to choose from."""
    own = [{"value": code, "name": LANGUAGE_NAMES[code]} for code in LANGUAGES]
    return [{"value": "", "name": "The page's own, else English"}, *own]


def corrections(theme: Theme) -> list[Correction]:
    """A colour in the light and in the dark panel."""
    return [
        _correction("light", theme.given, theme.light, colours.LIGHT_SURFACES),
        _correction("dark", theme.given, theme.dark, colours.DARK_SURFACES),
    ]


def _correction(scheme: str, given: str, shade: Shade, surfaces: tuple[str, ...]) -> Correction:
    had = min(colours.contrast(given, surface) for surface in surfaces)
    if shade.changed:
        way = "Darker" if scheme == "light" else "Lighter"
        why = (
            f"{way} than yours: {given} has a contrast of {had:.2f}:1 to the {scheme} panel, and text "
            f"needs {colours.MIN_CONTRAST}:1. {shade.colour} has {shade.contrast:.2f}:1, in the same hue."
        )
    else:
        why = (
            f"As you chose it: {shade.contrast:.2f}:1 to the {scheme} panel, and text needs 4.5:1."
        )
    return Correction(scheme, shade, surfaces[0], why)
