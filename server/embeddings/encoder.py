"""What an encoder is, and one without a model."""

import hashlib
import math
import re
import sys
from array import array
from collections.abc import Sequence
from typing import Protocol

from server.embeddings.schemas import DIMENSIONS

MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained to read, its two special tokens included
_WORD = re.compile(r"\w+|[^\w\s]")


class Encoder(Protocol):
    """Turns texts into unit vectors. Calls do not overlap."""

    max_tokens: int

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included, however many there are."""

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        """A float32 vector of length 1 for each text, none longer than ``max_tokens``."""


class FakeEncoder:
    """Hashes words: texts that share words are alike, and it needs no model."""

    max_tokens = MAX_TOKENS

    def count(self, texts: Sequence[str]) -> list[int]:
        """Words and punctuation marks, and the two special tokens."""
        return [len(_WORD.findall(text)) + 2 for text in texts]

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        """The sum of a fixed vector for each word, of length 1."""
        return [_hashed(text) for text in texts]


def shorten(vector: "array[float]", dimensions: int) -> bytes:
    """The first ``dimensions`` numbers, at length 1 again, as little-endian float32."""
    kept = vector[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in kept)) or 1.0
    numbers = array("f", (value / length for value in kept))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _hashed(text: str) -> "array[float]":
    total = [0.0] * DIMENSIONS
    for word in ["", *_WORD.findall(text.lower())]:
        digest = hashlib.shake_128(word.encode()).digest(DIMENSIONS)
        total = [value + byte - 127.5 for value, byte in zip(total, digest, strict=True)]
    length = math.sqrt(math.fsum(value * value for value in total))
    return array("f", (value / length for value in total))
