"""The form of a new key: its fields, what was typed into them, and what is wrong with that."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import msgspec

from server.auth.schemas import SCOPE_TEXTS, SCOPE_WORDS, SCOPES, KeyRequest
from server.db.models import now
from server.settings import Limits

ON_A_DAY = "day"
AS_BEFORE = "as-before"
EXPIRIES = {
    "": "It does not",
    "7": "In a week",
    "30": "In 30 days",
    "90": "In 90 days",
    "365": "In a year",
    ON_A_DAY: "At the end of a day that I choose",
}
LIMITS = {
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "requests_per_day": "Requests a day",
    "tokens_per_day": "Tokens a day",
    "concurrent_streams": "Requests at the same time",
}
_MAX_DIGITS = 15


class KeyForm(NamedTuple):
    """What is in the form: ``values`` by field as text, ``errors`` by field's id."""

    values: dict[str, str]
    errors: dict[str, str]


EMPTY = KeyForm({"scope-chat": "yes"}, {})


def read_key_form(
    fields: Mapping[str, str], *, is_operators: bool
) -> tuple[KeyRequest | None, KeyForm]:
    """The key that a form asks for, None where something is wrong with it; and the form again."""
    names = ["label", "expires", "day", *LIMITS, *(f"scope-{scope}" for scope in SCOPES)]
    values = {name: fields.get(name, "").strip() for name in names}
    errors: dict[str, str] = {}
    if len(values["label"]) > 200:  # noqa: PLR2004 - as KeyRequest's
        errors["label"] = "Use 200 characters at most."
    scopes = tuple(scope for scope in SCOPES if values[f"scope-{scope}"] == "yes")
    if not scopes and not is_operators:
        errors["scopes"] = "Tick what it may do: one at least."
    expires_at = None
    try:
        expires_at = read_expiry(values)
    except ValueError as exc:
        errors["day" if values["expires"] == ON_A_DAY else "expires"] = str(exc)
    limits: dict[str, int] = {}
    for name in LIMITS:
        digits = values[name]
        if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
            limits[name] = int(digits)
        if digits and not limits.get(name):
            errors[name] = "Give a whole number from 1 on, or nothing for no limit."
    form = KeyForm(values, errors)
    if errors:
        return None, form
    return (
        KeyRequest(
            label=values["label"],
            scopes=scopes or SCOPES,
            expires_at=expires_at,
            limits=msgspec.convert(limits, Limits) if limits else None,
        ),
        form,
    )


def read_expiry(values: Mapping[str, str]) -> datetime | None:
    """When a key ends, as the fields ``expires`` and ``day`` say; None where it does not.

    Raises:
        ValueError: they say nothing that can be used; the message is for the field.
    """
    chosen = values.get("expires", "")
    if chosen not in EXPIRIES:
        raise ValueError("Choose when it expires.")
    if chosen != ON_A_DAY:
        return now() + timedelta(days=int(chosen)) if chosen else None
    try:
        day = date.fromisoformat(values.get("day", ""))
        end = datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("Choose a day, as 2027-03-31.") from exc
    if end <= now():
        raise ValueError("Choose a day that is not over yet.")
    return end


def scope_choices() -> list[dict[str, Any]]:
    """What a key may be for, to tick."""
    return [
        {"name": f"scope-{scope}", "words": SCOPE_WORDS[scope], "text": SCOPE_TEXTS[scope]}
        for scope in SCOPES
    ]


def expiry_choices(*, as_before: str = "") -> list[dict[str, str]]:
    """When a key may end, to choose; ``as_before``: when the one that it replaces ends."""
    own = [{"value": value, "name": name} for value, name in EXPIRIES.items()]
    return [{"value": AS_BEFORE, "name": as_before}, *own] if as_before else own
