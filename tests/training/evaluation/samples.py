"""Conversations and a stand-in for the sentence encoder, for the tests of evaluation."""

from collections.abc import Sequence

import numpy as np

from connectors.conversation import ChatMessage
from training.data.dataset import Example
from training.evaluation.metrics import Vectors


def conversation(name: str, *texts: str, weights: Sequence[int] = ()) -> Example:
    """Customer and agent in turn; the turns numbered in ``weights`` have weight 0."""
    messages = [
        ChatMessage(
            role="assistant" if number % 2 else "user",
            content=text,
            weight=0 if number in weights else 1,
        )
        for number, text in enumerate(texts)
    ]
    return Example(name, messages)


def letters(texts: Sequence[str]) -> Vectors:
    """Turn texts into counts of letters: near enough to meaning for a test."""
    counts = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], "f4")
    counts += 1e-6
    unit: Vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    return unit
