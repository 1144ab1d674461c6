"""What a version is held against: the learning curve as a chart, the controls as rows and sentences."""

import math
from collections.abc import Callable

import msgspec

from training.reports.loss_curve import Tick
from training.results import Controls, LossChange, TrainedControl


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A point and its interval, ``low`` to ``high``, in a box of 100 by 100, y downwards."""

    x: float
    y: float
    low: float | None
    high: float | None
    text: str


class LearningCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Perplexity over training conversations, both logarithmic; ``line`` as SVG's ``x,y x,y``."""

    points: list[Point]
    line: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str


CONTROL_COLUMNS = (
    "conversations",
    "tokens",
    "epochs",
    "minutes",
    "perplexity",
    "95 % interval",
    "words (F1)",
)


class ControlRow(msgspec.Struct, frozen=True):
    """One model's figures as text, in the order of ``CONTROL_COLUMNS``."""

    name: str
    conversations: str
    tokens: str
    epochs: str
    minutes: str
    perplexity: str
    interval: str
    token_f1: str


def learning_curve(controls: Controls) -> LearningCurve | None:
    """Lay the curve out; None where there are not two points with a perplexity."""
    known = [(each, each.scores.perplexity) for each in controls.curve if each.scores.perplexity]
    if len(known) < 2:  # noqa: PLR2004 - a line
        return None
    ends = [
        value
        for each, perplexity in known
        for value in (perplexity, each.scores.perplexity_low, each.scores.perplexity_high)
        if value
    ]
    marks = _log_marks(min(ends), max(ends))
    bottom, top = math.log(min(marks[0], *ends)), math.log(max(marks[-1], *ends))
    first, last = (math.log(known[end][0].conversations) for end in (0, -1))

    def x(conversations: int) -> float:
        return round(100 * (math.log(conversations) - first) / ((last - first) or 1), 2)

    def y(perplexity: float) -> float:
        return round(100 * (top - math.log(perplexity)) / ((top - bottom) or 1), 2)

    points = [
        Point(
            x=x(each.conversations),
            y=y(perplexity),
            low=y(each.scores.perplexity_low) if each.scores.perplexity_low else None,
            high=y(each.scores.perplexity_high) if each.scores.perplexity_high else None,
            text=f"{each.conversations:,} conversations: {perplexity:.2f}{_interval(each, ', ')}",
        )
        for each, perplexity in known
    ]
    return LearningCurve(
        points=points,
        line=" ".join(f"{point.x},{point.y}" for point in points),
        x_ticks=[Tick(x(each.conversations), f"{each.conversations:,}") for each, _ in known],
        y_ticks=[Tick(y(mark), f"{mark:g}") for mark in marks],
        summary=f"held-out perplexity from {known[0][1]:.2f} with {known[0][0].conversations:,} "
        f"conversations to {known[-1][1]:.2f} with {known[-1][0].conversations:,}",
    )


def _log_marks(least: float, most: float) -> list[float]:
    """Round numbers within an interval above 0, and the next ones around it."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    few, many = (
        [round(digit * 10.0**power, 6) for power in powers for digit in digits]
        for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
    )
    marks = few if most > 10 * least else many
    below = max(mark for mark in marks if mark <= least)
    above = min((mark for mark in marks if mark >= most), default=most)
    return [mark for mark in marks if below <= mark <= above]


def control_rows(controls: Controls) -> list[ControlRow]:
    """The table of the controls; the version is the last part of the curve."""
    whole = controls.curve[-1].conversations
    rows = [
        _row("this version" if each is controls.curve[-1] else f"{share:.0%} of the data", each)
        for each in controls.curve
        for share in (each.conversations / whole,)
    ]
    return [*rows, *([_row("from scratch", controls.scratch)] if controls.scratch else [])]


def _row(name: str, control: TrainedControl) -> ControlRow:
    scores = control.scores
    return ControlRow(
        name,
        f"{control.conversations:,}",
        f"{control.tokens:,}",
        f"{control.epochs:.1f}",
        f"{control.seconds / 60:.1f}",
        f"{scores.perplexity:,.2f}" if scores.perplexity else "-",
        _interval(control) or "-",
        f"{scores.token_f1:.2f}" if scores.replies else "-",
    )


def _interval(control: TrainedControl, before: str = "") -> str:
    low, high = control.scores.perplexity_low, control.scores.perplexity_high
    return f"{before}{low:,.2f} to {high:,.2f}" if low and high else ""


def control_findings(controls: Controls) -> list[str]:
    """Sentences: what pre-training was worth, and whether more conversations would help."""
    found = [
        _scratch_sentence(controls),
        _doubling_sentence(controls),
        _unread_sentence(controls.curve[-1]),
    ]
    return [sentence for sentence in found if sentence]


def _scratch_sentence(controls: Controls) -> str:
    change, scratch = controls.pretraining, controls.scratch
    if scratch is None or change is None:
        note = controls.scratch_note
        return f"{note[0].upper()}{note[1:]}." if note else ""
    said = f"The same model from random weights, trained on as many tokens ({scratch.tokens:,})"
    if scratch.scores.perplexity is None:
        return f"{said}, has no finite perplexity."
    factor = LossChange(
        mean=-change.mean,
        low=None if change.high is None else -change.high,
        high=None if change.low is None else -change.low,
        conversations=change.conversations,
    )
    return (
        f"{said}, has {_ratio(factor.mean)} times this version's perplexity"
        f"{_between(factor, _ratio)}: {scratch.scores.perplexity:,.1f} against "
        f"{controls.curve[-1].scores.perplexity:,.2f}."
    )


def _doubling_sentence(controls: Controls) -> str:
    change = controls.last_doubling
    if change is None or len(controls.curve) < 2:  # noqa: PLR2004
        return ""
    half, whole = controls.curve[-2].conversations, controls.curve[-1].conversations
    said = (
        f"From {half:,} to {whole:,} conversations, on as many tokens, perplexity "
        f"{'fell' if change.mean < 0 else 'rose'} by {abs(math.expm1(change.mean)):.0%}"
        f"{_between(change, _percent)}"
    )
    if change.low is None or change.high is None:
        return f"{said}: too little was held out to say whether more of them would help."
    if change.high < 0:
        return f"{said}: more of them would probably help further."
    if change.low > 0:
        return f"{said}: more like them would not help with this training."
    return f"{said}: this does not tell whether more of them would help."


def _unread_sentence(version: TrainedControl) -> str:
    if version.epochs >= 1:
        return ""
    return (
        f"This version was trained on {version.epochs:.0%} of what its conversations hold: train it "
        "longer before you collect more."
    )


def _ratio(nats: float) -> str:
    value = math.exp(min(nats, 99.0))
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004


def _percent(nats: float) -> str:
    return f"{math.expm1(min(nats, 99.0)):+.0%}"


def _between(change: LossChange, form: Callable[[float], str]) -> str:
    if change.low is None or change.high is None:
        return ""
    return f" (95 % interval {form(change.low)} to {form(change.high)})"
