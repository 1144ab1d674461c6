"""How sure a figure is: what gates and reports ask before they believe a difference."""

import math
from statistics import NormalDist

CONFIDENCE = 0.95
"""Of every interval here. A gate looks at one end of it, so it is wrong once in forty times."""

MIN_SAMPLES = 6
"""Paired items below which nothing is said of a difference: by the sign test, five that all point the
same way happen once in sixteen times by chance (2 x 0.5^5), six once in 32, under one in twenty."""


def share_interval(share: float, count: int) -> tuple[float, float] | None:
    """Wilson's score interval of a share of ``count`` items; None of no items.

    Wilson 1927; unlike the usual one it is right for small counts and for shares near 0 and 1
    (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion").
    """
    if count < 1:
        return None
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
