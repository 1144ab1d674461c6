"""Objectives against measurements: may this adapter answer customers?"""

import math

import msgspec

from training.evaluation import Evaluation, Parity
from training.spec import Objectives


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. ``value`` is None where it could not be measured, which fails the gate."""

    name: str
    value: float | None
    bound: float
    passed: bool
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All gates. ``passed`` only if every gate passed."""

    passed: bool
    gates: tuple[Gate, ...]

    @property
    def summary(self) -> str:
        """One sentence for a list or a log."""
        failed = [gate for gate in self.gates if not gate.passed]
        if not failed:
            return f"passed all {len(self.gates)} gates"
        reasons = "; ".join(gate.why for gate in failed)
        return f"failed {len(failed)} of {len(self.gates)} gates: {reasons}"


def judge(evaluation: Evaluation, parity: Parity | None, objectives: Objectives) -> Verdict:
    """Apply the objectives. What was not measured, or is not a number, does not pass."""
    base, new, live = evaluation.base, evaluation.new, evaluation.live
    if evaluation.comparisons is None:
        first = _ratio_gate(
            "perplexity_ratio",
            new=new.perplexity,
            old=base.perplexity,
            whose="the base",
            bound=objectives.max_perplexity_ratio,
        )
    else:
        first = _preference_gate(evaluation, objectives.min_preference_accuracy)
    gates = [first]
    if live is not None:
        gates.append(
            _ratio_gate(
                "live_perplexity_ratio",
                new=new.perplexity,
                old=live.perplexity,
                whose="the live adapter",
                bound=objectives.max_live_perplexity_ratio,
            )
        )
    gates.append(_similarity_gate(evaluation, objectives.min_similarity_gain))
    gates.append(_parity_gate(parity, objectives.max_parity_nats))
    if objectives.max_perplexity is not None:
        gates.append(_perplexity_gate(new.perplexity, objectives.max_perplexity))
    if objectives.min_exact is not None:
        gates.append(_exact_gate(evaluation, objectives.min_exact))
    return Verdict(passed=all(gate.passed for gate in gates), gates=tuple(gates))


def _gate(name: str, value: float | None, bound: float, *, at_most: bool, why: str) -> Gate:
    measured = value if value is not None and math.isfinite(value) else None
    passed = measured is not None and (measured <= bound if at_most else measured >= bound)
    return Gate(name=name, value=measured, bound=bound, passed=passed, why=why)


def _ratio_gate(
    name: str, *, new: float | None, old: float | None, whose: str, bound: float
) -> Gate:
    rule = f"must be at most {bound:.2f}"
    if new is None or old is None or not old > 0:
        why = f"held-out perplexity against {whose} was not measured: the ratio {rule}"
        return _gate(name, None, bound, at_most=True, why=why)
    ratio = new / old
    why = f"held-out perplexity {new:.2f} against {old:.2f} of {whose}: ratio {ratio:.3f}, {rule}"
    return _gate(name, ratio, bound, at_most=True, why=why)


def _preference_gate(evaluation: Evaluation, bound: float | None) -> Gate:
    """Without a bound, as many preferences as the base shares, by a larger margin, pass too."""
    new, base = evaluation.new, evaluation.base
    name, share, margin = "preference_accuracy", new.preference_accuracy, new.preference_margin
    if share is None or base.preference_accuracy is None:
        why = "preferences were not measured: the share that is shared must be above the base's"
        return _gate(name, None, bound or 0.0, at_most=False, why=why)
    shown = (
        f"the wanted reply is the likelier one in {share:.0%} of {evaluation.comparisons:,} "
        f"comparisons, for the base in {base.preference_accuracy:.0%}"
    )
    if bound is not None:
        why = f"{shown}: must be at least {bound:.0%}"
        return _gate(name, share, bound, at_most=False, why=why)
    better = (share, margin or 0.0) > (base.preference_accuracy, base.preference_margin or 0.0)
    why = f"{shown}: must be above the base's, or as much by a larger margin"
    return Gate(name=name, value=share, bound=base.preference_accuracy, passed=better, why=why)


def _similarity_gate(evaluation: Evaluation, bound: float) -> Gate:
    new, base = evaluation.new, evaluation.base
    name, rule = "similarity_gain", f"must be at least {bound:+.3f}"
    if not new.replies:
        why = f"no reply was generated, so similarity was not measured: its gain {rule}"
        return _gate(name, None, bound, at_most=False, why=why)
    gain = new.similarity - base.similarity
    why = (
        f"semantic similarity of {new.replies} replies {new.similarity:.3f} "
        f"against {base.similarity:.3f} of the base: gain {gain:+.3f}, {rule}"
    )
    return _gate(name, gain, bound, at_most=False, why=why)


def _parity_gate(parity: Parity | None, bound: float) -> Gate:
    name, rule = "parity", f"must be at most {bound:.3f}"
    if parity is None:
        why = f"trainer and engine were not compared: the mean difference {rule} nats"
        return _gate(name, None, bound, at_most=True, why=why)
    if parity.missing:
        why = (
            f"the engine gave no log-probability for {parity.missing:,} of "
            f"{parity.missing + parity.tokens:,} tokens: the mean difference {rule} nats over all"
        )
        return _gate(name, None, bound, at_most=True, why=why)
    types = f" ({parity.trained_in} and {parity.served_in})" if parity.served_in else ""
    why = (
        f"log-probabilities of trainer and engine{types} differ by {parity.mean_abs:.4f} nats "
        f"on average over {parity.tokens:,} tokens, {rule}"
    )
    return _gate(name, parity.mean_abs, bound, at_most=True, why=why)


def _perplexity_gate(perplexity: float | None, bound: float) -> Gate:
    shown = "was not measured" if perplexity is None else f"is {perplexity:.2f}"
    why = f"held-out perplexity {shown}, must be at most {bound:.2f}"
    return _gate("perplexity", perplexity, bound, at_most=True, why=why)


def _exact_gate(evaluation: Evaluation, bound: float) -> Gate:
    new = evaluation.new
    value = new.exact if new.replies else None
    shown = "were not measured" if value is None else f"are {value:.0%} of {new.replies}"
    why = f"replies identical to the reference {shown}, must be at least {bound:.0%}"
    return _gate("exact", value, bound, at_most=False, why=why)
