"""What training a head writes, of invented answers."""

from typing import Any

import msgspec
import numpy as np

from training.heads.config import Task
from training.heads.scores import apply_gates, compare, score
from training.heads.softmax import probabilities

TEXTS = 24


def make_manifest(
    task: Task, labels: tuple[str, ...], *, right: float, live: bool = False
) -> dict[str, Any]:
    """The parts that pages show. Of the answers to the test texts the share ``right`` is right.

    ``live``: it was held against a live head that a third of the texts made say something wrong.
    """
    rng = np.random.default_rng(17)
    truth = np.arange(TEXTS) % len(labels)
    logits = rng.normal(size=(TEXTS, len(labels))).astype(np.float32)
    logits[np.arange(TEXTS), truth] += np.where(np.arange(TEXTS) < right * TEXTS, 4, -4)
    found = probabilities(logits, 1.0)
    said = found.argmax(axis=1)
    other = (truth + (np.arange(TEXTS) < TEXTS // 3)) % len(labels)
    made: dict[str, Any] = msgspec.to_builtins(
        {
            "task": task,
            "labels": labels,
            "encoder": {"name": "all-minilm-l6-v2"},
            "dataset_sha256": "d" * 64,
            "scores": score(found, probabilities(logits, 2.0), truth, labels=labels),
            "verdict": apply_gates(
                said, truth, majority=0, live=compare(said, other, truth) if live else None
            ),
            "choice": "the frozen encoder, since it is not worse; tuned against frozen: balanced "
            "accuracy -0.04 on 19 validation texts (95 % interval -0.14 to +0.06)",
            "note": "",
            "seconds": 71.2,
        }
    )
    return made
