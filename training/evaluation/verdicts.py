"""Verdicts in words: is the served assistant better, worse, or can nobody tell with this much data?

A verdict is read from the interval of a difference (`training.results.Difference`), of paired figures
over the same held-out data. Where it cannot tell, it says how much data would.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from training.evaluation.confidence_intervals import MIN_SAMPLES, items_needed
from training.results import Difference, Evaluation, Metric, Subject

Result = Literal["better", "worse", "cannot_tell"]
WORDS: Mapping[Result, str] = {
    "better": "better",
    "worse": "worse",
    "cannot_tell": "cannot tell with this much data",
}

Unit = Literal["replies", "conversations", "comparisons"]

LOWER_IS_BETTER: frozenset[Metric] = frozenset({"nats_per_token", "invented", "inventing"})
_UNITS: Mapping[Metric, Unit] = {
    "nats_per_token": "conversations",
    "preference_accuracy": "comparisons",
    "preference_margin": "comparisons",
}
_MANY = 100_000


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The served assistant against another subject, by one measure.

    ``mean``, ``low`` and ``high`` are those of the difference. ``compared``: how many held-out replies,
    conversations or comparisons (``unit``) it is of. ``needed``: about how many would tell; None where
    the verdict is clear, or that cannot be said. ``words``: the whole verdict.
    """

    against: Subject
    metric: Metric
    result: Result
    mean: float
    low: float | None
    high: float | None
    compared: int
    unit: Unit
    needed: int | None
    words: str


def comparisons_of(evaluation: Evaluation) -> tuple[Comparison, ...]:
    """A verdict on each measured difference, in the order of ``evaluation.differences``."""
    return tuple(_compare(evaluation, each) for each in evaluation.differences)


def result_of(difference: Difference) -> Result:
    """Whether the whole interval is on one side of no difference."""
    if difference.low is None or difference.high is None:
        return "cannot_tell"
    above, below = difference.low > 0, difference.high < 0
    if difference.metric in LOWER_IS_BETTER:
        above, below = below, above
    if above:
        return "better"
    return "worse" if below else "cannot_tell"


def data_needed(evaluation: Evaluation, difference: Difference, bound: float = 0.0) -> str:
    """In words, how much held-out data would tell on which side of a bound a difference is.

    For example ``about 210 held-out replies would tell, 16 were compared``; the source of the method is
    in `training.evaluation.confidence_intervals.items_needed`.
    """
    unit, items = _unit(difference), difference.items
    if difference.low is None or difference.high is None:
        return too_few(items, "comparison" if unit == "comparisons" else "conversation")
    needed = needed_of(evaluation, difference, bound)
    compared = f"{compared_of(evaluation, difference):,} were compared"
    if needed is None:
        return f"nobody can say how many {unit} would, {compared}"
    return f"{shown_count(needed)} held-out {unit} would be needed to tell, {compared}"


def shown_count(needed: int) -> str:
    """Such as ``about 210``: to two digits, since it is an estimate."""
    if needed > _MANY:
        return f"more than {_MANY:,}"
    step = 10 ** max(0, len(str(needed)) - 2)
    return f"about {round(needed / step) * step:,}"


def too_few(items: int, what: str = "conversation") -> str:
    """In words, that a figure of ``items`` conversations has no interval."""
    which = f"one {what} is" if items == 1 else f"{items} {what}s are"
    return f"{which} too few to tell, {MIN_SAMPLES} are needed"


def needed_of(evaluation: Evaluation, difference: Difference, bound: float = 0.0) -> int | None:
    """About how many replies, conversations or comparisons would tell; None where nobody can say."""
    if difference.low is None or difference.high is None:
        return None
    items = items_needed(
        difference.mean - bound, low=difference.low, high=difference.high, items=difference.items
    )
    if items is None:
        return None
    # several replies of one conversation are one item
    return round(items * compared_of(evaluation, difference) / difference.items)


def compared_of(evaluation: Evaluation, difference: Difference) -> int:
    """How many replies, conversations or comparisons a difference is of."""
    if _unit(difference) != "replies":
        return difference.items
    other = evaluation.scores().get(difference.against)
    return min(evaluation.new.replies, other.replies if other else evaluation.new.replies)


def _compare(evaluation: Evaluation, difference: Difference) -> Comparison:
    result = result_of(difference)
    words = WORDS[result]
    if result == "cannot_tell":
        words += f": {data_needed(evaluation, difference)}"
    return Comparison(
        against=difference.against,
        metric=difference.metric,
        result=result,
        mean=difference.mean,
        low=difference.low,
        high=difference.high,
        compared=compared_of(evaluation, difference),
        unit=_unit(difference),
        needed=needed_of(evaluation, difference) if result == "cannot_tell" else None,
        words=words,
    )


def _unit(difference: Difference) -> Unit:
    return _UNITS.get(difference.metric, "replies")
