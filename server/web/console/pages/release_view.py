"""What the pages about versions show, as their templates want it: words and figures of services' facts."""

import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from server.adapters.schemas import (
    Answered,
    CanaryView,
    Comparison,
    Evidence,
    PromotionView,
    Share,
)
from server.adapters.versions import Standing, Version
from server.db.models import DatasetVersion, Tenant
from server.jobs.declared_gates import GateState, decided_gates
from server.web.console.figures import NOTHING, duration, number
from training.evaluation.confidence_intervals import MIN_SAMPLES
from training.evaluation.gates import Gate, Verdict
from training.reports.tables import findings, score_rows
from training.results import Evaluation, ReplySample

SAMPLES = 3
"""Held-out questions that a version's page shows; its report has all."""
_STANDINGS: dict[Standing, tuple[str, str]] = {
    "live": ("Live", "live"),
    "waiting": ("Needs approval", "warn"),
    "approved": ("Approved", "cand"),
    "ready": ("Ready", "ok"),
    "undecided": ("Undecided", "warn"),
    "replaced": ("Replaced", ""),
    "rejected": ("Rejected", ""),
    "failed": ("Gate failed", "bad"),
    "unsafe": ("Unsafe", "bad"),
}
STANDING_WORDS = {
    "live": "It answers your customers now.",
    "waiting": "It passed its gates, or they cannot tell, and it waits for a person's decision.",
    "approved": "It is approved: its run makes it live in a moment.",
    "ready": "It passed its gates and is not live.",
    "undecided": "Its gates cannot tell: nothing says that it is worse, and a person may make it live.",
    "replaced": "It was live, and another answers now.",
    "rejected": "A person decided against it. It still answers to its own name.",
    "failed": "A gate found it worse than was asked for: only the operator can make it live, on the "
    "command line.",
    "unsafe": "The engine computes something else than the trainer did: it must not be served.",
}
_WORDS: dict[GateState, tuple[str, str]] = {
    "later": ("", "later"),
    "passed": ("ok", "passed"),
    "failed": ("bad", "failed"),
    "open": ("warn", "cannot tell"),
}
_AT_MOST = frozenset(
    {"perplexity_ratio", "live_perplexity_ratio", "invented_gain", "parity", "perplexity"}
)
_SHARES = frozenset({"exact", "preference_accuracy"})
_COLUMNS = {
    "base": ("base", "Base"),
    "new, no retrieval": ("", "This, no retrieval"),
    "new": ("cand", "This"),
    "live": ("live", "Live then"),
}


class Span(NamedTuple):
    """An interval and its bound as places in [0, 100].

    ``low`` is None where there is no interval, ``value`` where nothing was measured, and ``bound`` where
    nothing was declared.
    """

    low: float | None
    width: float
    value: float | None
    bound: float | None


_NOWHERE = Span(low=None, width=0, value=None, bound=None)
"""Takes the place of what is not measured yet, so that a page that fills does not jump."""


def home_of(tenant: Tenant) -> str:
    """The address of a tenant's page of versions."""
    return f"/console/t/{tenant.slug}/release"


def row_of(version: Version) -> dict[str, Any]:
    """A version as tables show it."""
    word, tone = _STANDINGS[version.standing]
    return {
        "version": version.version,
        "name": version.name,
        "state": word,
        "tone": tone,
        "canary": "" if version.canary_percent is None else f"Canary, {version.canary_percent} %",
        "perplexity": number(version.perplexity, 2),
        "token_f1": number(version.token_f1, 2),
        "parity": number(version.parity, 4),
        "conversations": number(version.conversations),
        "created_at": version.created_at,
    }


def step_of(
    step: PromotionView,
    slug: str,
    names: dict[str | None, str],
    counted: Mapping[int, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """A change of who answers, in words.

    ``counted``: of the canaries that have ended, how many requests each answered and what was live
    beside it, by the step that set its share.
    """
    answered = (counted or {}).get(step.revision)
    return {
        "evidence": ""
        if answered is None
        else f"What came of it: {number(answered[0])} answers beside {number(answered[1])}",
        "revision": step.revision,
        "icon": "release" if step.kind in ("promote", "canary") else "undo",
        "text": _told(step, slug),
        "version": step.to_version,
        "who": who(step.actor, names),
        "at": step.created_at,
    }


def _told(step: PromotionView, slug: str) -> str:
    before, after = _named(slug, step.from_version), _named(slug, step.to_version)
    canary, share = _named(slug, step.canary_version), f"{step.canary_percent} %"
    match step.kind:
        case "canary":
            return f"{canary} answers {share} of the requests, {after} the others"
        case "canary_end":
            why = f". {step.reason.removesuffix('.')}" if step.reason else ""
            return f"The canary {canary}, of {share}, was taken back{why}"
        case "promote":
            text = f"{after} went live in place of {before}"
        case _:
            text = f"Rolled back from {before} to {after}"
    if step.canary_version is None:
        return text
    ended = "its canary" if step.canary_version == step.to_version else f"the canary {canary}"
    return f"{text}, and {ended}, of {share}, ended"


def who(actor: str | None, names: dict[str | None, str]) -> str:
    """Who did something; a run acts by itself when all its gates passed or a person approved it."""
    if actor is not None and actor.startswith("job "):
        return "its run"
    return names[actor]


def _named(slug: str, version: int | None) -> str:
    return "the base" if version is None else f"{slug}@{version}"


def gate_rows(report: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The gates of a report: what was declared, measured and decided, with the interval."""
    if report is None or "verdict" not in report:
        return []
    verdict = msgspec.convert(report["verdict"], Verdict)
    rows = []
    for gate, view in zip(verdict.gates, decided_gates(report), strict=True):
        tone, word = _WORDS[view.state]
        most = "at most" if gate.name in _AT_MOST else "at least"
        interval = NOTHING
        if gate.low is not None and gate.high is not None:
            interval = f"{_figure(gate, gate.low)} to {_figure(gate, gate.high)}"
        elif gate.name == "parity":
            interval = "no sample"
        rows.append(
            {
                "title": view.title,
                "why": view.evidence[:1].upper() + view.evidence[1:] + ".",
                "declared": f"{most} {gate.bound:g}"
                if gate.name == "parity"
                else f"{most} {_figure(gate, gate.bound)}",
                "measured": _figure(gate, gate.value),
                "interval": interval,
                "tone": tone,
                "word": word,
                "span": _span(gate),
            }
        )
    return rows


def _figure(gate: Gate, value: float | None) -> str:
    if value is None:
        return NOTHING
    if gate.name in _SHARES:
        return f"{value:.0%}"
    if gate.name.endswith("_gain"):
        return f"{value:+.2f}"
    return f"{value:.4f}" if gate.name == "parity" else f"{value:.2f}"


def _span(gate: Gate) -> Span | None:
    """Where a gate's figures lie beside each other; None where nothing was measured."""
    if gate.value is None:
        return None
    low = gate.value if gate.low is None else gate.low
    high = gate.value if gate.high is None else gate.high
    least, most = min(low, gate.value, gate.bound), max(high, gate.value, gate.bound)
    margin = (most - least) * 0.08 or 1.0
    whole = most - least + 2 * margin

    def place(value: float) -> float:
        return round(100 * (value - least + margin) / whole, 1)

    return Span(
        low=None if gate.low is None or gate.high is None else place(low),
        width=round(100 * (high - low) / whole, 1),
        value=place(gate.value),
        bound=place(gate.bound),
    )


def verdict_of(report: dict[str, Any] | None) -> Verdict | None:
    """What the gates say together; None where there is no report."""
    if report is None or "verdict" not in report:
        return None
    return msgspec.convert(report["verdict"], Verdict)


def evaluation_of(report: dict[str, Any] | None) -> Evaluation | None:
    """What was measured; None where there is no report."""
    if report is None or "evaluation" not in report:
        return None
    return msgspec.convert(report["evaluation"], Evaluation)


def scores_of(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """The table of scores and what it shows in sentences."""
    if evaluation is None or not evaluation.conversations:
        return None
    columns, rows = score_rows(evaluation)
    return {
        "columns": [_COLUMNS.get(name, ("", name.capitalize())) for name in columns],
        "rows": rows,
        "findings": findings(evaluation),
    }


def samples_of(evaluation: Evaluation | None, name: str) -> list[dict[str, Any]]:
    """The first held-out questions with everybody's answers."""
    found = () if evaluation is None else evaluation.samples[:SAMPLES]
    return [{"question": _question(sample), "answers": _answers(sample, name)} for sample in found]


def _question(sample: ReplySample) -> str:
    return sample.history[-1].content if sample.history else ""


def _answers(sample: ReplySample, name: str) -> list[dict[str, str]]:
    said = [("base", "Base", sample.base.text)]
    if sample.live is not None:
        said.append(("live", "Live then", sample.live.text))
    said.append(("cand", name, sample.new.text))
    said.append(("", "What the agent wrote", sample.reference))
    return [
        {"kind": kind, "name": title, "text": text or "(an empty answer)"}
        for kind, title, text in said
    ]


def card_of(
    report: dict[str, Any] | None, version: Version, dataset: DatasetVersion | None
) -> list[tuple[str, str]]:
    """The facts of a model card: what a version was made of, and how."""
    made: dict[str, Any] = (report or {}).get("provenance") or {}
    facts = [("Base", f"{version.base} ({made['base_sha256'][:12]})" if made else version.base)]
    if dataset is not None:
        facts.append(("Data", f"version {dataset.sha256[:12]}"))
        facts += [
            (f"Conversations, {split}", number(count))
            for split, count in dataset.counts.items()
            if count
        ]
    if not made:
        return facts
    if knowledge := made.get("knowledge"):
        facts.append(
            ("Pieces of articles", f"{number(knowledge['pieces'])} ({knowledge['sha256'][:12]})")
        )
    foreign = made.get("foreign")
    if foreign:
        return [*facts, ("Trained elsewhere", str(foreign.get("source", "")))]
    if dropped := sum((made.get("dropped") or {}).values()):
        facts.append(("Conversations dropped", number(dropped)))
    facts += [
        ("Method", made.get("method", "supervised")),
        ("Recipe", made["recipe"]),
        ("Rank", number(made["rank"])),
        ("Seed", str(made["seed"])),
        ("Trained parameters", number(made.get("parameters"))),
        ("Parameters of the base", number(made["base_parameters"])),
        ("Tokens", number(made["tokens"])),
        ("Steps", number(made["steps"])),
        ("Time", duration(made["seconds"])),
        ("Ended by", made["stopped"] or NOTHING),
    ]
    if made.get("computed_in"):
        facts.append(("Computed in", ", ".join(made["computed_in"])))
    if made.get("started_from"):
        facts.append(("Began with", made["started_from"]))
    facts += [(name, version) for name, version in sorted((made.get("packages") or {}).items())]
    return facts


def actors_of(steps: Iterable[PromotionView]) -> Collection[str]:
    """Those whose names the steps need."""
    return {step.actor for step in steps}


def is_fresh(step: PromotionView, *, actor: str, now: datetime.datetime, seconds: float) -> bool:
    """Whether somebody has just done a step themselves."""
    return step.actor == actor and (now - step.created_at).total_seconds() < seconds


def ended_canaries(steps: Iterable[PromotionView], tenant: Tenant) -> list[int]:
    """The steps that set a canary's share which is no longer that one: every later step ended it."""
    return [
        step.revision
        for step in steps
        if step.kind == "canary" and step.revision < tenant.live_revision
    ]


def canary_of(
    found: CanaryView | None, slug: str, names: dict[str | None, str]
) -> dict[str, Any] | None:
    """The canary beside what is live."""
    if found is None:
        return None
    return {
        **evidence_of(found, slug, names),
        "able": found.able,
        "revision": found.live_revision,
    }


def evidence_of(found: Evidence, slug: str, names: dict[str | None, str]) -> dict[str, Any]:
    """What a canary and what is live answered: figures with their intervals, and what they say."""
    name, live = _named(slug, found.version), _named(slug, found.live.version)
    both = (found.canary, found.live)
    return {
        "version": found.version,
        "name": name,
        "live": live,
        "live_kind": "live" if found.live.version else "base",
        "percent": found.percent,
        "since": found.since,
        "who": who(found.actor, names),
        "rows": [
            ("Answers", [_plain(number(each.requests)) for each in both]),
            ("Thumbs up", [_shared(each.liked, good=True) for each in both]),
            ("Failed or refused", [_shared(each.errors, good=False) for each in both]),
            ("Tokens read", [_plain(number(each.prompt_tokens)) for each in both]),
            ("Tokens written", [_written(each) for each in both]),
        ],
        "findings": [
            _liked(found.liked_compared, found, name, live),
            _failed(found.errors_compared, found, name, live),
        ],
    }


def _plain(text: str, more: str = "") -> dict[str, Any]:
    return {"text": text, "more": more, "span": None, "tone": ""}


def _written(each: Answered) -> dict[str, Any]:
    mean = f"{each.completion_tokens / each.requests:,.0f} an answer" if each.requests else "none"
    return _plain(number(each.completion_tokens), mean)


def _shared(share: Share, *, good: bool) -> dict[str, Any]:
    """A share with its interval, from nothing to all."""
    if share.share is None or share.low is None or share.high is None:
        return {"text": "none", "more": "of 0", "span": _NOWHERE, "tone": ""}
    low, high = 100 * share.low, 100 * share.high
    digits = 0 if good else 1  # failures are few
    return {
        "text": f"{100 * share.share:.{digits}f} %",
        "more": f"{number(share.count)} of {number(share.of)}; {low:.{digits}f} to {high:.{digits}f} %",
        "span": Span(
            low=round(low, 1),
            width=round(high - low, 1),
            value=round(100 * share.share, 1),
            bound=None,
        ),
        "tone": "ok" if good else "warn",
    }


def _liked(compared: Comparison, found: Evidence, name: str, live: str) -> str:
    match compared:
        case "better":
            return f"Visitors like the answers of {name} better than those of {live}."
        case "worse":
            return f"Visitors like the answers of {live} better than those of {name}."
        case "cannot_tell":
            return f"Thumbs cannot tell {name} and {live} apart: the difference may be chance."
        case "too_little":
            counts = f"{number(found.canary.liked.of)} for {name}, {number(found.live.liked.of)} for {live}"
            return f"There are too few thumbs to tell: {counts}. Each needs {MIN_SAMPLES} at least."


def _failed(compared: Comparison, found: Evidence, name: str, live: str) -> str:
    match compared:
        case "better":
            return f"{name} fails less often than {live}."
        case "worse":
            return f"{name} fails more often than {live}."
        case "cannot_tell":
            return "How often they fail differs by no more than chance."
        case "too_little":
            counts = f"{number(found.canary.requests)} by {name}, {number(found.live.requests)} by {live}"
            return f"There are too few answers to compare failures: {counts}."
