"""From single replies to scores: means, differences, and intervals around them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from training.evaluation.confidence_intervals import (
    BOOTSTRAP_SAMPLES,
    CONFIDENCE,
    MIN_SAMPLES,
    bootstrap_interval,
    paired_share_difference_interval,
)
from training.results import (
    Difference,
    FactCount,
    LossChange,
    Metric,
    Reply,
    Scores,
    Subject,
    perplexity,
)

Grid = npt.NDArray[np.float64]

_METRICS: tuple[Literal["exact", "token_f1", "similarity"], ...] = (
    "exact",
    "token_f1",
    "similarity",
)


class Comparison(NamedTuple):
    """Desirable against undesirable replies.

    ``accuracy``: the share of comparisons that the desirable reply wins; a tie is half a win.
    ``margin``: by how much it wins, on average.
    """

    accuracy: float
    margin: float


def compare(
    desirable: Sequence[float], undesirable: Sequence[float], *, paired: bool
) -> Comparison | None:
    """Compare pair by pair, or each desirable with each undesirable; None without any pair."""
    pairs = list(
        zip(desirable, undesirable, strict=True) if paired else product(desirable, undesirable)
    )
    if not pairs:
        return None
    won = sum((one > other) + (one == other) / 2 for one, other in pairs)
    margin = sum(one - other for one, other in pairs) / len(pairs)
    return Comparison(won / len(pairs), margin)


class ReplyLogprobs(NamedTuple):
    """Under one model, the log-probabilities of the tokens of each reply of either sort."""

    desirable: Sequence[Sequence[float]]
    undesirable: Sequence[Sequence[float]]


class Preferences(NamedTuple):
    """The three preference figures of `training.results.Scores`."""

    accuracy: float | None = None
    margin: float | None = None
    gain: float | None = None


def shared_preferences(
    one: ReplyLogprobs | None, *, base: ReplyLogprobs, paired: bool
) -> Preferences:
    """How far a model shares the preferences, and moved towards them from the base."""
    if one is None or not one.undesirable:
        return Preferences()
    means = (
        [math.fsum(reply) / len(reply) for reply in replies]
        for replies in (one.desirable, one.undesirable)
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


class ConversationLosses(NamedTuple):
    """What a model makes of held-out conversations.

    ``nll``: of each conversation, the negative log-likelihood (nats) of all its assistant
    ``tokens`` together.
    """

    conversations: Sequence[str]
    nll: Sequence[float]
    tokens: Sequence[int]

    @property
    def mean(self) -> float:
        """Nats a token."""
        return math.fsum(self.nll) / sum(self.tokens)


def scores_of(
    replies: Sequence[Reply | None],
    *,
    losses: ConversationLosses | None,
    seed: int = 0,
    preferences: Preferences = Preferences(),  # noqa: B008 - immutable
) -> Scores:
    """Means over the replies that are not None.

    Args:
        replies: One subject's, context by context; None where it was not compared.
        losses: None for a subject without a model.
        seed: Of the bootstrap interval around the perplexity.
        preferences: See `shared_preferences`.
    """
    found = perplexity(losses.mean) if losses is not None and losses.tokens else None
    low = high = None
    if losses is not None and found is not None and len(losses.nll) >= MIN_SAMPLES:
        low, high = map(perplexity, bootstrap_interval(losses.nll, sizes=losses.tokens, seed=seed))
    known = [reply for reply in replies if reply is not None]
    return Scores(
        perplexity=found,
        nats_per_token=losses.mean if losses is not None and found is not None else None,
        tokens=sum(losses.tokens) if losses is not None else 0,
        exact=_mean(known, "exact"),
        token_f1=_mean(known, "token_f1"),
        similarity=_mean(known, "similarity"),
        replies=len(known),
        preference_accuracy=preferences.accuracy,
        preference_margin=preferences.margin,
        preference_gain=preferences.gain,
        perplexity_low=low,
        perplexity_high=high,
        **_fact_shares([reply.facts for reply in known if reply.facts is not None]),
    )


def _fact_shares(counts: Sequence[FactCount]) -> dict[str, float | None]:
    """``facts``, ``invented`` and ``inventing`` of `training.results.Scores`."""
    wanted = sum(count.wanted for count in counts)
    return {
        "facts": sum(count.right for count in counts) / wanted if wanted else None,
        "invented": sum(count.invented for count in counts) / len(counts) if counts else None,
        "inventing": sum(count.invented > 0 for count in counts) / len(counts) if counts else None,
    }


def differences_of(
    replies: Mapping[Subject, Sequence[Reply | None]], *, conversations: Sequence[str], seed: int
) -> tuple[Difference, ...]:
    """New minus every other subject, context by context, for each metric.

    ``conversations[i]`` is the conversation that context i is from; all contexts of one
    conversation count as one item. A reply that is None is not compared.
    """
    found: list[Difference] = []
    for against, others in replies.items():
        if against == "new":
            continue
        for metric in _METRICS:
            gaps: dict[str, list[float]] = {}
            for name, new, other in zip(conversations, replies["new"], others, strict=True):
                if new is not None and other is not None:
                    gap = float(getattr(new, metric)) - float(getattr(other, metric))
                    gaps.setdefault(name, []).append(gap)
            found += _difference(
                metric,
                against,
                totals=[math.fsum(each) for each in gaps.values()],
                sizes=[len(each) for each in gaps.values()],
                seed=seed,
            )
        found += _fact_differences(
            against, replies["new"], others, conversations=conversations, seed=seed
        )
    return tuple(found)


def _fact_differences(
    against: Subject,
    mine: Sequence[Reply | None],
    others: Sequence[Reply | None],
    *,
    conversations: Sequence[str],
    seed: int,
) -> list[Difference]:
    """New minus another subject: the share of wanted facts, invented ones a reply, replies with such."""
    right: dict[str, list[int]] = {}
    invented: dict[str, list[int]] = {}
    inventing: Counter[tuple[bool, bool]] = Counter()
    for name, new, other in zip(conversations, mine, others, strict=True):
        if new is None or other is None or new.facts is None or other.facts is None:
            continue
        gap = new.facts.right - other.facts.right
        right.setdefault(name, []).extend((gap, new.facts.wanted))
        invented.setdefault(name, []).append(new.facts.invented - other.facts.invented)
        inventing[new.facts.invented > 0, other.facts.invented > 0] += 1
    with_facts = [each for each in right.values() if sum(each[1::2])]
    return [
        *_difference(
            "facts",
            against,
            totals=[sum(each[::2]) for each in with_facts],
            sizes=[sum(each[1::2]) for each in with_facts],
            seed=seed,
        ),
        *_difference(
            "invented",
            against,
            totals=[sum(each) for each in invented.values()],
            sizes=[len(each) for each in invented.values()],
            seed=seed,
        ),
        *_share_difference("inventing", against, inventing, items=len(invented)),
    ]


def _share_difference(
    metric: Metric, against: Subject, replies: Mapping[tuple[bool, bool], int], *, items: int
) -> list[Difference]:
    """One difference of shares, or none; ``replies`` counts (new, other).

    Replies of one conversation depend on one another: they weigh as much as conversations, together.
    """
    count = sum(replies.values())
    if not count:
        return []
    both, first, second, neither = (
        replies.get(key, 0) * items / count
        for key in ((True, True), (True, False), (False, True), (False, False))
    )
    low = high = None
    if items >= MIN_SAMPLES:
        low, high = paired_share_difference_interval(both, first, second, neither)
    return [
        Difference(
            metric=metric,
            against=against,
            mean=(first - second) / items,
            low=low,
            high=high,
            items=items,
        )
    ]


def perplexity_differences(
    losses: Mapping[Subject, ConversationLosses], *, seed: int
) -> tuple[Difference, ...]:
    """New minus every other model, in nats a token, over the conversations that both have read.

    A conversation of which one of them has read other tokens (it is too long with what it is shown) is
    left out.
    """
    found: list[Difference] = []
    new = losses["new"]
    mine = dict(zip(zip(new.conversations, new.tokens, strict=True), new.nll, strict=True))
    for against, other in losses.items():
        if against == "new":
            continue
        rows = zip(other.conversations, other.nll, other.tokens, strict=True)
        both = [
            (mine[name, tokens] - total, tokens)
            for name, total, tokens in rows
            if (name, tokens) in mine
        ]
        found += _difference(
            "nats_per_token",
            against,
            totals=[gap for gap, _ in both],
            sizes=[tokens for _, tokens in both],
            seed=seed,
        )
    return tuple(found)


def loss_change(
    one: ConversationLosses, other: ConversationLosses, *, seed: int
) -> LossChange | None:
    """The first minus the second over what both have read; None where that is nothing."""
    found = perplexity_differences({"new": one, "base": other}, seed=seed)
    return next(
        (
            LossChange(mean=each.mean, low=each.low, high=each.high, conversations=each.items)
            for each in found
        ),
        None,
    )


def preference_differences(
    new: ReplyLogprobs | None, base: ReplyLogprobs, *, paired: bool, seed: int
) -> tuple[Difference, ...]:
    """New minus the base in sharing the preferences, comparison by comparison.

    Where every desirable reply is compared with every undesirable one, the bootstrap draws both
    sorts, and the rarer one gives the number of items.
    """
    if new is None or not new.undesirable:
        return ()
    now, then = _margins(new, paired=paired), _margins(base, paired=paired)
    if not (np.isfinite(now).all() and np.isfinite(then).all()):
        return ()
    gaps: dict[Metric, Grid] = {
        "preference_accuracy": (np.sign(now) - np.sign(then)) / 2,
        "preference_margin": now - then,
    }
    items = len(now) if paired else min(now.shape)
    return tuple(
        Difference(
            metric=metric,
            against="base",
            mean=float(gap.mean()),
            **_interval(gap, items, seed=seed),
            items=items,
        )
        for metric, gap in gaps.items()
    )


def _margins(logprobs: ReplyLogprobs, *, paired: bool) -> Grid:
    """By how many nats a token desirable replies are likelier: (pairs, 1), or (desirable, undesirable)."""
    desirable, undesirable = (
        np.array([math.fsum(reply) / len(reply) for reply in replies])
        for replies in (logprobs.desirable, logprobs.undesirable)
    )
    margins: Grid = desirable[:, None] - (undesirable[:, None] if paired else undesirable[None, :])
    return margins


def _interval(gaps: Grid, items: int, *, seed: int) -> dict[str, float | None]:
    """Percentile bootstrap of the mean. Rows and columns are drawn independently, as counts."""
    if items < MIN_SAMPLES:
        return {"low": None, "high": None}
    source = np.random.default_rng(seed)
    drawn = [
        source.multinomial(size, np.full(size, 1 / size), BOOTSTRAP_SAMPLES) for size in gaps.shape
    ]
    means = ((drawn[0] @ gaps) * drawn[1]).sum(axis=1) / gaps.size
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail])
    return {"low": float(low), "high": float(high)}


def _difference(
    metric: Metric,
    against: Subject,
    *,
    totals: Sequence[float],
    sizes: Sequence[int],
    seed: int,
) -> list[Difference]:
    """One difference, or none where nothing was measured."""
    if not totals or not all(map(math.isfinite, totals)):
        return []
    low = high = None
    if len(totals) >= MIN_SAMPLES:
        low, high = bootstrap_interval(totals, sizes=sizes, seed=seed)
    return [
        Difference(
            metric=metric,
            against=against,
            mean=math.fsum(totals) / sum(sizes),
            low=low,
            high=high,
            items=len(totals),
        )
    ]


def _mean(replies: Sequence[Reply], metric: str) -> float:
    return sum(float(getattr(r, metric)) for r in replies) / len(replies) if replies else 0.0
