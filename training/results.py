"""The results of an evaluation: scores of each subject, sample replies, parity with the engine.

Subjects: ``base`` (the model as it was), ``new`` (with the adapter just trained, as it would be
served), ``live`` (what answers customers now, as it does) and ``lookup`` (no model: the reply that
followed the nearest training question). Where the new adapter is served with retrieval, which shows it
what others were answered, there are also ``base_retrieval`` (the base with the same) and ``new_plain``
(the adapter without): so each part's worth can be seen. Nothing here needs torch.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from connectors.conversation import ChatMessage, Split
from training.errors import BadInput
from training.references import Reference

_MAX_NATS = 700.0  # exp(710) is no longer a double
CONTROLS_FILE = "controls.json"
"""Where `Controls` are, in the folder of the run that measured them."""

Subject = Literal["base", "base_retrieval", "new_plain", "new", "live", "lookup"]
Metric = Literal[
    "exact",
    "token_f1",
    "similarity",
    "nats_per_token",
    "preference_accuracy",
    "preference_margin",
    "facts",
    "invented",
    "inventing",
]


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of one subject.

    ``nats_per_token`` and ``perplexity`` are over ``tokens`` held-out assistant tokens, end of
    turn included; None where there is no model (lookup). ``perplexity_low`` and
    ``perplexity_high``: its 95 % bootstrap interval over conversations; None of too few.

    ``exact``, ``token_f1`` and ``similarity`` are means in [0, 1] (similarity: cosine, [-1, 1])
    over ``replies`` replies.

    ``preference_accuracy``: the share of comparisons in which the wanted reply is likelier than
    the unwanted one, by the mean log-probability of a token. ``preference_margin``: by how many
    nats a token, on average. ``preference_gain``: the share in which the likelihood of the wanted
    reply, relative to the base, rose more than that of the unwanted one; None for the base. All are
    None where the dataset has no unwanted replies, or there is no model.

    ``facts``: of the facts in the agents' replies (amounts, dates, links: `training.data.facts`), the
    share that is in this subject's; None where they hold none. ``invented``: facts a reply that neither
    the agent's reply nor the conversation before it has. ``inventing``: the share of replies with at
    least one such fact. All are None in reports from before they were counted.
    """

    perplexity: float | None
    nats_per_token: float | None
    tokens: int
    exact: float
    token_f1: float
    similarity: float
    replies: int
    preference_accuracy: float | None = None
    preference_margin: float | None = None
    preference_gain: float | None = None
    perplexity_low: float | None = None
    perplexity_high: float | None = None
    facts: float | None = None
    invented: float | None = None
    inventing: float | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """New minus another subject, over the same held-out data, with a 95 % bootstrap interval.

    ``items``: the number of independent items it is measured on, which are conversations, or
    comparisons for preferences (0 in reports from before they were counted). With fewer than
    `training.evaluation.confidence_intervals.MIN_SAMPLES` there is no interval. The exp of
    ``nats_per_token`` is the ratio of the perplexities.
    """

    metric: Metric
    against: Subject
    mean: float
    low: float | None
    high: float | None
    items: int = 0


class FactCount(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a reply: ``right`` of the ``wanted`` ones of the agent's reply, and ``invented`` ones."""

    right: int
    wanted: int
    invented: int


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What one subject answered, and how close that is to the reference.

    ``quoted``: the past exchange whose reply it is, ``<conversation>:<turn>``; None where it was written.
    """

    text: str
    exact: bool
    token_f1: float
    similarity: float
    facts: FactCount | None = None
    quoted: str | None = None


class ReplySample(msgspec.Struct, frozen=True, kw_only=True):
    """One context (the true history, ending in a customer's turn) and every subject's reply.

    ``references``: what those with retrieval were shown, the nearest first.
    """

    conversation: str
    turn: int
    history: tuple[ChatMessage, ...]
    reference: str
    base: Reply
    base_retrieval: Reply | None = None
    new_plain: Reply | None = None
    new: Reply
    live: Reply | None = None
    lookup: Reply
    references: tuple[Reference, ...] = ()


class LanguageCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """A topic in one language: training ``conversations``, held-out ``replies`` and their mean token F1.

    ``language``: ISO 639-1, or ``und`` for what is undetermined or rare. ``conversations`` may be 0,
    where only held-out ones are in it; ``new`` and ``lookup`` are None of no replies.
    """

    language: str
    conversations: int
    replies: int
    new: float | None
    lookup: float | None


class TopicCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """What some of the tenant's conversations are about, and how good replies to it are.

    ``words`` mark it, the strongest first; perhaps none. ``example``: what a customer said who asked
    about it. ``share`` of all training ``conversations``, in [0, 1]. ``new`` and ``lookup``: mean token
    F1, in [0, 1], of their replies to the ``replies`` held-out questions about it; None of none.
    ``languages``: the same by language, the most frequent first; none in evaluations from before it.
    """

    words: tuple[str, ...]
    example: str
    share: float
    conversations: int
    replies: int
    new: float | None
    lookup: float | None
    languages: tuple[LanguageCoverage, ...] = ()

    def coverage_in(self, language: str) -> LanguageCoverage | None:
        """The topic in one language; None where nobody wrote about it in that."""
        return next((each for each in self.languages if each.language == language), None)


def languages_of_topics(topics: Sequence[TopicCoverage]) -> tuple[str, ...]:
    """The languages to tell topics apart by, the most frequent first and ``und`` last.

    None where there is only one.
    """
    counts: Counter[str] = Counter()
    for each in topics:
        counts.update({one.language: one.conversations for one in each.languages})
    if sum(language != "und" for language in counts) < 2:  # noqa: PLR2004
        return ()
    return tuple(sorted(counts, key=lambda language: (language == "und", -counts[language])))


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole evaluation. ``notes`` say in words what was measured, and how.

    ``comparisons``: of wanted with unwanted replies; None where the dataset is of conversations.
    ``live_note``: why the live adapter was not compared, or on which part of the data it was.
    ``topics``: the largest first; none where there are too few conversations to group.
    ``base_retrieval`` and ``new_plain``: None where the adapter was trained without references, and is
    served without.
    """

    split: Split
    conversations: int
    comparisons: int | None = None
    base: Scores
    base_retrieval: Scores | None = None
    new_plain: Scores | None = None
    new: Scores
    live: Scores | None
    lookup: Scores
    differences: tuple[Difference, ...] = ()
    samples: tuple[ReplySample, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    live_note: str = ""
    topics: tuple[TopicCoverage, ...] = ()

    def scores(self) -> dict[Subject, Scores]:
        """Of every subject that was measured, in the order of the report's columns."""
        found: dict[Subject, Scores | None] = {
            "base": self.base,
            "base_retrieval": self.base_retrieval,
            "new_plain": self.new_plain,
            "new": self.new,
            "live": self.live,
            "lookup": self.lookup,
        }
        return {subject: scores for subject, scores in found.items() if scores is not None}

    def difference(self, metric: Metric, against: Subject) -> Difference | None:
        """How far the new adapter is from another subject; None where that was not measured."""
        found = (d for d in self.differences if (d.metric, d.against) == (metric, against))
        return next(found, None)


class LossChange(msgspec.Struct, frozen=True, kw_only=True):
    """One model's nats a token minus another's, over the same held-out conversations.

    With a 95 % bootstrap interval; None of too few ``conversations``. The exp is a ratio of perplexities.
    """

    mean: float
    low: float | None
    high: float | None
    conversations: int


class TrainedControl(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was trained beside a version, to hold the version against it.

    It learnt from ``conversations``, in ``epochs`` passes over them: ``tokens`` in all, in ``seconds``.
    """

    conversations: int
    tokens: int
    epochs: float
    seconds: float
    scores: Scores


class Controls(msgspec.Struct, frozen=True, kw_only=True):
    """What the base's pre-training, and each further conversation, are worth to a version.

    Everything was trained on as many ``tokens`` as the version. ``curve``: adapters on nested parts of the
    training conversations, the smallest first; the last is the version. ``scratch``: the base's
    architecture from random weights, all of them trained at the learning rate ``scratch_rate``; None where
    it was left out, as ``scratch_note`` says. ``pretraining``: the version minus ``scratch``;
    ``last_doubling``: the version minus the adapter on half of its conversations.
    """

    tokens: int
    curve: tuple[TrainedControl, ...]
    scratch: TrainedControl | None
    scratch_rate: float
    scratch_note: str = ""
    pretraining: LossChange | None = None
    last_doubling: LossChange | None = None


class ParitySample(msgspec.Struct, frozen=True, kw_only=True):
    """The trainer's log-probabilities for one conversation.

    ``logprobs[k]`` belongs to the token ``token_ids[positions[k]]``, given all tokens before it;
    ``greedy[k]`` is the token that the trainer holds most probable there.
    """

    conversation: str
    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    logprobs: tuple[float, ...]
    greedy: tuple[int, ...] = ()


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Trainer against engine over the same tokens: absolute differences of log-probability.

    ``missing``: tokens without a finite figure from the engine. The means leave them out, and the
    gate fails if there is one. ``trained_in`` and ``served_in``: the types that the two compute in;
    '' where unknown.
    """

    mean_abs: float
    p99_abs: float
    max_abs: float
    tokens: int
    conversations: int
    missing: int = 0
    trained_in: str = ""
    served_in: str = ""


def compare_parity(
    samples: Sequence[ParitySample],
    engine: Sequence[Sequence[float | None]],
    *,
    trained_in: str = "",
    served_in: str = "",
) -> Parity:
    """Compare the trainer's figures with the engine's.

    Args:
        samples: What the trainer computed.
        engine: ``engine[i][p]`` is the engine's log-probability of ``samples[i].token_ids[p]`` given
            the tokens before it.
        trained_in: The type that the trainer computed in.
        served_in: The type that the engine computed in.

    Raises:
        BadInput: nothing to compare, or the lists do not belong together.
    """
    if len(samples) != len(engine):
        raise BadInput(f"parity: {len(samples)} conversations, {len(engine)} answers of the engine")
    differences: list[float] = []
    missing = 0
    for sample, figures in zip(samples, engine, strict=True):
        if len(figures) != len(sample.token_ids):
            raise BadInput(
                f"parity: conversation {sample.conversation!r} has {len(sample.token_ids)} tokens, "
                f"the engine answered for {len(figures)}"
            )
        for position, logprob in zip(sample.positions, sample.logprobs, strict=True):
            figure = figures[position]
            if figure is None or not math.isfinite(figure - logprob):
                missing += 1
            else:
                differences.append(abs(figure - logprob))
    if not differences:
        raise BadInput("parity: the engine gave no log-probability for any assistant token")
    differences.sort()
    return Parity(
        mean_abs=math.fsum(differences) / len(differences),
        p99_abs=differences[math.ceil(0.99 * len(differences)) - 1],
        max_abs=differences[-1],
        tokens=len(differences),
        conversations=len(samples),
        missing=missing,
        trained_in=trained_in,
        served_in=served_in,
    )


def perplexity(nats_per_token: float | None) -> float | None:
    """Return exp of the mean; None where that is not a finite number, as of a broken adapter."""
    if nats_per_token is None or not nats_per_token < _MAX_NATS:
        return None
    return math.exp(nats_per_token)
