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
    comparisons: int


def compare(
    wanted: Sequence[float], unwanted: Sequence[float], *, paired: bool
) -> Comparison | None:
    """Compare pair by pair, or each wanted with each unwanted; None where there is nothing to."""
    pairs = list(zip(wanted, unwanted, strict=True) if paired else product(wanted, unwanted))
    if not pairs:
        return None
    won = sum((one > other) + (one == other) / 2 for one, other in pairs)
    margin = sum(one - other for one, other in pairs) / len(pairs)
    return Comparison(won / len(pairs), margin, len(pairs))


def scores_of(
    replies: Sequence[Reply],
    *,
    nats: float | None,
    tokens: int,
    preferred: Comparison | None = None,
) -> Scores:
    """Means over replies; ``nats`` is None for a subject without a model."""
    found = perplexity(nats)
    measured = preferred is not None and math.isfinite(preferred.margin)
    return Scores(
        perplexity=found,
        nats_per_token=nats if found is not None else None,
        tokens=tokens if nats is not None else 0,
        exact=_mean(replies, "exact"),
        token_f1=_mean(replies, "token_f1"),
        similarity=_mean(replies, "similarity"),
        replies=len(replies),
        preference_accuracy=preferred.accuracy if preferred and measured else None,
        preference_margin=preferred.margin if preferred and measured else None,
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
