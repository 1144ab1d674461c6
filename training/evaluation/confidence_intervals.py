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

POWER = 0.8
"""Chance that as many items as `items_needed` says do tell, where the difference is what was measured
(Cohen 1988 has this value as the usual one)."""


def share_interval(share: float, count: int) -> tuple[float, float] | None:
    """Wilson's score interval of a share of ``count`` items; None where there are no items.

    Wilson 1927. Unlike the normal approximation it is right for small counts and for shares near 0
    and 1 (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion").
    """
    return None if count < 1 else _wilson(share, count)


def _wilson(share: float, count: float) -> tuple[float, float]:
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


def paired_share_difference_interval(
    both: float, first: float, second: float, neither: float
) -> tuple[float, float]:
    """Interval of the difference of two shares of the same items, the first less the second.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based
    on paired data", method 10: from Wilson's intervals of both, narrower the more they go together.
    A bootstrap of rare events is no rival: where neither happened in six items it gives 0 to 0.

    Args:
        both: Items that both count; need not be whole, where items stand for several.
        first: Items that the first alone counts.
        second: Items that the second alone counts.
        neither: Items that neither counts.

    Raises:
        ValueError: there are no items.
    """
    count = both + first + second + neither
    if count <= 0:
        raise ValueError("a share of no items has no interval")
    share, other = (both + first) / count, (both + second) / count
    low, high = _wilson(share, count)
    other_low, other_high = _wilson(other, count)
    agreement = both * neither - first * second
    if agreement > 0:  # his correction for continuity
        agreement = max(0.0, agreement - count / 2)
    spread = count * count * math.sqrt(share * (1 - share) * other * (1 - other))
    phi = agreement / spread if spread else 0.0

    def end(mine: float, theirs: float) -> float:
        return math.sqrt(max(0.0, mine * mine - 2 * phi * mine * theirs + theirs * theirs))

    difference = share - other
    return (
        difference - end(share - low, other_high - other),
        difference + end(high - share, other - other_low),
    )


def items_needed(gap: float, *, low: float, high: float, items: int) -> int | None:
    """How many items would tell a difference from a bound, if it is as far from it as was measured.

    n = ((z of the interval + z of `POWER`) * sd / gap)^2 with the standard deviation of the paired
    differences, as in Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), on power analysis.
    The deviation is taken from the interval: its width is 2 z sd / sqrt(items).

    Args:
        gap: The measured difference minus the bound.
        low: The lower end of the difference's interval.
        high: The upper end.
        items: How many independent items it was measured on.

    Returns:
        None where it cannot be said: nothing was measured, or the difference lies on the bound.
    """
    if items < 1 or not gap or high <= low:
        return None
    z, power = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2), NormalDist().inv_cdf(POWER)
    return max(items + 1, math.ceil(items * ((1 + power / z) * (high - low) / 2 / gap) ** 2))


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
