"""How sure a figure is: intervals that hold what they promise, and say nothing of too little."""

import math
import random

import numpy as np
import pytest
from scipy.stats import bootstrap

from training.evaluation.confidence_intervals import (
    BOOTSTRAP_SAMPLES,
    MIN_SAMPLES,
    bootstrap_interval,
    items_needed,
    paired_share_difference_interval,
    share_difference_interval,
    share_interval,
)
from training.evaluation.scores import (
    ConversationLosses,
    ReplyLogprobs,
    differences_of,
    perplexity_differences,
    preference_differences,
    scores_of,
)
from training.results import Reply


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 10, 0.2366, 0.7634), (0.0, 10, 0.0, 0.2775), (1.0, 1, 0.2065, 1.0)],
)
def test_the_interval_of_a_share_is_wilsons(
    share: float, count: int, low: float, high: float
) -> None:
    # statsmodels 0.14, proportion_confint(share * count, count, method="wilson")
    assert share_interval(share, count) == pytest.approx((low, high), abs=1e-4)
    assert share_interval(share, 0) is None


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_the_interval_of_a_difference_of_shares_is_newcombes(first, second, low, high) -> None:
    assert share_difference_interval(first, second) == pytest.approx((low, high), abs=1e-4)
    other = share_difference_interval(second, first)
    assert other == pytest.approx((-high, -low), abs=1e-4)
    with pytest.raises(ValueError, match="no items"):
        share_difference_interval(first, (0, 0))


def test_the_interval_of_a_difference_of_paired_shares_is_newcombes() -> None:
    # Altman et al. 2000, "Statistics with Confidence", table 6.2: 0.011 to 0.226
    found = paired_share_difference_interval(14, 5, 0, 22)
    assert found == pytest.approx((0.0115, 0.2265), abs=1e-4)
    assert paired_share_difference_interval(14, 0, 5, 22) == pytest.approx(
        (-0.2265, -0.0115), abs=1e-4
    )
    # where nothing happened it is as wide as Wilson's, and not of no width
    assert paired_share_difference_interval(0, 0, 0, 16) == pytest.approx(
        (-0.1936, 0.1936), abs=1e-4
    )
    with pytest.raises(ValueError, match="no items"):
        paired_share_difference_interval(0, 0, 0, 0)


def test_as_many_items_as_are_needed_tell_in_four_of_five_samples() -> None:
    source = np.random.default_rng(5)
    mean, sd = 0.06, 0.3
    pilot = source.normal(mean, sd, 100)
    low, high = bootstrap_interval(pilot.tolist(), seed=1)
    needed = items_needed(mean, low=low, high=high, items=100) or 0
    assert needed == pytest.approx(((1.960 + 0.842) * sd / mean) ** 2, rel=0.25)  # 196
    samples = source.normal(mean, sd, (400, needed))
    told = samples.mean(axis=1) - 1.960 * samples.std(axis=1) / math.sqrt(needed) > 0
    assert 0.7 < told.mean() < 0.9
    assert items_needed(0.0, low=-0.1, high=0.1, items=9) is None
    assert items_needed(0.5, low=0.5, high=0.5, items=9) is None


def test_the_interval_of_a_small_sample_is_wide_and_always_the_same() -> None:
    few, many = [0.0, 1.0] * 4, [0.0, 1.0] * 400
    low, high = bootstrap_interval(few, seed=1)
    assert high - low > 0.5
    assert bootstrap_interval(few, seed=1) == (low, high)
    low, high = bootstrap_interval(many, seed=1)
    assert low < 0.5 < high
    assert high - low < 0.1


@pytest.mark.parametrize("sizes", [None, [3, 40, 7, 12, 90, 5, 31, 8]])
def test_the_interval_is_that_of_scipys_bootstrap(sizes: list[int] | None) -> None:
    source = np.random.default_rng(7)
    values = source.normal(size=8)
    found = bootstrap(
        (values, np.ones(8) if sizes is None else np.array(sizes)),
        lambda totals, weights, axis: totals.sum(axis=axis) / weights.sum(axis=axis),
        n_resamples=BOOTSTRAP_SAMPLES,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    expected = (found.confidence_interval.low, found.confidence_interval.high)
    assert bootstrap_interval(values.tolist(), sizes=sizes, seed=3) == pytest.approx(expected)


def test_the_interval_of_a_mean_over_tokens_draws_whole_conversations() -> None:
    source = random.Random(4)
    held = 0
    for trial in range(100):
        sizes = [source.randint(5, 60) for _ in range(30)]
        # what is within a conversation goes together: its own mean, plus little noise a token
        totals = [size * source.gauss(0.3, 0.2) for size in sizes]
        low, high = bootstrap_interval(totals, sizes=sizes, seed=trial)
        held += low <= 0.3 <= high
    assert 87 <= held <= 99


def losses(means: list[float], *, first: int = 0) -> ConversationLosses:
    """Conversations of 20 tokens each."""
    names = [f"c{first + number}" for number in range(len(means))]
    return ConversationLosses(names, [20 * mean for mean in means], [20] * len(means))


def test_a_difference_in_perplexity_is_of_the_conversations_that_both_have_read() -> None:
    new = losses([1.0] * 10)
    live = losses([1.5] * 7, first=3)
    found = {d.against: d for d in perplexity_differences({"new": new, "live": live}, seed=1)}
    assert found["live"].mean == pytest.approx(-0.5)
    assert found["live"].items == 7
    assert found["live"].low == pytest.approx(-0.5)
    few = perplexity_differences({"new": new, "live": losses([1.5] * 5)}, seed=1)[0]
    assert (few.low, few.high, few.items) == (None, None, 5)
    broken = losses([math.nan] * 10)
    assert perplexity_differences({"new": broken, "base": new}, seed=1) == ()


def rated(*similarity: float) -> list[Reply]:
    return [Reply(text="x", exact=False, token_f1=0.5, similarity=s) for s in similarity]


def test_replies_of_one_conversation_count_as_one_item() -> None:
    replies = {"base": rated(*[0.2] * 12), "new": rated(*[0.6, 0.7] * 6)}
    apart = differences_of(replies, conversations=[str(n) for n in range(12)], seed=1)  # type: ignore[arg-type]
    one = differences_of(replies, conversations=["only"] * 12, seed=1)  # type: ignore[arg-type]
    assert {d.items for d in apart} == {12}
    assert {(d.items, d.low) for d in one} == {(1, None)}
    assert apart[2].mean == one[2].mean == pytest.approx(0.45)


def test_a_reply_that_is_not_compared_is_left_out() -> None:
    live = [None if number % 2 else reply for number, reply in enumerate(rated(*[0.5] * 12))]
    replies = {"live": live, "new": rated(*[0.6] * 12)}
    found = differences_of(replies, conversations=[str(n) for n in range(12)], seed=1)  # type: ignore[arg-type]
    assert {d.items for d in found} == {6}
    assert scores_of(live, losses=None).replies == 6


def test_perplexity_has_an_interval_once_there_are_enough_conversations() -> None:
    found = scores_of([], losses=losses([1.0, 1.2] * 6))
    assert found.perplexity == pytest.approx(math.exp(1.1))
    assert found.perplexity_low is not None
    assert found.perplexity_high is not None
    assert found.perplexity_low < math.exp(1.1) < found.perplexity_high
    assert scores_of([], losses=losses([1.0] * (MIN_SAMPLES - 1))).perplexity_low is None
    nothing = scores_of([], losses=ConversationLosses([], [], []))
    assert (nothing.perplexity, nothing.tokens) == (None, 0)


@pytest.mark.parametrize("paired", [True, False])
def test_preferences_differ_by_comparisons_and_by_margins(paired: bool) -> None:
    base = ReplyLogprobs([[-2.0]] * 12, [[-2.0 + 0.1 * (n % 3 - 1)] for n in range(12)])
    new = ReplyLogprobs([[-1.0]] * 12, base.undesirable)
    accuracy, margin = preference_differences(new, base, paired=paired, seed=1)
    assert (accuracy.metric, margin.metric) == ("preference_accuracy", "preference_margin")
    assert accuracy.items == margin.items == 12
    assert accuracy.low is not None
    assert accuracy.mean == pytest.approx(0.5)  # of the base, a win, a tie and a loss in turn
    assert accuracy.low > 0
    assert margin.mean == margin.low == pytest.approx(1.0)
    few, _ = preference_differences(
        ReplyLogprobs(new.desirable[:5], new.undesirable[:5]),
        ReplyLogprobs(base.desirable[:5], base.undesirable[:5]),
        paired=paired,
        seed=1,
    )
    assert (few.items, few.low) == (5, None)
