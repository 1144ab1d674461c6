"""Objectives against measurements: what passes, what does not, and what the reader sees."""

import math
from typing import Any

import msgspec
import pytest

from training.config import Objectives
from training.errors import BadInput
from training.evaluation.gates import Gate, Verdict, apply_gates
from training.results import (
    Difference,
    Evaluation,
    Metric,
    Parity,
    ParitySample,
    Scores,
    Subject,
    compare_parity,
    perplexity,
)

PARITY = Parity(mean_abs=0.003, p99_abs=0.02, max_abs=0.1, tokens=2000, conversations=12)


def scores(
    ppl: float | None,
    *,
    similarity: float = 0.5,
    exact: float = 0.0,
    replies: int = 32,
    spread: float | None = 0.02,
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
        inventing=0.125,
        perplexity_low=ppl and spread and ppl / (1 + spread),
        perplexity_high=ppl and spread and ppl * (1 + spread),
    )


def apart(
    metric: Metric, mean: float, spread: float | None, *, against: Subject = "base", items: int = 47
) -> Difference:
    """``spread`` to either side; None where too little was held out."""
    low, high = (None, None) if spread is None else (mean - spread, mean + spread)
    return Difference(metric=metric, against=against, mean=mean, low=low, high=high, items=items)


def evaluation(
    new: Scores,
    *,
    base: Scores | None = None,
    live: Scores | None = None,
    nats: float | None = 0.03,
    meaning: float | None = 0.05,
    items: int = 47,
) -> Evaluation:
    """``nats`` and ``meaning``: half the widths of the intervals."""
    base = base or scores(14.1)
    others: dict[Subject, Scores | None] = {"base": base, "live": live}
    found = [
        apart(
            "nats_per_token",
            new.nats_per_token - other.nats_per_token,
            nats,
            against=name,
            items=items,
        )
        for name, other in others.items()
        if other is not None and new.nats_per_token is not None and other.nats_per_token is not None
    ]
    if new.replies:
        gain = new.similarity - base.similarity
        found.append(apart("similarity", gain, meaning, items=items))
        found.append(apart("token_f1", 0.1, 0.08, against="lookup"))
        found.append(apart("inventing", -0.1, 0.08))
    return Evaluation(
        split="test",
        conversations=items,
        base=base,
        new=new,
        live=live,
        lookup=scores(None),
        differences=tuple(found),
    )


def gates_of(verdict: Verdict) -> dict[str, Gate]:
    return {gate.name: gate for gate in verdict.gates}


def test_an_adapter_that_is_clearly_better_passes() -> None:
    verdict = apply_gates(evaluation(scores(2.41, similarity=0.8)), PARITY, Objectives())
    assert verdict.passed
    assert verdict.result == "better"
    names = ["perplexity_ratio", "similarity_gain", "lookup_f1_gain", "invented_gain", "parity"]
    assert list(gates_of(verdict)) == names
    assert verdict.summary == "passed all 5 gates"
    assert [gate.label for gate in verdict.gates] == [*["better"] * 4, "safe"]


def test_the_reason_has_both_figures_the_ratio_its_interval_and_the_rule() -> None:
    gate = gates_of(apply_gates(evaluation(scores(2.41)), PARITY, Objectives()))["perplexity_ratio"]
    assert gate.why == (
        "held-out perplexity 2.41 against 14.10 of the base: ratio 0.171 (0.166 to 0.176), must be "
        "at most 0.80"
    )
    assert (gate.low, gate.high) == pytest.approx((0.1659, 0.1761), abs=1e-4)


@pytest.mark.parametrize(
    ("ppl", "spread", "result"),
    [
        (10.0, 0.1, "better"),  # a ratio of 0.71, up to 0.78
        (11.0, 0.1, "cannot_tell"),  # 0.78, up to 0.86
        (11.5, 0.1, "cannot_tell"),  # 0.82, down to 0.74
        (13.0, 0.1, "worse"),  # 0.92, down to 0.83
        (20.0, 0.1, "worse"),
        (2.0, None, "cannot_tell"),
    ],
)
def test_a_bound_is_kept_or_broken_by_the_whole_interval(
    ppl: float, spread: float | None, result: str
) -> None:
    verdict = apply_gates(evaluation(scores(ppl), nats=spread, items=4), PARITY, Objectives())
    gate = gates_of(verdict)["perplexity_ratio"]
    assert (gate.result, gate.passed) == (result, result == "better")
    assert verdict.result == result
    few = "; 4 conversations are too few to tell, 6 are needed"
    assert gate.why.endswith(few) is (spread is None)
    assert ("would be needed to tell, 4 were compared" in gate.why) is (
        spread is not None and result == "cannot_tell"
    )


def test_an_interval_that_ends_on_the_bound_passes() -> None:
    result = evaluation(scores(7.0), base=scores(14.0), nats=0.0)
    objectives = Objectives(max_perplexity_ratio=0.5 + 1e-12, max_parity_nats=0.003)
    assert apply_gates(result, PARITY, objectives).passed


@pytest.mark.parametrize(
    ("gain", "spread", "result"),
    [
        (0.3, 0.13, "better"),  # sixteen replies of a run of minutes
        (0.05, 0.13, "better"),  # not surely better, but surely no loss that anybody would notice
        (0.0, 0.13, "cannot_tell"),
        (-0.15, 0.13, "cannot_tell"),
        (-0.3, 0.13, "worse"),
        (-0.2, 0.03, "worse"),
        (-0.03, None, "cannot_tell"),  # of one reply
        (0.5, None, "cannot_tell"),
    ],
)
def test_replies_must_surely_not_have_lost_meaning(
    gain: float, spread: float | None, result: str
) -> None:
    found = evaluation(scores(2.0, similarity=0.5 + gain, replies=16), meaning=spread, items=1)
    gate = gates_of(apply_gates(found, PARITY, Objectives()))["similarity_gain"]
    assert gate.result == result
    assert gate.why.endswith("; one conversation is too few to tell, 6 are needed") is (
        spread is None
    )


def compared(
    metric: Metric, mean: float, spread: float | None, against: Subject, *, items: int = 16
) -> Evaluation:
    """An evaluation of 16 replies with one such difference."""
    found = evaluation(scores(2.0, replies=16))
    kept = tuple(each for each in found.differences if each.metric != metric)
    return msgspec.structs.replace(
        found,
        base_retrieval=scores(9.0, replies=16) if against == "base_retrieval" else None,
        differences=(*kept, apart(metric, mean, spread, against=against, items=items)),
    )


@pytest.mark.parametrize(
    ("gain", "spread", "result"),
    [
        (0.03, 0.07, "better"),  # from -0.04
        (0.03, 0.15, "cannot_tell"),
        (-0.11, 0.14, "cannot_tell"),
        (-0.11, 0.05, "worse"),  # up to -0.06
        (0.3, None, "cannot_tell"),
    ],
)
def test_the_assistant_must_surely_not_be_worse_than_a_look_up(
    gain: float, spread: float | None, result: str
) -> None:
    found = compared("token_f1", gain, spread, "lookup", items=16 if spread else 5)
    verdict = apply_gates(found, PARITY, Objectives())
    assert gates_of(verdict)["lookup_f1_gain"].result == verdict.result == result


def test_a_gate_that_cannot_tell_says_how_much_data_would() -> None:
    gate = gates_of(apply_gates(compared("token_f1", -0.11, 0.14, "lookup"), PARITY, Objectives()))[
        "lookup_f1_gain"
    ]
    # 16 * ((1.960 + 0.842) / 1.960 * 0.14 / 0.06) ** 2 = 178
    assert gate.why == (
        "token F1 0.200 against 0.200 of the look-up in 16 replies: difference -0.110 (-0.250 to "
        "+0.030), must be at least -0.050; about 180 held-out replies would be needed to tell, 16 "
        "were compared"
    )
    few = compared("token_f1", 0.2, None, "lookup", items=5)
    assert "; 5 conversations are too few to tell, 6 are needed" in (
        gates_of(apply_gates(few, PARITY, Objectives()))["lookup_f1_gain"].why
    )


@pytest.mark.parametrize("against", ["base", "base_retrieval"])
@pytest.mark.parametrize(
    ("gain", "spread", "result"),
    [(-0.2, 0.2, "better"), (0.0, 0.04, "better"), (0.0, 0.19, "cannot_tell"), (0.3, 0.2, "worse")],
)
def test_the_assistant_must_surely_not_invent_more_than_the_base_that_was_shown_the_same(
    gain: float, spread: float, result: str, against: Subject
) -> None:
    found = compared("inventing", gain, spread, against)
    gate = gates_of(apply_gates(found, PARITY, Objectives()))["invented_gain"]
    assert gate.result == result
    shown = " with retrieval" if against == "base_retrieval" else ""
    assert f"0.125 of the base{shown} in 16 replies" in gate.why


def test_a_bound_that_nothing_can_break_is_kept_by_anything_and_none_is_no_gate() -> None:
    found = compared("token_f1", -0.5, None, "lookup", items=1)
    found = msgspec.structs.replace(
        found,
        differences=(
            apart("similarity", -0.5, None, items=1),
            apart("inventing", 0.5, None, items=1),
            *(each for each in found.differences if each.metric in {"nats_per_token", "token_f1"}),
        ),
    )
    lenient = Objectives(min_similarity_gain=-2, min_lookup_f1_gain=-1, max_invented_gain=1)
    assert apply_gates(found, PARITY, lenient).passed
    off = Objectives(min_lookup_f1_gain=None, max_invented_gain=None)
    assert list(gates_of(apply_gates(found, PARITY, off))) == [
        "perplexity_ratio",
        "similarity_gain",
        "parity",
    ]


def preferring(
    new: float | None,
    base: float | None = 0.55,
    *,
    spread: float | None = 0.1,
    margin: float = 0.0,
    margin_spread: float | None = 0.05,
) -> Evaluation:
    """An evaluation of a run that learned from 40 comparisons; ``margin`` is how much it gained."""
    found = evaluation(
        msgspec.structs.replace(scores(20.0), preference_accuracy=new, preference_margin=margin),
        base=msgspec.structs.replace(scores(14.1), preference_accuracy=base, preference_margin=0.0),
    )
    differences = found.differences
    if new is not None and base is not None:
        differences += (
            apart("preference_accuracy", new - base, spread, items=40),
            apart("preference_margin", margin, margin_spread, items=40),
        )
    return msgspec.structs.replace(found, comparisons=40, differences=differences)


def test_after_preferences_sharing_them_counts_in_place_of_perplexity() -> None:
    verdict = apply_gates(preferring(0.8), PARITY, Objectives())
    assert next(iter(gates_of(verdict))) == "preference_accuracy"
    assert "perplexity_ratio" not in gates_of(verdict)
    assert verdict.passed
    assert gates_of(verdict)["preference_accuracy"].why == (
        "the wanted reply is the likelier one in 80% of 40 comparisons (70% to 90%), for the base in "
        "55%: must be above the base's, or as much by a larger margin"
    )


@pytest.mark.parametrize(
    ("new", "margin", "result"),
    [
        (0.55, 0.0, "cannot_tell"),
        (0.55, 0.2, "better"),
        (0.60, 0.2, "better"),
        (0.60, 0.0, "cannot_tell"),
        (0.50, 0.9, "cannot_tell"),
        (0.50, -0.2, "worse"),
        (0.66, 0.0, "better"),
        (0.40, 0.9, "worse"),
    ],
)
def test_preferences_must_be_shared_more_than_by_the_base(
    new: float, margin: float, result: str
) -> None:
    verdict = apply_gates(preferring(new, margin=margin), PARITY, Objectives())
    assert gates_of(verdict)["preference_accuracy"].result == result


def test_of_few_comparisons_nothing_is_said() -> None:
    found = preferring(1.0, margin=2.0, spread=None, margin_spread=None)
    gate = gates_of(apply_gates(found, PARITY, Objectives()))["preference_accuracy"]
    assert gate.result == "cannot_tell"
    assert "comparisons are too few to tell" in gate.why


@pytest.mark.parametrize(
    ("share", "result"), [(1.0, "better"), (0.8, "cannot_tell"), (0.4, "worse")]
)
def test_a_bound_for_preferences_can_be_declared(share: float, result: str) -> None:
    objectives = Objectives(min_preference_accuracy=0.7)
    gate = gates_of(apply_gates(preferring(share), PARITY, objectives))["preference_accuracy"]
    assert gate.result == result
    assert "must be at least 70%" in gate.why


def test_preferences_that_were_not_measured_do_not_pass() -> None:
    verdict = apply_gates(preferring(None, None), PARITY, Objectives())
    assert gates_of(verdict)["preference_accuracy"].result == "cannot_tell"
    nothing = msgspec.structs.replace(preferring(None, None), comparisons=0)
    assert next(iter(gates_of(apply_gates(nothing, PARITY, Objectives())))) == "preference_accuracy"


def test_after_preferences_the_live_adapter_is_still_a_bound() -> None:
    found = preferring(0.8)
    live = apart("nats_per_token", 0.7, 0.1, against="live")
    worse = msgspec.structs.replace(
        found, live=scores(10.0), differences=(*found.differences, live)
    )
    gate = gates_of(apply_gates(worse, PARITY, Objectives()))["live_perplexity_ratio"]
    assert gate.result == "worse"


def test_an_adapter_hardly_better_than_the_base_fails_and_the_summary_says_why() -> None:
    verdict = apply_gates(evaluation(scores(13.0)), PARITY, Objectives())
    assert not verdict.passed
    assert verdict.summary.startswith("failed 1 of 5 gates: held-out perplexity 13.00 against")


def test_what_is_worse_and_what_is_open_are_distinguished() -> None:
    verdict = apply_gates(evaluation(scores(13.0), meaning=None, items=9), PARITY, Objectives())
    assert verdict.result == "worse"
    assert verdict.summary.startswith("failed 1 of 5 gates: held-out perplexity 13.00")
    assert "; and left 1 of 5 gates open: semantic similarity" in verdict.summary


@pytest.mark.parametrize(
    ("live", "result"), [(2.0, "worse"), (2.28, "cannot_tell"), (2.4, "better"), (3.0, "better")]
)
def test_an_adapter_must_surely_be_no_worse_than_the_live_one(live: float, result: str) -> None:
    found = evaluation(scores(2.4), live=scores(live))
    gate = gates_of(apply_gates(found, PARITY, Objectives()))["live_perplexity_ratio"]
    assert gate.result == result
    assert "of the live adapter: ratio" in gate.why
    assert "must be at most 1.05" in gate.why


def test_without_a_live_adapter_its_objective_is_not_applied() -> None:
    assert "live_perplexity_ratio" not in gates_of(
        apply_gates(evaluation(scores(2.4)), PARITY, Objectives())
    )


def test_absolute_bounds_apply_only_when_declared() -> None:
    objectives = Objectives(max_perplexity=3.0, min_exact=0.5)
    found = gates_of(apply_gates(evaluation(scores(2.4, exact=0.25)), PARITY, objectives))
    assert found["perplexity"].passed
    assert found["perplexity"].why == (
        "held-out perplexity is 2.40 (2.35 to 2.45), must be at most 3.00"
    )
    assert found["exact"].result == "worse"
    assert found["exact"].why.endswith("are 25% of 32 (13% to 42%), must be at least 50%")


@pytest.mark.parametrize(
    ("new", "perplexity", "exact"),
    [
        (scores(2.99), "cannot_tell", "worse"),
        (scores(2.4, spread=None), "cannot_tell", "worse"),
        (scores(2.4, exact=0.4), "better", "cannot_tell"),
        (scores(2.4, exact=1.0, replies=2), "better", "cannot_tell"),
        (scores(2.4, exact=0.8), "better", "better"),
        (scores(4.0), "worse", "worse"),
    ],
)
def test_absolute_bounds_are_held_against_intervals_too(
    new: Scores, perplexity: str, exact: str
) -> None:
    objectives = Objectives(max_perplexity=3.0, min_exact=0.5)
    found = gates_of(apply_gates(evaluation(new), PARITY, objectives))
    assert (found["perplexity"].result, found["exact"].result) == (perplexity, exact)


def test_where_nothing_was_held_out_no_gate_can_tell() -> None:
    none = msgspec.structs.replace(scores(None, replies=0), tokens=0)
    found = evaluation(none, base=none)
    objectives = Objectives(max_perplexity=3.0, min_exact=0.5)
    verdict = apply_gates(found, PARITY, objectives)
    assert (verdict.result, verdict.passed, verdict.unsafe) == ("cannot_tell", False, "")
    assert {gate.result for gate in verdict.gates} == {"cannot_tell", "better"}
    assert verdict.summary.startswith(
        "left 6 of 7 gates open: held-out perplexity was not measured"
    )


def test_a_model_that_gives_no_numbers_is_worse() -> None:
    verdict = apply_gates(evaluation(scores(None)), PARITY, Objectives(max_perplexity=3.0))
    found = gates_of(verdict)
    assert found["perplexity_ratio"].result == found["perplexity"].result == "worse"
    assert "is not a number" in found["perplexity_ratio"].why
    verdict = apply_gates(
        msgspec.structs.replace(evaluation(scores(None)), comparisons=9), PARITY, Objectives()
    )
    assert gates_of(verdict)["preference_accuracy"].result == "worse"


def test_without_parity_nothing_is_served() -> None:
    verdict = apply_gates(evaluation(scores(2.0)), None, Objectives())
    assert not verdict.passed
    assert "were not compared" in verdict.summary
    assert "were not compared" in verdict.unsafe


@pytest.mark.parametrize("mean", [0.06, math.nan, math.inf])
def test_an_engine_that_serves_something_else_is_unsafe_however_good_the_scores(
    mean: float,
) -> None:
    parity = msgspec.structs.replace(PARITY, mean_abs=mean, tokens=10)
    verdict = apply_gates(evaluation(scores(2.0)), parity, Objectives())
    assert "trainer and engine differ" in verdict.unsafe
    assert gates_of(verdict)["parity"].label == "UNSAFE"
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_what_the_gates_find_worse_is_not_unsafe() -> None:
    assert apply_gates(evaluation(scores(20.0)), PARITY, Objectives()).unsafe == ""


def test_tokens_the_engine_left_out_fail_parity_however_small_the_mean() -> None:
    parity = msgspec.structs.replace(PARITY, missing=3)
    verdict = apply_gates(evaluation(scores(2.0)), parity, Objectives())
    assert "no log-probability for 3 of 2,003 tokens" in gates_of(verdict)["parity"].why
    assert verdict.unsafe


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_never_a_pass_and_survives_json(value: float) -> None:
    found = evaluation(scores(2.0, similarity=value))
    kept = tuple(d for d in found.differences if d.metric != "similarity")
    verdict = apply_gates(msgspec.structs.replace(found, differences=kept), PARITY, Objectives())
    gate = gates_of(verdict)["similarity_gain"]
    assert gate.result == "cannot_tell"
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_a_verdict_of_before_there_were_three_results_can_be_read() -> None:
    def old(passed: bool) -> dict[str, Any]:
        gate = {"name": "perplexity_ratio", "value": 0.5, "bound": 0.8, "why": "lower"}
        return {"passed": passed, "gates": [{**gate, "passed": passed}]}

    good, bad = (msgspec.convert(old(passed), Verdict) for passed in (True, False))
    assert (good.result, good.gates[0].result) == ("better", "better")
    assert (bad.result, bad.gates[0].result) == ("worse", "worse")
    assert bad.summary == "failed 1 of 1 gates: lower"


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
