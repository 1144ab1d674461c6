"""Objectives against measurements: what passes, what does not, and what the reader is told."""

import math

import msgspec
import pytest

from training.errors import BadInput
from training.evaluation import (
    Evaluation,
    Parity,
    ParitySample,
    Scores,
    compare_parity,
    perplexity,
)
from training.gates import Gate, Verdict, judge
from training.spec import Objectives

PARITY = Parity(mean_abs=0.003, p99_abs=0.02, max_abs=0.1, tokens=2000, conversations=12)


def scores(
    ppl: float | None, *, similarity: float = 0.5, exact: float = 0.0, replies: int = 32
) -> Scores:
    nats = None if ppl is None else math.log(ppl)
    return Scores(
        perplexity=ppl,
        nats_per_token=nats,
        tokens=5000,
        exact=exact,
        token_f1=0.2,
        similarity=similarity,
        replies=replies,
    )


def evaluation(
    new: Scores, *, base: Scores | None = None, live: Scores | None = None
) -> Evaluation:
    return Evaluation(
        split="test",
        conversations=47,
        base=base or scores(14.1),
        new=new,
        live=live,
        lookup=scores(None),
    )


def gates_of(verdict: Verdict) -> dict[str, Gate]:
    return {gate.name: gate for gate in verdict.gates}


def test_an_adapter_that_is_clearly_better_passes() -> None:
    verdict = judge(evaluation(scores(2.41, similarity=0.8)), PARITY, Objectives())
    assert verdict.passed
    assert list(gates_of(verdict)) == ["perplexity_ratio", "similarity_gain", "parity"]
    assert verdict.summary == "passed all 3 gates"


def test_the_reason_has_both_figures_the_ratio_and_the_rule() -> None:
    verdict = judge(evaluation(scores(2.41)), PARITY, Objectives())
    assert gates_of(verdict)["perplexity_ratio"].why == (
        "held-out perplexity 2.41 against 14.10 of the base: ratio 0.171, must be at most 0.80"
    )


def test_a_value_on_the_bound_passes() -> None:
    objectives = Objectives(max_perplexity_ratio=0.5, max_parity_nats=0.003)
    assert judge(evaluation(scores(7.05)), PARITY, objectives).passed


def preferring(new: float | None, base: float | None = 0.55, *, margin: float = 0.1) -> Evaluation:
    """An evaluation of a run that learnt from 40 comparisons."""
    found = evaluation(
        msgspec.structs.replace(scores(20.0), preference_accuracy=new, preference_margin=margin),
        base=msgspec.structs.replace(scores(14.1), preference_accuracy=base, preference_margin=0.1),
    )
    return msgspec.structs.replace(found, comparisons=40)


def test_after_preferences_sharing_them_counts_in_place_of_perplexity() -> None:
    verdict = judge(preferring(0.8), PARITY, Objectives())
    assert list(gates_of(verdict)) == ["preference_accuracy", "similarity_gain", "parity"]
    assert verdict.passed
    assert gates_of(verdict)["preference_accuracy"].why == (
        "the wanted reply is the likelier one in 80% of 40 comparisons, for the base in 55%: "
        "must be above the base's, or as much by a larger margin"
    )


@pytest.mark.parametrize(
    ("new", "margin", "passes"),
    [(0.55, 0.1, False), (0.55, 0.2, True), (0.5, 0.9, False), (0.56, 0.0, True)],
)
def test_preferences_must_be_shared_more_than_by_the_base(
    new: float, margin: float, passes: bool
) -> None:
    assert judge(preferring(new, margin=margin), PARITY, Objectives()).passed is passes


def test_a_bound_for_preferences_can_be_declared() -> None:
    objectives = Objectives(min_preference_accuracy=0.9)
    assert not judge(preferring(0.8), PARITY, objectives).passed
    verdict = judge(preferring(0.9, 0.95), PARITY, objectives)
    assert verdict.passed
    assert "must be at least 90%" in gates_of(verdict)["preference_accuracy"].why


def test_preferences_that_were_not_measured_do_not_pass() -> None:
    assert not judge(preferring(None, None), PARITY, Objectives()).passed


def test_after_preferences_the_live_adapter_is_still_a_bound() -> None:
    worse = msgspec.structs.replace(preferring(0.8), live=scores(10.0))
    assert not gates_of(judge(worse, PARITY, Objectives()))["live_perplexity_ratio"].passed


def test_an_adapter_hardly_better_than_the_base_fails_and_the_summary_says_why() -> None:
    verdict = judge(evaluation(scores(13.0)), PARITY, Objectives())
    assert not verdict.passed
    assert verdict.summary.startswith("failed 1 of 3 gates: held-out perplexity 13.00 against")


def test_an_adapter_worse_than_the_live_one_fails() -> None:
    result = evaluation(scores(2.4), live=scores(2.0))
    gate = gates_of(judge(result, PARITY, Objectives()))["live_perplexity_ratio"]
    assert not gate.passed
    assert "of the live adapter: ratio 1.200, must be at most 1.05" in gate.why


def test_without_a_live_adapter_its_objective_is_not_applied() -> None:
    assert "live_perplexity_ratio" not in gates_of(
        judge(evaluation(scores(2.4)), PARITY, Objectives())
    )


def test_a_loss_of_meaning_fails() -> None:
    verdict = judge(evaluation(scores(2.4, similarity=0.45)), PARITY, Objectives())
    assert gates_of(verdict)["similarity_gain"].value == pytest.approx(-0.05)
    assert not verdict.passed


def test_absolute_bounds_apply_only_when_declared() -> None:
    objectives = Objectives(max_perplexity=3.0, min_exact=0.5)
    found = gates_of(judge(evaluation(scores(2.4, exact=0.4)), PARITY, objectives))
    assert found["perplexity"].passed
    assert not found["exact"].passed
    assert found["exact"].why.endswith("are 40% of 32, must be at least 50%")


@pytest.mark.parametrize(
    "new", [scores(None), scores(2.0, replies=0)], ids=["no perplexity", "no replies"]
)
def test_what_was_not_measured_does_not_pass(new: Scores) -> None:
    verdict = judge(evaluation(new), PARITY, Objectives(max_perplexity=3.0, min_exact=0.0))
    assert not verdict.passed
    assert any(gate.value is None and "not measured" in gate.why for gate in verdict.gates)


def test_without_parity_nothing_is_promoted() -> None:
    verdict = judge(evaluation(scores(2.0)), None, Objectives())
    assert not verdict.passed
    assert "were not compared" in verdict.summary


def test_tokens_the_engine_left_out_fail_parity_however_small_the_mean() -> None:
    parity = msgspec.structs.replace(PARITY, missing=3)
    verdict = judge(evaluation(scores(2.0)), parity, Objectives())
    assert "no log-probability for 3 of 2,003 tokens" in gates_of(verdict)["parity"].why
    assert not verdict.passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_never_a_pass_and_survives_json(value: float) -> None:
    verdict = judge(evaluation(scores(2.0, similarity=value)), PARITY, Objectives())
    gate = gates_of(verdict)["similarity_gain"]
    assert not gate.passed
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_perplexity_of_a_broken_adapter_is_none_and_not_an_overflow() -> None:
    assert perplexity(math.log(2.5)) == pytest.approx(2.5)
    assert [perplexity(n) for n in (None, math.nan, math.inf, 5000.0)] == [None] * 4


def parity_sample(*logprobs: float) -> ParitySample:
    ids = (1, *(7 for _ in logprobs))
    return ParitySample(
        conversation="c", token_ids=ids, positions=tuple(range(1, len(ids))), logprobs=logprobs
    )


def test_parity_averages_absolute_differences_over_all_tokens() -> None:
    samples = [parity_sample(-1.0, -2.0), parity_sample(-0.5)]
    found = compare_parity(samples, [[None, -1.1, -1.7], [None, -0.5]])
    assert found.mean_abs == pytest.approx((0.1 + 0.3) / 3)
    assert found.max_abs == found.p99_abs == pytest.approx(0.3)
    assert (found.tokens, found.conversations, found.missing) == (3, 2, 0)


def test_parity_looks_only_at_assistant_tokens() -> None:
    sample = ParitySample(conversation="c", token_ids=(1, 2, 3), positions=(2,), logprobs=(-1.0,))
    assert compare_parity([sample], [[None, -90.0, -1.0]]).mean_abs == 0.0


def test_a_figure_the_engine_left_out_is_counted_as_missing() -> None:
    found = compare_parity([parity_sample(-1.0, -1.0, -1.0)], [[None, None, math.nan, -1.0]])
    assert (found.missing, found.tokens) == (2, 1)


@pytest.mark.parametrize(
    "engine", [[], [[None]], [[None, None]]], ids=["no answer", "too short", "no figure"]
)
def test_parity_with_nothing_to_compare_is_an_error(engine: list[list[float | None]]) -> None:
    with pytest.raises(BadInput, match="parity"):
        compare_parity([parity_sample(-1.0)], engine)
