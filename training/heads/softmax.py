"""The softmax layer of a head: its weights, its fit, and its calibration. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.adapters.safetensors_io import TensorFile, write_tensors
from training.errors import ArtifactError
from training.evaluation.metrics import Vectors

Probabilities = npt.NDArray[np.float64]
_MAX_HEADER_BYTES = 1 << 20
_LOG_TEMPERATURES = (-3.0, 3.0)


class Softmax(NamedTuple):
    """``weights``: (labels, dimensions); ``biases``: (labels,). Labels are in sorted order."""

    weights: Vectors
    biases: Vectors

    def logits(self, vectors: Vectors) -> Vectors:
        """(texts, labels) of (texts, dimensions)."""
        found: Vectors = vectors @ self.weights.T + self.biases
        return found


def fit(
    vectors: Vectors, labels: Sequence[str], *, inverse_penalty: float, classes: Sequence[str]
) -> Softmax:
    """Fit by penalised likelihood, each label weighing alike however many texts it has.

    Args:
        vectors: (texts, dimensions), of length 1.
        labels: Of each text; every one of ``classes`` is there.
        inverse_penalty: scikit-learn's ``C``.
        classes: All labels, sorted.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - seconds

    model = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=2_000)
    model.fit(vectors, np.searchsorted(classes, labels))
    weights, biases = model.coef_, model.intercept_
    if len(classes) == 2:  # noqa: PLR2004 - one row then, of the second label's log-odds
        weights, biases = (
            np.concatenate([-weights, weights]) / 2,
            np.array([-biases[0], biases[0]]) / 2,
        )
    return Softmax(weights.astype(np.float32), biases.astype(np.float32))


def probabilities(logits: Vectors, temperature: float) -> Probabilities:
    """The softmax of logits over a temperature; each row adds up to 1."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return found


def fit_temperature(logits: Vectors, truth: npt.NDArray[np.int64]) -> float:
    """The temperature under which held-out labels are likeliest (Guo et al. 2017, section 4.2).

    It changes how sure a head says it is, and never which label it says. Where all labels are right,
    the likelihood has no maximum: the bound then is a twentieth.

    Args:
        logits: (texts, labels), of texts that were not trained on.
        truth: Each text's label, by number.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - 1 s

    def loss(log_temperature: float) -> float:
        found = probabilities(logits, float(np.exp(log_temperature)))
        right = found[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    best = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(np.exp(best.x))


def save(path: Path, softmax: Softmax) -> None:
    """Write the weights as safetensors, flushed to the disk."""
    arrays = softmax._asdict()
    shapes = {name: array.shape for name, array in arrays.items()}
    write_tensors(path, shapes, dtype="F32", values=arrays.__getitem__)


def load(path: Path, *, labels: int, dimensions: int) -> Softmax:
    """Read the weights.

    Raises:
        ArtifactError: it is no such file, of another shape, or a number is not finite.
    """
    with TensorFile(path, max_header_bytes=_MAX_HEADER_BYTES) as file:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        if shapes != {"weights": (labels, dimensions), "biases": (labels,)}:
            raise ArtifactError(f"{path}: not the weights of {labels} labels: {shapes}")
        found = Softmax(file.read("weights"), file.read("biases"))
    if not all(np.isfinite(array).all() for array in found):
        raise ArtifactError(f"{path}: a weight is not a finite number")
    return found
