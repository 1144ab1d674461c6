import math

import numpy as np
import pytest

from training.heads.scores import (
    apply_gates,
    compare,
    expected_calibration_error,
    reliability,
    score,
)
from training.heads.softmax import fit_temperature, probabilities


def numbers(*found: int) -> np.ndarray:
    return np.asarray(found, dtype=np.int64)


def test_scores_of_a_small_table_by_hand() -> None:
    found = np.array([[0.9, 0.1], [0.8, 0.2], [0.65, 0.35], [0.3, 0.7]])
    truth = numbers(0, 0, 1, 1)
    scores = score(found, found, truth, labels=("a", "b"))
    assert scores.accuracy == 0.75
    assert scores.balanced_accuracy == 0.75
    assert scores.labels["a"].precision == pytest.approx(2 / 3)
    assert scores.labels["b"].recall == 0.5
    assert scores.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    # bins: 0.9 right, 0.8 right, 0.65 wrong, 0.7 right (up to 0.7: with 0.65)
    assert scores.ece == pytest.approx((0.1 + 0.2 + 2 * abs(0.675 - 0.5)) / 4)


def test_bins_hold_every_text_once() -> None:
    found = np.array([[1.0, 0.0], [0.5, 0.5], [0.41, 0.59]])
    bins = reliability(found, numbers(0, 0, 1))
    assert sum(each.texts for each in bins) == 3
    assert bins[-1].texts == 1
    assert expected_calibration_error(bins) <= 1


def test_temperature_makes_overconfident_logits_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, size=4_000)
    wrong = rng.random(4_000) < 0.2
    said = np.where(wrong, 1 - truth, truth)
    logits = np.where(np.arange(2) == said[:, None], 8.0, 0.0).astype(np.float32)
    temperature = fit_temperature(logits, truth)
    # sure with odds of 4 to 1: 8 / T = log 4
    assert temperature == pytest.approx(8 / math.log(4), rel=0.1)
    before = expected_calibration_error(reliability(probabilities(logits, 1.0), truth))
    after = expected_calibration_error(reliability(probabilities(logits, temperature), truth))
    assert before > 0.15
    assert after < 0.02


def test_gates_say_better_worse_and_cannot_tell() -> None:
    truth = numbers(*[0] * 30, *[1] * 10)
    always = apply_gates(np.zeros_like(truth), truth, majority=0, live=None)
    assert [gate.result for gate in always.gates] == ["cannot_tell"]
    right = apply_gates(truth, truth, majority=0, live=compare(truth, 1 - truth, truth))
    assert right.passed
    assert right.gates[0].value == pytest.approx(0.5)
    worse = apply_gates(truth, truth, majority=0, live=compare(1 - truth, truth, truth))
    assert worse.result == "worse"
    few = compare(numbers(0, 1), numbers(1, 0), numbers(0, 1))
    assert few.result == "cannot_tell"


def test_a_rare_label_weighs_as_much_as_a_frequent_one() -> None:
    truth = numbers(*[0] * 96, *[1] * 4)
    said = numbers(*[1] * 6, *[0] * 90, *[1] * 4)
    found = compare(said, np.zeros_like(truth), truth)
    assert found.difference == pytest.approx((90 / 96 + 1) / 2 - 0.5)
