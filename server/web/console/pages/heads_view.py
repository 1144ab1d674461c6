"""How heads look: what was measured in words, and a chart of what one said by day."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

from server.db.models import Head, HeadState
from server.heads.listing import Measured, measured
from server.heads.schemas import DayCount
from server.web.console.figures import NOTHING, number
from server.web.console.pages.usage_view import day_labels, day_text
from server.web.console.plots import Columns, draw_columns
from training.evaluation.gates import WORDS, Gate
from training.evaluation.verdicts import Result

STATES: dict[HeadState, tuple[str, str]] = {
    "queued": ("Waits its turn", ""),
    "running": ("Being trained", "cand"),
    "ready": ("Ready", ""),
    "failed": ("Failed", "bad"),
}
_TONES: dict[Result, str] = {"better": "ok", "worse": "bad", "cannot_tell": "warn"}
_GATES = {
    "majority": "Better than always saying the commonest label",
    "live": "Better than the live version",
}
_KINDS = ("first", "second", "third", "others")
"""Classes of a column's parts: the commonest labels, and all others."""


class Row(NamedTuple):
    """A version in a table. ``tone`` and ``verdict_tone`` are those of chips."""

    version: int
    task: str
    state: str
    tone: str
    going: bool
    part: int
    live: bool
    accuracy: str
    interval: str
    balanced: str
    baseline: str
    ece: str
    verdict: str
    verdict_tone: str
    head: Head


class Said(NamedTuple):
    """What a head said in some days. ``rows``: (label, messages, share); ``days``: (day, figures)."""

    total: int
    rows: list[tuple[str, str, str]]
    names: list[tuple[str, str]]
    days: list[tuple[str, list[str]]]
    plot: Columns | None
    words: str


def row_of(head: Head) -> Row:
    """A version as tables show it."""
    found = measured(head)
    word, tone = ("Live", "live") if head.live else STATES[head.state]
    going = head.state in {"queued", "running"}
    figures = _figures(found) if found else (NOTHING, "", NOTHING, NOTHING, NOTHING)
    result = found.verdict.result if found else None
    return Row(
        head.version,
        head.task,
        word,
        tone,
        going,
        round(100 * head.progress),
        head.live,
        *figures,
        WORDS[result].capitalize() if result else "",
        _TONES[result] if result else "",
        head,
    )


def _figures(found: Measured) -> tuple[str, str, str, str, str]:
    scores = found.scores
    return (
        share(scores.accuracy),
        f"{share(scores.accuracy_low)} to {share(scores.accuracy_high)}",
        share(scores.balanced_accuracy),
        NOTHING if found.baseline is None else share(found.baseline),
        f"{scores.ece:.2f}",
    )


def gate_items(found: Measured) -> list[dict[str, str]]:
    """The gates of a version, for ``components/gates.html``."""
    return [
        {
            "name": _GATES.get(gate.name, gate.name),
            "note": f"{gate.why[:1].upper()}{gate.why[1:]}.",
            "state": _TONES[_result(gate)],
            "word": WORDS[_result(gate)].capitalize(),
        }
        for gate in found.verdict.gates
    ]


def _result(gate: Gate) -> Result:
    return gate.result or "cannot_tell"


def verdict_words(found: Measured) -> str:
    """What the gates say of a version, in a sentence."""
    return {
        "better": "It is better than what it was held against.",
        "worse": "It is worse than something that it was held against.",
        "cannot_tell": "Whether it is better cannot be told with so few examples: label more.",
    }[found.verdict.result or "cannot_tell"]


def bin_rows(found: Measured) -> list[tuple[str, str, str, str]]:
    """(probability, how many, mean probability, how many were right) of each bin that is not empty."""
    return [
        (
            f"{share(each.low)} to {share(each.high)}",
            number(each.texts),
            share(each.confidence),
            share(each.accuracy),
        )
        for each in found.scores.bins
        if each.texts
    ]


def label_rows(found: Measured) -> list[tuple[str, str, str, str, str]]:
    """(label, how many have it, precision, recall, F1), by name."""
    return [
        (name, number(each.texts), share(each.precision), share(each.recall), f"{each.f1:.2f}")
        for name, each in sorted(found.scores.labels.items())
    ]


def made_of(head: Head) -> list[tuple[str, str]]:
    """What a version was trained on and how, for ``pairs``."""
    manifest: dict[str, Any] = head.manifest or {}
    encoder = manifest.get("encoder") or {}
    pairs = [("File", head.filename), ("Examples", number(head.texts))]
    if manifest:
        pairs += [
            ("Labels", number(len(manifest.get("labels", ())))),
            ("Encoder", str(encoder.get("name", NOTHING))),
            ("Choice", str(manifest.get("choice") or NOTHING)),
            ("Training", f"{manifest.get('seconds', 0):,.0f} s"),
        ]
    if manifest.get("note"):
        pairs.append(("Note", str(manifest["note"])))
    return pairs


def said_of(found: Sequence[DayCount], *, first: date, last: date) -> Said:
    """What was said from ``first`` to ``last``: the commonest labels by themselves, the others together."""
    totals = Counter[str]()
    for each in found:
        totals[each.label] += each.messages
    ranked = totals.most_common()
    shown = [label for label, _ in ranked[: len(_KINDS) - 1]]
    names = [*shown, "others"] if len(ranked) > len(shown) else shown
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    by_day = {day: [0] * len(names) for day in days}
    for each in found:
        place = shown.index(each.label) if each.label in shown else len(names) - 1
        by_day[each.day][place] += each.messages
    kinds = [*_KINDS[: len(shown)], *_KINDS[3:]][: len(names)]
    total = totals.total()
    plot = draw_columns(
        [(_column(day, names, figures), figures) for day, figures in by_day.items()],
        kinds,
        x_labels=day_labels(days),
    )
    rows = [(label, number(count), share(count / total)) for label, count in ranked]
    return Said(
        total,
        rows,
        list(zip(kinds, names, strict=True)),
        [
            (f"{day.day} {day:%b %Y}", [number(figure) for figure in figures])
            for day, figures in reversed(by_day.items())
        ],
        plot,
        f"In {len(days)} days {number(total)} {'message' if total == 1 else 'messages'} got a label: "
        + ", ".join(f"{label} {portion}" for label, _, portion in rows[: len(_KINDS)])
        + ".",
    )


def share(value: float | None) -> str:
    """``93 %``; a dash where it is unknown."""
    return NOTHING if value is None else f"{100 * value:.0f} %"


def _column(day: date, names: Sequence[str], figures: Sequence[int]) -> str:
    parts = ", ".join(f"{figure} {name}" for name, figure in zip(names, figures, strict=True))
    return f"{day_text(day)}: {parts}"
