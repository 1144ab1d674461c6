"""From single replies to scores: means, and how sure the differences are."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple

from training.evaluation import Difference, Reply, Scores, Subject, perplexity
from training.replies import bootstrap_interval

_METRICS: tuple[Literal["exact", "token_f1", "similarity"], ...] = (
    "exact",
    "token_f1",
    "similarity",
)


class Comparison(NamedTuple):
    """``accuracy``: share of comparisons that the wanted side wins, a tie being half a win.

    ``margin``: by how much, on average.
    """

    accuracy: float
    margin: float


def compare(
    wanted: Sequence[float], unwanted: Sequence[float], *, paired: bool
) -> Comparison | None:
    """Compare pair by pair, or each wanted with each unwanted; None where there is nothing to."""
    pairs = list(zip(wanted, unwanted, strict=True) if paired else product(wanted, unwanted))
    if not pairs:
        return None
    won = sum((one > other) + (one == other) / 2 for one, other in pairs)
    margin = sum(one - other for one, other in pairs) / len(pairs)
    return Comparison(won / len(pairs), margin)


class Liked(NamedTuple):
    """Log-probabilities of each wanted and each unwanted reply's tokens, under one model."""

    wanted: Sequence[Sequence[float]]
    unwanted: Sequence[Sequence[float]]


class Preferences(NamedTuple):
    """See `training.evaluation.Scores`."""

    accuracy: float | None = None
    margin: float | None = None
    gain: float | None = None


def shared_preferences(one: Liked | None, *, base: Liked, paired: bool) -> Preferences:
    """How far a model shares the preferences, and moved towards them from the base."""
    if one is None or not one.unwanted:
        return Preferences()
    means = (
        [math.fsum(reply) / len(reply) for reply in replies]
        for replies in (one.wanted, one.unwanted)
    )
    found = compare(*means, paired=paired)
    if found is None or not math.isfinite(found.margin):
        return Preferences()
    if one is base:
        return Preferences(found.accuracy, found.margin)
    gains = (
        [math.fsum(now) - math.fsum(then) for now, then in zip(replies, before, strict=True)]
        for replies, before in zip(one, base, strict=True)
    )
    moved = compare(*gains, paired=paired)
    return Preferences(found.accuracy, found.margin, moved and moved.accuracy)


def scores_of(
    replies: Sequence[Reply],
    *,
    nats: float | None,
    tokens: int,
    preferences: Preferences = Preferences(),  # noqa: B008 - immutable
) -> Scores:
    """Means over replies; ``nats`` is None for a subject without a model."""
    found = perplexity(nats)
    return Scores(
        perplexity=found,
        nats_per_token=nats if found is not None else None,
        tokens=tokens if nats is not None else 0,
        exact=_mean(replies, "exact"),
        token_f1=_mean(replies, "token_f1"),
        similarity=_mean(replies, "similarity"),
        replies=len(replies),
        preference_accuracy=preferences.accuracy,
        preference_margin=preferences.margin,
        preference_gain=preferences.gain,
    )


def differences_of(
    replies: Mapping[Subject, Sequence[Reply]], *, seed: int
) -> tuple[Difference, ...]:
    """New minus every other subject, context by context, for each metric."""
    found: list[Difference] = []
    for against, others in replies.items():
        if against == "new" or not others:
            continue
        for metric in _METRICS:
            gaps = [
                float(getattr(new, metric)) - float(getattr(other, metric))
                for new, other in zip(replies["new"], others, strict=True)
            ]
            low, high = bootstrap_interval(gaps, seed=seed)
            mean = sum(gaps) / len(gaps)
            found.append(Difference(metric=metric, against=against, mean=mean, low=low, high=high))
    return tuple(found)


def _mean(replies: Sequence[Reply], metric: str) -> float:
    return sum(float(getattr(r, metric)) for r in replies) / len(replies) if replies else 0.0
