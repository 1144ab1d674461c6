"""The LoRA of a tuned sentence encoder: merged into the encoder's weights where it is used."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.adapters.safetensors_io import TensorFile
from training.errors import ArtifactError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LORA_FILE = "encoder_lora.safetensors"
MAX_HEADER_BYTES = 1 << 20
TARGETS = ("query", "key", "value", "dense")
"""Layers of BERT that get a LoRA: all that are matrix products."""
SCALE = 2.0
"""alpha / rank, by which the product of both matrices is added."""


def merge(model: "SentenceTransformer", path: Path) -> None:
    """Add a LoRA to the weights of a fresh encoder; what is then encoded is as fast as without.

    Raises:
        ArtifactError: the file does not fit the encoder, or a number in it is not finite.
    """
    import torch

    layers = dict(model[0].auto_model.named_modules())
    with TensorFile(path, max_header_bytes=MAX_HEADER_BYTES) as file, torch.no_grad():
        names = {name.rpartition(".")[0] for name in file.tensors}
        if set(file.tensors) != {f"{name}.{part}" for name in names for part in "AB"}:
            raise ArtifactError(f"{path}: not a LoRA: matrices A and B do not go together")
        for name in sorted(names):
            weight = getattr(layers.get(name), "weight", None)
            a, b = file.read(f"{name}.A"), file.read(f"{name}.B")
            product = b @ a if b.shape[-1] == a.shape[0] else np.empty(0)
            if weight is None or weight.shape != product.shape:
                raise ArtifactError(f"{path}: {name} does not fit the encoder")
            if not np.isfinite(product).all():
                raise ArtifactError(f"{path}: {name} has a number that is not finite")
            weight += SCALE * torch.from_numpy(product).to(weight)
