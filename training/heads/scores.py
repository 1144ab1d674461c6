"""How right a head is, how well it knows that, and what follows for its use. Needs no torch.

Accuracy is the share of texts that get their own label. Where labels are unevenly frequent (most
customers are not annoyed) it says little: who always says "not annoyed" has a high one. So gates look
at balanced accuracy, the mean of the shares of each label's texts (Brodersen et al. 2010), which is
1 / labels for the majority class, whichever that is.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from training.evaluation.confidence_intervals import (
    MIN_SAMPLES,
    bootstrap_interval,
    share_interval,
)
from training.evaluation.gates import Gate, Verdict
from training.evaluation.verdicts import Result
from training.heads.softmax import Probabilities

BINS = 10
_SEED = 17

Numbers = npt.NDArray[np.int64]


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Texts whose label was given with a probability above ``low``, up to ``high``.

    ``confidence``: the mean of those probabilities; ``accuracy``: how many were right. Both are None
    in an empty bin.
    """

    low: float
    high: float
    texts: int
    confidence: float | None = None
    accuracy: float | None = None


class LabelScores(msgspec.Struct, frozen=True, kw_only=True):
    """Of one label: how many texts have it, and precision, recall and F1, in [0, 1]."""

    texts: int
    precision: float
    recall: float
    f1: float


class HeadScores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores on the test part.

    ``accuracy_low`` and ``accuracy_high``: Wilson's 95 % interval. ``ece``: expected calibration
    error over ``bins``, the mean distance of confidence and accuracy, weighted by texts (Guo et al.
    2017, section 2); ``ece_uncalibrated``: the same with a temperature of 1.
    """

    texts: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    macro_f1: float
    ece: float
    ece_uncalibrated: float
    bins: tuple[Bin, ...]
    labels: dict[str, LabelScores]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Balanced accuracy less that of another, on the same texts; an interval where there are enough."""

    difference: float
    low: float | None
    high: float | None
    texts: int

    @property
    def result(self) -> Result:
        """Whether it is better, by the interval."""
        if self.low is None or self.high is None:
            return "cannot_tell"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "cannot_tell"


def score(
    found: Probabilities, uncalibrated: Probabilities, truth: Numbers, *, labels: Sequence[str]
) -> HeadScores:
    """Scores of calibrated and of uncalibrated probabilities, both (texts, labels)."""
    said = found.argmax(axis=1)
    right = said == truth
    by_label = {name: _label_scores(said, truth, number) for number, name in enumerate(labels)}
    there = [each for each in by_label.values() if each.texts]
    accuracy = float(right.mean())
    low, high = share_interval(accuracy, len(truth)) or (0.0, 1.0)
    bins = reliability(found, truth)
    return HeadScores(
        texts=len(truth),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=float(np.mean([each.recall for each in there])),
        macro_f1=float(np.mean([each.f1 for each in there])),
        ece=expected_calibration_error(bins),
        ece_uncalibrated=expected_calibration_error(reliability(uncalibrated, truth)),
        bins=bins,
        labels=by_label,
    )


def reliability(found: Probabilities, truth: Numbers) -> tuple[Bin, ...]:
    """Texts in ``BINS`` bins of equal width, by the probability of the label that is said."""
    confidence = found.max(axis=1)
    right = found.argmax(axis=1) == truth
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for number in range(BINS):
        inside = which == number
        count = int(inside.sum())
        bins.append(
            Bin(
                low=number / BINS,
                high=(number + 1) / BINS,
                texts=count,
                confidence=float(confidence[inside].mean()) if count else None,
                accuracy=float(right[inside].mean()) if count else None,
            )
        )
    return tuple(bins)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance of confidence and accuracy over bins, weighted by their texts; in [0, 1]."""
    total = sum(each.texts for each in bins)
    gaps = (
        each.texts * abs(each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    )
    return sum(gaps) / total


def compare(first: Numbers, second: Numbers, truth: Numbers) -> Comparison:
    """Balanced accuracy of the labels that ``first`` says, less that of ``second``: paired bootstrap."""
    counts = np.bincount(truth)
    share = len(truth) / (counts[truth] * np.count_nonzero(counts))
    differences = ((first == truth).astype(float) - (second == truth)) * share
    low = high = None
    if len(truth) >= MIN_SAMPLES:
        low, high = bootstrap_interval(differences.tolist(), seed=_SEED)
    return Comparison(difference=float(differences.mean()), low=low, high=high, texts=len(truth))


def apply_gates(
    said: Numbers,
    truth: Numbers,
    *,
    majority: int,
    live: Comparison | None,
) -> Verdict:
    """Hold a head against the majority class and against the live head.

    Args:
        said: The label of each test text, by number.
        truth: The label that it has.
        majority: The commonest label of the training part.
        live: Against the live head on the texts that it was not trained on; None where there is no
            live head that can be compared.
    """
    gates = [_gate("majority", compare(said, np.full_like(truth, majority), truth), _MAJORITY)]
    if live is not None:
        gates.append(_gate("live", live, _LIVE))
    return Verdict(passed=all(gate.passed for gate in gates), gates=tuple(gates))


_MAJORITY = "always saying the commonest label"
_LIVE = "the live head"


def _gate(name: str, found: Comparison, against: str) -> Gate:
    interval = (
        f" (95 % interval {found.low:+.2f} to {found.high:+.2f})"
        if found.low is not None and found.high is not None
        else f" (at least {MIN_SAMPLES} texts are needed for an interval)"
    )
    return Gate(
        name=name,
        value=found.difference,
        bound=0.0,
        passed=found.result == "better",
        low=found.low,
        high=found.high,
        result=found.result,
        why=(
            f"balanced accuracy less that of {against}, on {found.texts:,} test texts: "
            f"{found.difference:+.2f}{interval}, must be above 0"
        ),
    )


def _label_scores(said: Numbers, truth: Numbers, number: int) -> LabelScores:
    hits = int(((said == number) & (truth == number)).sum())
    given, wanted = int((said == number).sum()), int((truth == number).sum())
    return LabelScores(
        texts=wanted,
        precision=hits / given if given else 0.0,
        recall=hits / wanted if wanted else 0.0,
        f1=2 * hits / (given + wanted) if given + wanted else 0.0,
    )
