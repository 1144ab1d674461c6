"""What the scores show, in sentences and table rows, beside the trivial baseline."""

import math
from collections.abc import Sequence

import msgspec

from training.evaluation.verdicts import (
    LOWER_IS_BETTER,
    WORDS,
    Comparison,
    Result,
    comparisons_of,
    shown_count,
)
from training.results import Evaluation, Scores, Subject

SUBJECTS: dict[Subject, str] = {
    "base": "the model as it was, with the same system prompt",
    "base_retrieval": "the model as it was, shown the past exchanges that this adapter is shown",
    "new_plain": "the model with this adapter, shown no past exchanges",
    "new": "the model with this adapter, as it would be served",
    "live": "the model with the adapter that answers customers now",
    "lookup": "no model: the reply that followed the nearest training question",
}
TITLES: dict[Subject, str] = {
    "base": "base",
    "base_retrieval": "base + retrieval",
    "new_plain": "new, no retrieval",
    "new": "new",
    "live": "live",
    "lookup": "lookup",
}
_METRICS: dict[str, str] = {
    "exact": "identical replies",
    "token_f1": "shared words",
    "similarity": "meaning",
    "nats_per_token": "perplexity",
    "preference_accuracy": "preferred replies",
    "preference_margin": "margin of preferred replies",
    "facts": "facts",
    "invented": "invented facts",
    "inventing": "replies that invent",
}


_OF_REPLIES = ("exact", "token_f1", "similarity", "facts", "invented", "inventing")


class Cell(msgspec.Struct, frozen=True):
    """A figure; ``best``: no other in its row is better."""

    text: str
    best: bool


class ScoreRow(msgspec.Struct, frozen=True):
    """A measure, what it means, and one cell for each subject."""

    title: str
    hint: str
    cells: list[Cell]


class DifferenceRow(msgspec.Struct, frozen=True):
    """New minus another subject; ``verdict`` says the ``result`` in words."""

    against: str
    measure: str
    mean: str
    interval: str
    result: Result
    verdict: str


_ROWS = (
    ("preference_accuracy", "Preferred", "wanted replies likelier than unwanted ones", "{:.0%}"),
    ("preference_gain", "Gained", "wanted replies on unwanted ones, since the base", "{:.0%}"),
    ("perplexity", "Perplexity", "of held-out replies; lower is better", "{:.2f}"),
    ("exact", "Identical", "replies just like the agent's", "{:.0%}"),
    ("token_f1", "Words", "in common with the agent's reply, F1", "{:.2f}"),
    ("similarity", "Meaning", "like the agent's reply, cosine", "{:.2f}"),
    ("facts", "Facts", "of the agent's reply: amounts, dates, links, products", "{:.0%}"),
    ("invented", "Invented", "facts a reply that nobody has said; lower is better", "{:.2f}"),
    (
        "inventing",
        "Inventing",
        "replies with a fact that nobody has said; lower is better",
        "{:.0%}",
    ),
)
_OF_FACTS = ("facts", "invented", "inventing")


def score_rows(evaluation: Evaluation) -> tuple[list[str], list[ScoreRow]]:
    """(column names, rows) of the table of scores."""
    found: list[tuple[str, Scores]] = [
        (TITLES[name], scores) for name, scores in evaluation.scores().items()
    ]
    rows: list[ScoreRow] = []
    for field, title, hint, form in _ROWS:
        if field.startswith("preference") and evaluation.comparisons is None:
            continue
        values: list[float | None] = [getattr(scores, field) for _, scores in found]
        texts = ["-" if value is None else form.format(value) for value in values]
        known = [value for value in values if value is not None]
        if field in _OF_FACTS and not any(value is not None for value in values):
            continue
        lower = field == "perplexity" or field in LOWER_IS_BETTER
        best = (min if lower else max)(known, default=None)
        shown = None if best is None or len(set(known)) == 1 else form.format(best)
        rows.append(ScoreRow(title, hint, [Cell(text, text == shown) for text in texts]))
    return [name for name, _ in found], rows


def difference_rows(evaluation: Evaluation) -> list[DifferenceRow]:
    """The differences with their intervals and verdicts as text; of perplexities, the ratio."""
    return [
        DifferenceRow(
            against=TITLES[each.against],
            measure=_METRICS[each.metric],
            mean=_figure(each, each.mean),
            interval="-"
            if each.low is None or each.high is None
            else f"{_figure(each, each.low)} to {_figure(each, each.high)}",
            result=each.result,
            verdict=each.words,
        )
        for each in comparisons_of(evaluation)
    ]


def _figure(found: Comparison, value: float) -> str:
    if found.metric == "nats_per_token":
        return f"x {math.exp(min(value, 99.0)):.2f}"
    return f"{value:+.2f}"


def findings(evaluation: Evaluation) -> list[str]:
    """One sentence for each subject that the new adapter is compared with, and about certainty."""
    sentences: list[str] = []
    new = evaluation.new
    models: list[tuple[Subject, Scores]] = [
        (name, scores)
        for name, scores in evaluation.scores().items()
        if name not in ("new", "lookup")
    ]
    if new.preference_accuracy is not None:
        others = [
            f"{scores.preference_accuracy:.0%} for {_name(name)}"
            for name, scores in models
            if scores.preference_accuracy is not None
        ]
        sentences.append(
            f"The wanted reply is the likelier one in {new.preference_accuracy:.0%} of "
            f"{evaluation.comparisons:,} comparisons ({', '.join(others)})."
        )
    if new.preference_gain is not None:
        sentences.append(
            f"Training made the wanted reply gain on the other in {new.preference_gain:.0%} of them."
        )
    for name, scores in models:
        if new.perplexity and scores.perplexity:
            # paired: the live adapter may have been scored on a part of the data only
            paired = evaluation.difference("nats_per_token", name)
            nats = paired.mean if paired else math.log(new.perplexity / scores.perplexity)
            change = math.exp(min(nats, 99.0)) - 1
            sentences.append(
                f"Perplexity is {abs(change):.0%} {'lower' if change <= 0 else 'higher'} than "
                f"{_name(name)}'s over {scores.tokens:,} tokens."
            )
    if evaluation.live_note:
        sentences.append(f"{evaluation.live_note[0].upper()}{evaluation.live_note[1:]}.")
    against: list[Subject] = ["base", "base_retrieval", "new_plain", "live", "lookup"]
    for name in against:
        compared = [
            each
            for each in comparisons_of(evaluation)
            if each.against == name and each.metric in _OF_REPLIES
        ]
        if compared:
            sentences.append(f"Replies against {_name(name)}: {_verdicts(compared)}.")
    widths = [
        d.high - d.low
        for d in evaluation.differences
        if d.metric in _OF_REPLIES and d.low is not None and d.high is not None
    ]
    if widths:
        sentences.append(
            f"{new.replies} replies were compared: a difference below about {max(widths) / 2:.2f} "
            "may be chance."
        )
    elif new.replies:
        sentences.append(
            f"{new.replies} {'reply was' if new.replies == 1 else 'replies were'} compared: too few "
            "to tell anything."
        )
    return sentences


def _name(subject: Subject) -> str:
    names: dict[Subject, str] = {
        "base": "the base",
        "base_retrieval": "the base with retrieval",
        "new_plain": "this adapter without retrieval",
        "live": "the live adapter",
    }
    return names.get(subject, "plain lookup")


def _verdicts(compared: Sequence[Comparison]) -> str:
    """For example "better in meaning; worse in facts; cannot tell with this much data in ..."."""
    parts: list[str] = []
    for result, words in WORDS.items():
        measures = [_measure(each) for each in compared if each.result == result]
        if measures:
            *first, last = measures
            parts.append(f"{words} in {', '.join(first)}{' and ' if first else ''}{last}")
    return "; ".join(parts)


def _measure(found: Comparison) -> str:
    """With how much would tell; the table of differences has the whole words."""
    name = _METRICS[found.metric]
    return name if found.needed is None else f"{name} ({shown_count(found.needed)} would)"
