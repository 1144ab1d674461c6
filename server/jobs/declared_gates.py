"""A run's gates as a person reads them: the rule that was declared, and the result once there is one."""

from typing import Any, Literal

import msgspec

from server.db.models import Adapter, Job
from server.jobs.schemas import objectives_of
from training.config import Objectives
from training.evaluation.gates import Gate, Verdict
from training.evaluation.verdicts import Result

GateState = Literal["later", "passed", "failed", "open"]


class GateView(msgspec.Struct, frozen=True, kw_only=True):
    """One gate. ``evidence`` says what was measured or, before that, what it is compared with."""

    name: str
    title: str
    state: GateState
    evidence: str


_STATES: dict[Result, GateState] = {"better": "passed", "worse": "failed", "cannot_tell": "open"}


def declared_gates(job: Job, *, live: Adapter | None) -> list[GateView]:
    """The gates of a run that has no result yet, by what was declared; ``live`` answers customers now."""
    bounds = objectives_of(job.objectives)
    names = [
        "perplexity_ratio"
        if (job.method or {}).get("type", "supervised") == "supervised"
        else "preference_accuracy"
    ]
    if live is not None and live.base_name == job.base:
        names.append("live_perplexity_ratio")
    names.append("similarity_gain")
    if bounds.min_lookup_f1_gain is not None:
        names.append("lookup_f1_gain")
    if bounds.max_invented_gain is not None:
        names.append("invented_gain")
    names.append("parity")
    if bounds.max_perplexity is not None:
        names.append("perplexity")
    if bounds.min_exact is not None:
        names.append("exact")
    return [
        GateView(
            name=name,
            title=_title(name, _bound(name, bounds)),
            state="later",
            evidence=_before(name, _bound(name, bounds), live),
        )
        for name in names
    ]


def decided_gates(report: dict[str, Any]) -> list[GateView]:
    """The gates of a run that has its report, with what was measured."""
    verdict = msgspec.convert(report["verdict"], Verdict)
    return [_decided(gate) for gate in verdict.gates]


def _decided(gate: Gate) -> GateView:
    return GateView(
        name=gate.name,
        title=_title(gate.name, gate.bound),
        state=_STATES[gate.result or "cannot_tell"],
        evidence=gate.why,
    )


def _bound(name: str, bounds: Objectives) -> float | None:
    return {
        "perplexity_ratio": bounds.max_perplexity_ratio,
        "live_perplexity_ratio": bounds.max_live_perplexity_ratio,
        "similarity_gain": bounds.min_similarity_gain,
        "lookup_f1_gain": bounds.min_lookup_f1_gain,
        "invented_gain": bounds.max_invented_gain,
        "parity": bounds.max_parity_nats,
        "perplexity": bounds.max_perplexity,
        "exact": bounds.min_exact,
        "preference_accuracy": bounds.min_preference_accuracy,
    }[name]


def _title(name: str, bound: float | None) -> str:
    match name:
        case "perplexity":
            return f"Perplexity at most {bound:g}"
        case "exact":
            return f"{bound:.0%} of replies word for word"
        case _:
            return _TITLES.get(name, name.replace("_", " ").capitalize())


_TITLES = {
    "perplexity_ratio": "Perplexity against the base",
    "live_perplexity_ratio": "Perplexity against what is live",
    "similarity_gain": "Closer to the agents than the base",
    "lookup_f1_gain": "Not worse than a plain look-up",
    "invented_gain": "Invents no more than the base",
    "parity": "Served as trained",
    "preference_accuracy": "Shares people's preferences",
}


def _before(  # noqa: PLR0911 - one line each
    name: str, bound: float | None, live: Adapter | None
) -> str:
    """The rule of a gate, and what is known of the live version, before anything is measured."""
    scores = (live.scores or {}).get("new") or {} if live is not None else {}
    perplexity = scores.get("perplexity")
    known = f"; live: {perplexity:.2f} on its own" if perplexity is not None else ""
    match name:
        case "perplexity_ratio":
            return f"at most {bound:.2f} of its, on held-out conversations"
        case "live_perplexity_ratio":
            return f"at most {bound:.2f} of its{known}"
        case "similarity_gain" if bound is not None and bound < 0:
            return f"in meaning; at most {-bound:g} further is tolerated"
        case "similarity_gain":
            return f"in meaning, by {bound:g} at least"
        case "lookup_f1_gain":
            return f"words shared with the agents' replies (token F1), {bound:+g} at least"
        case "invented_gain":
            return f"share of replies with a fact that nobody has said, {bound:+g} at most"
        case "parity":
            return f"trainer and engine at most {bound:g} nats a token apart"
        case "perplexity":
            return f"on held-out conversations{known}"
        case "preference_accuracy" if bound:
            return f"at least {bound:.0%} of those that were held out"
        case "preference_accuracy":
            return "of those that were held out, more than the base"
        case _:
            return "at least, on held-out conversations"
