"""How sure a figure is: gates and reports ask here before they believe a difference."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
"""Of every interval here. A gate looks at one end of it, so it is wrong once in forty times."""

MIN_SAMPLES = 6
"""Paired items that a difference needs before it gets an interval. By the sign test, five items that
all point the same way happen by chance once in 16 times (2 x 0.5^5), six once in 32 times, which is
under one in twenty."""

BOOTSTRAP_SAMPLES = 2_000
"""Resamples of a bootstrap interval."""


def share_interval(share: float, count: int) -> tuple[float, float] | None:
    """Wilson's score interval of a share of ``count`` items; None where there are no items.

    Wilson 1927. Unlike the normal approximation it is right for small counts and for shares near 0
    and 1 (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion").
    """
    if count < 1:
        return None
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def share_difference_interval(
    first: tuple[int, int], second: tuple[int, int]
) -> tuple[float, float]:
    """Interval of the difference of two shares of different items, each (count, of), first less second.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10:
    from Wilson's intervals of both. Unlike the normal approximation it stays within [-1, 1], and is right
    where nothing or all was counted.

    Raises:
        ValueError: there are no items.
    """
    shares = [count / of if of else 0.0 for count, of in (first, second)]
    ends = [
        share_interval(share, of) for share, (_, of) in zip(shares, (first, second), strict=True)
    ]
    if ends[0] is None or ends[1] is None:
        raise ValueError("a share of no items has no interval")
    (low, high), (other_low, other_high) = ends[0], ends[1]
    share, other = shares
    return (
        share - other - math.hypot(share - low, other_high - other),
        share - other + math.hypot(high - share, other - other_low),
    )


def bootstrap_interval(
    differences: Sequence[float],
    *,
    seed: int,
    sizes: Sequence[float] | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences (Efron 1979).

    ``scipy.stats.bootstrap`` draws the same resamples from the same seed and agrees to the last
    digits (a test compares them). It is not used here: importing it takes 2 s, a call on 24
    conversations takes three times as long, and the last digits of old reports would change.

    Args:
        differences: One total for each item.
        seed: The same seed gives the same interval.
        sizes: How many tokens or replies each total is of. The interval is then of the sum of
            differences over the sum of sizes: items are drawn whole, since what is within one (the
            tokens of a conversation) is not independent.
        confidence: Share of such intervals that hold the true mean.
    """
    values = np.asarray(differences, dtype=np.float64)
    weights = np.ones_like(values) if sizes is None else np.asarray(sizes, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(
        0, len(values), size=(BOOTSTRAP_SAMPLES, len(values))
    )
    means = values[picks].sum(axis=1) / weights[picks].sum(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
