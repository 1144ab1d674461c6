"""Articles as a job's preparation freezes them, with the vectors of the real encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.references import Piece
from training.retrieval.articles import ArticleIndex


def freeze_articles(folder: Path, texts: Sequence[str]) -> Path:
    """A piece of each text."""
    import torch  # noqa: PLC0415 - takes seconds

    from training.evaluation.sentence_embedder import load_embedder  # noqa: PLC0415 - loads torch

    pieces = [
        Piece(id=f"a{number}@1#0", title=f"Article {number}", headings=(), text=text)
        for number, text in enumerate(texts)
    ]
    vectors = load_embedder(torch.float32)(texts).astype(np.float16)
    return ArticleIndex(pieces, vectors).save(folder)
