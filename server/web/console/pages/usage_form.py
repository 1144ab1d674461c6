"""The form of a tenant's limits: what was typed, and what is wrong with that."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from server.limits.limiter import LIMITS, WORDS
from server.settings import MOST_LIMIT, Limits

OWN, INSTALLATION = "own", "installation"
_MOST_DIGITS = 16
_ADVICE = "give a whole number from 1 on, or leave it empty: then there is no limit."


class LimitsForm(NamedTuple):
    """``whose``: OWN or INSTALLATION; ``values`` and ``errors`` by field."""

    whose: str
    values: dict[str, str]
    errors: dict[str, str]


def stored_form(own: Limits | None, default: Limits) -> LimitsForm:
    """The form with what is set; who has none of their own begins with the installation's."""
    shown = default if own is None else own
    values: dict[str, str] = {name: _text(getattr(shown, name)) for name in LIMITS}
    return LimitsForm(INSTALLATION if own is None else OWN, values, {})


def read_limits_form(fields: Mapping[str, str]) -> tuple[Limits | None, LimitsForm]:
    """The limits that a form asks for, None for the installation's, and the form again.

    Where it has errors, the limits mean nothing.
    """
    values: dict[str, str] = {name: fields.get(name, "").strip() for name in LIMITS}
    whose = fields.get("whose", "")
    if whose == INSTALLATION:
        return None, LimitsForm(whose, values, {})
    if whose != OWN:
        chosen = {f"whose-{INSTALLATION}": "Choose whose limits apply."}
        return None, LimitsForm(whose, values, chosen)
    given: dict[str, int] = {}
    errors: dict[str, str] = {}
    for name in LIMITS:
        if not values[name]:
            continue
        if (value := _number(values[name])) is None:
            errors[name] = f"{WORDS[name]}: {_ADVICE}"
        else:
            given[name] = value
    return msgspec.convert(given, Limits), LimitsForm(OWN, values, errors)


def _number(text: str) -> int | None:
    """The limit that a text means; people write 600,000 and 600 000 for it. None where it is none."""
    digits = text.replace(",", "").replace(" ", "")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS
    return int(digits) if is_number and 1 <= int(digits) <= MOST_LIMIT else None


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
