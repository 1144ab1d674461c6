"""What the pages about versions show, as their templates want it: words and figures of services' facts."""

import datetime
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from server.adapters.schemas import PromotionView
from server.adapters.versions import Standing, Version
from server.db.models import DatasetVersion
from server.jobs.declared_gates import GateState, decided_gates
from server.web.console.figures import NOTHING, duration, number
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
_AT_MOST = frozenset({"perplexity_ratio", "live_perplexity_ratio", "parity", "perplexity"})
_SHARES = frozenset({"exact", "preference_accuracy"})
_COLUMNS = {"base": ("base", "Base"), "new": ("cand", "This"), "live": ("live", "Live then")}


class Span(NamedTuple):
    """An interval and its bound as places in [0, 100]; ``low`` is None where there is no interval."""

    low: float | None
    width: float
    value: float
    bound: float


def row_of(version: Version) -> dict[str, Any]:
    """A version as tables show it."""
    word, tone = _STANDINGS[version.standing]
    return {
        "version": version.version,
        "name": version.name,
        "state": word,
        "tone": tone,
        "perplexity": number(version.perplexity, 2),
        "token_f1": number(version.token_f1, 2),
        "parity": number(version.parity, 4),
        "conversations": number(version.conversations),
        "created_at": version.created_at,
    }


def step_of(step: PromotionView, slug: str, names: dict[str | None, str]) -> dict[str, Any]:
    """A change of what is live, in words."""
    before, after = _named(slug, step.from_version), _named(slug, step.to_version)
    return {
        "revision": step.revision,
        "rollback": step.kind == "rollback",
        "text": f"Rolled back from {before} to {after}"
        if step.kind == "rollback"
        else f"{after} went live in place of {before}",
        "version": step.to_version,
        "who": who(step.actor, names),
        "at": step.created_at,
    }


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
    if gate.name == "similarity_gain":
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
