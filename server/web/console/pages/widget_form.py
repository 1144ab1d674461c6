"""The form of a widget's settings: its fields, what was typed into them, and what is wrong with that."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from server.conversations import colours
from server.conversations.colours import Shade, Theme
from server.conversations.schemas import LANGUAGES, BudgetsUse, Language, WidgetPatch
from server.conversations.widgets import Site
from server.errors import ServerError
from server.schemas import WidgetBudgets

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
    "offer_when_annoyed": "Tick it or not.",
}
# by field of ``WidgetBudgets``: its label, and what happens when it is used up
_BUDGETS = {
    "visitor_messages_per_minute": (
        "Messages of a visitor, a minute",
        "The panel says when it goes on, and keeps what was typed.",
    ),
    "visitor_messages_per_day": (
        "Messages of a visitor, a day",
        "The visitor can talk to a person; the assistant answers again after midnight UTC.",
    ),
    "address_messages_per_minute": (
        "Messages from an address, a minute",
        "All who share the address wait, as in one office.",
    ),
    "address_sessions_per_minute": (
        "Panels opened from an address, a minute",
        "Further panels open without an answer until the minute is over.",
    ),
    "address_handoffs_per_day": (
        "Hand-offs from an address, a day",
        "A further one is refused with words; the chat goes on.",
    ),
    "tokens_per_day": (
        "Tokens of the whole widget, a day",
        "The assistant answers nobody until midnight UTC; visitors can talk to a person.",
    ),
}
_WHOLE = "Give a whole number from 1 to 2,147,483,648"


class WidgetForm(NamedTuple):
    """What is in the form: ``values`` by field as text, ``errors`` by field's id."""

    values: dict[str, str]
    errors: dict[str, str]


class BudgetField(NamedTuple):
    """A budget in the form: its field, what happens when it is used up, and today's use in words."""

    name: str
    label: str
    hint: str
    use: str
    is_used_up: bool


class Correction(NamedTuple):
    """What becomes of a colour in one scheme, and why, in a sentence."""

    scheme: str
    given: str
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
        "offer_when_annoyed": "yes" if widget.offer_when_annoyed else "",
    }
    budgets = {name: getattr(site.budgets, name) for name in _BUDGETS}
    return WidgetForm(
        values | {name: "" if value is None else str(value) for name, value in budgets.items()}, {}
    )


def read_widget_form(fields: Mapping[str, str]) -> tuple[WidgetPatch | None, WidgetForm]:
    """The change that a form makes, None where something is wrong with it; and the form again."""
    patch, form = valid_part(fields)
    return (None if form.errors else patch), form


def valid_part(fields: Mapping[str, str]) -> tuple[WidgetPatch, WidgetForm]:
    """The change that those fields of a form make which are right; and the form again."""
    names = (*_ADVICE, *_BUDGETS)
    values = {name: fields.get(name, "").replace("\r\n", "\n").strip() for name in names}
    given: dict[str, Any] = {
        **{name: values[name] for name in _ADVICE},
        "suggestions": [line.strip() for line in values["suggestions"].split("\n") if line.strip()],
        "keep_days": _whole(values["keep_days"]),
        "allow_localhost": values["allow_localhost"] == "yes",
        "offer_when_annoyed": values["offer_when_annoyed"] == "yes",
    }
    errors = {name: _ADVICE[name] for name in given if not _fits(name, given, WidgetPatch)}
    budgets: dict[str, Any] = {name: _whole(values[name]) for name in _BUDGETS}
    if not values["tokens_per_day"]:
        budgets["tokens_per_day"] = None
    elif budgets["tokens_per_day"] is None:
        errors["tokens_per_day"] = f"{_WHOLE}, or nothing."
    for name in _BUDGETS:
        if not _fits(name, budgets, WidgetBudgets):
            errors[name] = f"{_WHOLE}{', or nothing' if name == 'tokens_per_day' else ''}."
    right = {name: value for name, value in given.items() if name not in errors}
    if not errors.keys() & budgets.keys():
        chosen = msgspec.convert(budgets, WidgetBudgets)
        right["budgets"] = None if chosen == WidgetBudgets() else chosen
    return msgspec.convert(right, WidgetPatch), WidgetForm(values, errors)


def _whole(text: str) -> int | None:
    """A whole number as people write it; more digits than any bound has are too many either way."""
    digits = text.replace(",", "")
    return int(digits[:12]) if digits.isascii() and digits.isdigit() else None


def _fits(name: str, values: Mapping[str, Any], kind: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert({name: values[name]}, kind)
    except msgspec.ValidationError:
        return False
    return True


def budget_fields(site: Site, use: BudgetsUse) -> list[BudgetField]:
    """The budgets, each with its default and with today's use of it."""
    defaults = WidgetBudgets()
    found = []
    for name, (label, then) in _BUDGETS.items():
        used, limit = getattr(use, name), getattr(site.budgets, name)
        word = "Used today" if name == "tokens_per_day" else "Most today"
        found.append(
            BudgetField(
                name=name,
                label=label,
                hint=f"{then} {getattr(defaults, name):,} unless you change it.",
                use=f"{word}: {used:,}" if used else "Not used today",
                is_used_up=limit is not None and used >= limit,
            )
        )
    return found


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
    return Correction(scheme, given, shade, surfaces[0], why)
