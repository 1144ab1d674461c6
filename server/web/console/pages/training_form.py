"""The form that starts a run: its fields, what was typed into them, and what is wrong with that."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from server.errors import Invalid, ServerError
from server.jobs.schemas import SUFFIX, JobRequest
from server.settings import Settings
from training.config import recipe_names

_MAX_SEED = (1 << 32) - 1


class Bound(NamedTuple):
    """A field of the form that declares a gate. ``least`` and ``most`` are the numbers that make sense."""

    name: str
    label: str
    hint: str
    least: float
    most: float
    optional: bool = False


BOUNDS = (
    Bound(
        "max_perplexity_ratio",
        "Perplexity, at most this share of the base's",
        "How surprised the new version is by what agents really wrote, against the model as it was. "
        "0.8 asks for a fifth less.",
        0.01,
        10,
    ),
    Bound(
        "max_live_perplexity_ratio",
        "Perplexity, at most this share of the live version's",
        "1.05 lets it lose a twentieth. Not used where nothing is live.",
        0.01,
        10,
    ),
    Bound(
        "min_similarity_gain",
        "Replies, at least this much closer in meaning than the base's",
        "From -2 to 2; below 0 is a loss that you tolerate.",
        -2,
        2,
    ),
    Bound(
        "min_lookup_f1_gain",
        "Words shared with the agents' replies, at least this much more than a plain look-up's (token F1)",
        "From -1 to 1; -0.05 lets it lose a little. Leave it empty for none.",
        -1,
        1,
        optional=True,
    ),
    Bound(
        "max_invented_gain",
        "Share of replies that invent a fact, at most this much above the base's",
        "From -1 to 1; 0.05 tolerates five more replies in a hundred. Leave it empty for none.",
        -1,
        1,
        optional=True,
    ),
    Bound(
        "max_parity_nats",
        "Trainer and engine, at most this far apart (nats a token)",
        "A version that breaks this one is never served.",
        0.0001,
        10,
    ),
    Bound(
        "max_perplexity",
        "Perplexity, at most",
        "An absolute bound, such as 6. Leave it empty for none.",
        1,
        1e6,
        optional=True,
    ),
    Bound(
        "min_exact",
        "Share of replies that are word for word the agents', at least",
        "From 0 to 1, such as 0.25. Leave it empty for none.",
        0,
        1,
        optional=True,
    ),
)


class RunForm(NamedTuple):
    """What is in the form: ``values`` by field as text, ``errors`` by field's id."""

    values: dict[str, str]
    errors: dict[str, str]


def empty_form(settings: Settings, recipe: str = "") -> RunForm:
    """The form as it is opened: what the installation does where nobody says otherwise, by ``recipe``."""
    bounds = msgspec.to_builtins(settings.objectives)
    values = {bound.name: _text(bounds[bound.name]) for bound in BOUNDS}
    return RunForm(
        {"recipe": recipe, "seed": "17", "suffix": "", "approval": "", "full": "", **values}, {}
    )


def read_form(fields: Mapping[str, Any], settings: Settings) -> tuple[JobRequest | None, RunForm]:
    """The request that a form makes, None where something is wrong with it; and the form again."""
    known = empty_form(settings).values
    values = {name: str(fields.get(name, "")).strip() for name in known}
    errors: dict[str, str] = {}
    if values["recipe"] not in recipe_names():
        errors["recipe"] = "Choose one of the recipes."
    if values["suffix"] and not re.fullmatch(SUFFIX, values["suffix"]):
        errors["suffix"] = "Use 1 to 64 letters, digits, '_' and '-', or leave it empty."
    seed = values["seed"]
    if not seed.isascii() or not seed.isdigit() or int(seed[:12]) > _MAX_SEED:
        errors["seed"] = f"Give a whole number from 0 to {_MAX_SEED:,}."
    bounds: dict[str, float | None] = {}
    for bound in BOUNDS:
        try:
            bounds[bound.name] = _number(bound, values[bound.name])
        except Invalid as exc:
            errors[bound.name] = exc.message
    form = RunForm(values, errors)
    if errors:
        return None, form
    objectives = msgspec.structs.replace(settings.objectives, **bounds)
    return JobRequest(
        recipe=values["recipe"],
        objectives=objectives,
        seed=int(seed),
        suffix=values["suffix"],
        require_approval=values["approval"] == "yes",
        full_evaluation=values["full"] == "yes",
    ), form


def refused(form: RunForm, exc: ServerError) -> RunForm:
    """The form with what the service said against it."""
    field = exc.param if exc.param in form.values else ""
    return RunForm(form.values, {field or "": exc.message})


def _number(bound: Bound, text: str) -> float | None:
    if not text and bound.optional:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not bound.least <= value <= bound.most:
        raise Invalid(f"Give a number from {bound.least:g} to {bound.most:g}.")
    return value


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
