"""Objectives against measurements: may this adapter answer customers?

Gates decide what is promoted automatically, not whether a run has succeeded. A gate compares the
95 % interval of a measurement on held-out conversations with the bound that was declared:

better       the whole interval keeps the bound
worse        the whole interval breaks it
cannot tell  the interval contains the bound, or too little was held out for an interval

So a handful of replies decides nothing: the adapter waits for a person, and the gate says how much more
would be needed. Parity is different: it
compares two computations of the same tokens, which is not a sample. Where they differ, the adapter
is not safe to serve (``SAFETY``). Only its mean counts, and an unmeasured parity fails.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from training.config import Objectives
from training.evaluation.confidence_intervals import share_interval
from training.evaluation.verdicts import Result, data_needed, too_few
from training.results import Difference, Evaluation, Metric, Parity, Scores, Subject

WORDS: dict[Result, str] = {"better": "better", "worse": "worse", "cannot_tell": "cannot tell"}

SAFETY = frozenset(["parity"])
"""Gates that say whether an adapter may be served at all."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One rule and its result.

    ``value`` is None where nothing could be measured; ``low`` and ``high`` are None where too
    little was. ``passed`` says the same as ``result`` is better; reports from before there was a
    ``result`` get one from it.
    """

    name: str
    value: float | None
    bound: float
    passed: bool
    why: str
    low: float | None = None
    high: float | None = None
    result: Result | None = None

    def __post_init__(self) -> None:
        if self.result is None:
            msgspec.structs.force_setattr(self, "result", "better" if self.passed else "worse")

    @property
    def label(self) -> str:
        """The result in words."""
        if self.name in SAFETY:
            return "safe" if self.passed else "UNSAFE"
        return WORDS[self.result or "cannot_tell"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All gates. ``passed`` only if every gate says better; ``result`` is that of the worst gate."""

    passed: bool
    gates: tuple[Gate, ...]
    result: Result | None = None

    def __post_init__(self) -> None:
        if self.result is None:
            msgspec.structs.force_setattr(self, "result", _worst(self.gates))

    @property
    def unsafe(self) -> str:
        """Why the adapter must not be served; empty where it may be."""
        return "; ".join(g.why for g in self.gates if g.name in SAFETY and not g.passed)

    @property
    def summary(self) -> str:
        """The outcome in words, for a list or a log; it follows the adapter's name."""
        parts = []
        for result, words in (("worse", "failed {} gates"), ("cannot_tell", "left {} gates open")):
            found = [gate.why for gate in self.gates if gate.result == result]
            if found:
                count = f"{len(found)} of {len(self.gates)}"
                parts.append(f"{words.format(count)}: {'; '.join(found)}")
        return "; and ".join(parts) or f"passed all {len(self.gates)} gates"


def apply_gates(evaluation: Evaluation, parity: Parity | None, objectives: Objectives) -> Verdict:
    """Hold an evaluation against the objectives.

    The live adapter has a gate only where the evaluation could compare it (`find_shared_holdout`).

        verdict = apply_gates(evaluation, parity, Objectives(max_perplexity_ratio=0.7))
        if verdict.unsafe:
            raise UnsafeWeights(verdict.unsafe)
        print("promote" if verdict.passed else verdict.summary)

    Args:
        evaluation: What `training.evaluation.evaluate.evaluate` measured.
        parity: Trainer against engine; None where they were not compared, which is unsafe.
        objectives: The bounds, declared before the run.
    """
    gates = [
        _ratio_gate("perplexity_ratio", evaluation, "base", objectives.max_perplexity_ratio)
        if evaluation.comparisons is None
        else _preference_gate(evaluation, objectives.min_preference_accuracy)
    ]
    if evaluation.live is not None:
        bound = objectives.max_live_perplexity_ratio
        gates.append(_ratio_gate("live_perplexity_ratio", evaluation, "live", bound))
    gates.append(_similarity_gate(evaluation, objectives.min_similarity_gain))
    if objectives.min_lookup_f1_gain is not None:
        gates.append(_lookup_gate(evaluation, objectives.min_lookup_f1_gain))
    if objectives.max_invented_gain is not None:
        gates.append(_invented_gate(evaluation, objectives.max_invented_gain))
    gates.append(_parity_gate(parity, objectives.max_parity_nats))
    if objectives.max_perplexity is not None:
        gates.append(_perplexity_gate(evaluation, objectives.max_perplexity))
    if objectives.min_exact is not None:
        gates.append(_exact_gate(evaluation, objectives.min_exact))
    return Verdict(
        passed=all(gate.passed for gate in gates), gates=tuple(gates), result=_worst(gates)
    )


def _worst(gates: Sequence[Gate]) -> Result:
    results = {gate.result for gate in gates}
    if "worse" in results:
        return "worse"
    return "cannot_tell" if "cannot_tell" in results else "better"


class _Measurement(NamedTuple):
    """A figure with its interval; without one where too little was held out."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


def _gate(
    name: str, found: _Measurement, bound: float, *, why: str, at_most: bool, decided: Result | None
) -> Gate:
    result: Result = decided or _result(found, bound, at_most=at_most)
    return Gate(
        name=name,
        value=found.value,
        bound=bound,
        passed=result == "better",
        why=why,
        low=found.low,
        high=found.high,
        result=result,
    )


def _result(found: _Measurement, bound: float, *, at_most: bool) -> Result:
    if found.value is None or found.low is None or found.high is None:
        return "cannot_tell"
    if found.high <= bound if at_most else found.low >= bound:
        return "better"
    if found.low > bound if at_most else found.high < bound:
        return "worse"
    return "cannot_tell"


def _ratio_gate(name: str, evaluation: Evaluation, against: Subject, bound: float) -> Gate:
    """Held-out perplexity over another model's, from paired differences in nats.

    Two dozen conversations have thousands of tokens, which decides all but close cases. By the
    objectives' defaults, the new adapter must improve on the base by a fifth, and must not lose
    more than a twentieth against the live adapter (a non-inferiority test).
    """
    whose = _NAMES[against]
    new, old = evaluation.new, evaluation.base if against == "base" else evaluation.live
    difference = evaluation.difference("nats_per_token", against)
    rule = f"must be at most {bound:.2f}"
    if difference is None or old is None:
        what = "is not a number" if _broken(new) else "was not measured"
        why = f"held-out perplexity {what}: its ratio to that of {whose} {rule}"
        decided: Result = "worse" if _broken(new) else "cannot_tell"
        return _gate(name, _Measurement(), bound, why=why, at_most=True, decided=decided)
    found = _Measurement(*map(_exp, (difference.mean, difference.low, difference.high)))
    if against == "live":
        rule += f", over {difference.items} conversations that neither was trained on"
    why = (
        f"held-out perplexity {_shown(new.perplexity)} against {_shown(old.perplexity)} of {whose}: "
        f"ratio {_shown(found.value, 3)}{_interval(found, '{:.3f}')}, {rule}"
    )
    result = _result(found, bound, at_most=True)
    if result == "cannot_tell":
        nats = math.log(bound) if bound > 0 else -math.inf
        why += f"; {data_needed(evaluation, difference, nats)}"
    return _gate(name, found, bound, why=why, at_most=True, decided=result)


def _preference_gate(evaluation: Evaluation, bound: float | None) -> Gate:
    """In what share of comparisons the wanted reply is the likelier one.

    With a bound, by the interval of that share. Without one, better means a share above the base's,
    or an equal share with a larger margin (in nats a token, which needs fewer comparisons than
    counts do); both by the interval of the difference.
    """
    new, base = evaluation.new, evaluation.base
    name, share, theirs = "preference_accuracy", new.preference_accuracy, base.preference_accuracy
    rule = (
        "must be above the base's, or as much by a larger margin"
        if bound is None
        else f"must be at least {bound:.0%}"
    )
    accuracy = evaluation.difference("preference_accuracy", "base")
    margin = evaluation.difference("preference_margin", "base")
    if share is None or theirs is None or accuracy is None or margin is None:
        what = "are no numbers" if _broken(new) else "were not measured"
        why = f"preferences {what}: the share that is shared {rule}"
        decided: Result = "worse" if _broken(new) else "cannot_tell"
        return _gate(name, _Measurement(), bound or 0.0, why=why, at_most=False, decided=decided)
    shown = (
        f"the wanted reply is the likelier one in {share:.0%} of {evaluation.comparisons:,} "
        f"comparisons{{}}, for the base in {theirs:.0%}: {rule}"
    )
    if bound is not None:
        found = _Measurement(share, *(share_interval(share, accuracy.items) or (None, None)))
        why = shown.format(_interval(found, "{:.0%}"))
        return _gate(name, found, bound, why=why, at_most=False, decided=None)
    result: Result = "cannot_tell"
    if _above(accuracy) or (accuracy.mean >= 0 and _above(margin)):
        result = "better"
    elif _below(accuracy) or (accuracy.mean <= 0 and _below(margin)):
        result = "worse"
    ends = (
        None if end is None else min(1.0, max(0.0, theirs + end))
        for end in (accuracy.low, accuracy.high)
    )
    found = _Measurement(share, *ends)
    why = shown.format(_interval(found, "{:.0%}"))
    if result == "cannot_tell":
        why += f"; {data_needed(evaluation, accuracy)}"
    return _gate(name, found, theirs, why=why, at_most=False, decided=result)


def _similarity_gate(evaluation: Evaluation, bound: float) -> Gate:
    """Similarity in meaning to the agent's replies, minus that of the base's replies.

    To prove a gain would take about a hundred replies; a dozen can show that nothing is lost.
    """
    return _reply_gate(
        "similarity_gain", evaluation, "similarity", "base", bound, at_most=False, widest=2.0
    )


def _lookup_gate(evaluation: Evaluation, bound: float) -> Gate:
    """Token F1 of the served assistant's replies, minus that of the look-up's.

    An assistant that shares fewer words with the agent than the reply to the nearest old question
    does is not worth its engine.
    """
    return _reply_gate(
        "lookup_f1_gain", evaluation, "token_f1", "lookup", bound, at_most=False, widest=1.0
    )


def _invented_gate(evaluation: Evaluation, bound: float) -> Gate:
    """Share of replies with a fact that nobody has said, minus the base's share.

    A share of replies, and not facts a reply: one reply that reels off ten numbers would outweigh
    nine others, and a bootstrap of a few rare events gives an interval of no width. Shares of the
    same replies have a sound interval at any size (`paired_share_difference_interval`).

    The base is shown what the assistant is shown, where that is served with retrieval: then the two
    differ in nothing but the adapter. What a reply takes from a reference that does not fit counts
    as invented, and the base without references cannot make that mistake.
    """
    against: Subject = "base" if evaluation.base_retrieval is None else "base_retrieval"
    return _reply_gate(
        "invented_gain", evaluation, "inventing", against, bound, at_most=True, widest=1.0
    )


_MEASURES: dict[Metric, str] = {
    "similarity": "semantic similarity",
    "token_f1": "token F1",
    "inventing": "share of replies that invent a fact",
}
_NAMES: dict[Subject, str] = {
    "base": "the base",
    "base_retrieval": "the base with retrieval",
    "live": "the live adapter",
    "lookup": "the look-up",
}


def _reply_gate(
    name: str,
    evaluation: Evaluation,
    metric: Metric,
    against: Subject,
    bound: float,
    *,
    at_most: bool,
    widest: float,
) -> Gate:
    """New minus another subject over the same replies; they cannot differ by more than ``widest``.

    A non-inferiority test (ICH E9 (1998), section 3.3.2): the default bounds are on the far side of 0
    by a loss too small to notice, and the whole interval must be on the near side of them. That nothing
    at all is lost could not be shown with any number of replies.
    """
    measure, whose = _MEASURES[metric], _NAMES[against]
    rule = f"must be at {'most' if at_most else 'least'} {bound:+.3f}"
    difference = evaluation.difference(metric, against)
    if difference is None:
        why = f"{measure} was not measured: its difference to that of {whose} {rule}"
        return _gate(name, _Measurement(), bound, why=why, at_most=at_most, decided="cannot_tell")
    found = _Measurement(difference.mean, difference.low, difference.high)
    mine, theirs = (
        _shown(getattr(scores, metric), 3)
        for scores in (evaluation.new, evaluation.scores()[against])
    )
    ends = _Measurement(difference.mean, -widest, widest) if found.low is None else found
    result = _result(ends, bound, at_most=at_most)
    more = f"; {data_needed(evaluation, difference, bound)}" if result == "cannot_tell" else ""
    why = (
        f"{measure} {mine} against {theirs} of {whose} in {evaluation.new.replies} replies: "
        f"difference {difference.mean:+.3f}{_interval(found, '{:+.3f}')}, {rule}{more}"
    )
    return _gate(name, found, bound, why=why, at_most=at_most, decided=result)


def _parity_gate(parity: Parity | None, bound: float) -> Gate:
    name, rule = "parity", f"must be at most {bound:.3f}"
    if parity is None:
        value = None
        why = f"trainer and engine were not compared: the mean difference {rule} nats"
    elif parity.missing:
        value = None
        why = (
            f"the engine gave no log-probability for {parity.missing:,} of "
            f"{parity.missing + parity.tokens:,} tokens: the mean difference {rule} nats over all"
        )
    else:
        value = parity.mean_abs
        types = f" ({parity.trained_in} and {parity.served_in})" if parity.served_in else ""
        why = (
            f"log-probabilities of trainer and engine{types} differ by {parity.mean_abs:.4f} nats "
            f"on average over {parity.tokens:,} tokens, {rule}"
        )
    safe = value is not None and value <= bound
    found = _Measurement(value if value is not None and math.isfinite(value) else None)
    decided: Result = "better" if safe else "worse"
    return _gate(name, found, bound, why=why, at_most=True, decided=decided)


def _perplexity_gate(evaluation: Evaluation, bound: float) -> Gate:
    new: Scores = evaluation.new
    rule = f"must be at most {bound:.2f}"
    found = _Measurement(new.perplexity, new.perplexity_low, new.perplexity_high)
    if new.perplexity is None:
        what = "is not a number" if _broken(new) else "was not measured"
        why = f"held-out perplexity {what}, {rule}"
        decided: Result = "worse" if _broken(new) else "cannot_tell"
        return _gate("perplexity", _Measurement(), bound, why=why, at_most=True, decided=decided)
    few = "" if found.low is not None else f"; {too_few(evaluation.conversations)}"
    why = f"held-out perplexity is {new.perplexity:.2f}{_interval(found, '{:.2f}')}, {rule}{few}"
    return _gate("perplexity", found, bound, why=why, at_most=True, decided=None)


def _exact_gate(evaluation: Evaluation, bound: float) -> Gate:
    new = evaluation.new
    # replies of one conversation depend on one another: count conversations, not replies
    other = evaluation.difference("exact", "base")
    ends = share_interval(new.exact, min(new.replies, other.items) if other else new.replies)
    found = _Measurement() if ends is None else _Measurement(new.exact, *ends)
    shown = "were not measured"
    if ends is not None:
        shown = f"are {new.exact:.0%} of {new.replies}{_interval(found, '{:.0%}')}"
    why = f"replies identical to the reference {shown}, must be at least {bound:.0%}"
    return _gate("exact", found, bound, why=why, at_most=False, decided=None)


def _above(difference: Difference) -> bool:
    return difference.low is not None and difference.low > 0


def _below(difference: Difference) -> bool:
    return difference.high is not None and difference.high < 0


def _exp(nats: float | None) -> float | None:
    return None if nats is None or nats > 700 else math.exp(nats)  # noqa: PLR2004 - then no double


def _shown(value: float | None, digits: int = 2) -> str:
    return "no number" if value is None else f"{value:.{digits}f}"


def _interval(found: _Measurement, form: str) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" ({form.format(found.low)} to {form.format(found.high)})"


def _broken(scores: Scores) -> bool:
    """Whether there were tokens to read, and the model's perplexity is not a number."""
    return scores.tokens > 0 and scores.perplexity is None
