"""A tenant's articles as they were when a training job began. Needs numpy and safetensors, no torch.

One file, which the job's preparation writes, and which training and evaluation look up in as serving looks up in what
the tenant has at that time (`server.knowledge.search`)::

    vectors   (pieces, dimensions) float16
    pieces    bytes: `training.references.Piece`, a JSON array

It is named by the SHA-256 of its bytes: ``knowledge-<64 hex>.safetensors``.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from training.config import KNOWLEDGE_NAME
from training.errors import BadInput
from training.filesystem import write_atomically
from training.references import ARTICLE_SCORE, ARTICLES, Piece, Reference
from training.retrieval.nearest import Stored, Vectors, lengths_of, nearest

MOST_SCORES = 1 << 24
"""Cosines in memory at a time: 64 MB."""
_CLOSE = np.float32(1e-4)
"""By how much a cosine of a product of matrices may differ from the exact one; it is some 1e-6."""
_SHA256 = re.compile("[0-9a-f]{64}")


class ArticleIndex:
    """The pieces of a tenant's articles, found by the meaning of a question.

        articles = ArticleIndex.load(Path(spec.knowledge))
        (references,) = articles.search(embed(["Do you bake rye bread?"]))

    Args:
        pieces: in the order of the rows.
        vectors: (pieces, dimensions).
    """

    def __init__(self, pieces: Sequence[Piece], vectors: Stored) -> None:
        self.pieces = pieces
        self._vectors = vectors
        self._lengths = lengths_of(vectors)

    def __len__(self) -> int:
        return len(self.pieces)

    def search(self, questions: Vectors) -> list[list[Reference]]:
        """What each question is shown at serving: the `ARTICLES` nearest pieces that reach `ARTICLE_SCORE`.

        Args:
            questions: (questions, dimensions), each of length 1.
        """
        if not len(questions):
            return []
        rows = self._vectors.astype(np.float32) / self._lengths[:, None]
        block = max(1, MOST_SCORES // len(rows))
        return [
            self._near(question, scores)
            for start in range(0, len(questions), block)
            for question, scores in zip(
                questions[start : start + block],
                questions[start : start + block] @ rows.T,
                strict=True,
            )
        ]

    def _near(self, question: Vectors, scores: Vectors) -> list[Reference]:
        """``scores`` chooses the few pieces that can be among the nearest; their cosines are computed as at serving."""
        most = min(ARTICLES, len(scores))
        least = max(np.partition(scores, -most)[-most], np.float32(ARTICLE_SCORE))
        close = np.flatnonzero(scores >= least - _CLOSE)
        found = nearest(self._vectors[close], self._lengths[close], question, ARTICLES)
        return [
            self.pieces[close[at]].reference(score) for at, score in found if score >= ARTICLE_SCORE
        ]

    def save(self, folder: Path) -> Path:
        """Write the file, whole or not at all, and return where it is; equal pieces give an equal file."""
        data = save(
            {
                "vectors": np.ascontiguousarray(self._vectors),
                "pieces": np.frombuffer(msgspec.json.encode(self.pieces), dtype=np.uint8),
            }
        )
        path = folder / KNOWLEDGE_NAME.format(sha256=hashlib.sha256(data).hexdigest())
        write_atomically(path, data)
        return path

    @classmethod
    def load(cls, path: Path) -> "ArticleIndex":
        """Read a file that `save` wrote.

        Raises:
            BadInput: it is not there, or is not what its name says.
        """
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256_of(path):
                raise BadInput(f"{path} is not the file that was written: hashes differ")
            arrays = load(data)
            pieces = msgspec.json.decode(arrays["pieces"].tobytes(), type=list[Piece])
            vectors: Stored = arrays["vectors"]
        except (OSError, SafetensorError, KeyError, msgspec.MsgspecError) as exc:
            raise BadInput(f"{path} holds no articles: {exc}") from exc
        if not pieces or len(pieces) != len(vectors) or vectors.dtype != np.float16:
            raise BadInput(f"{path} holds no articles: its parts do not fit together")
        return cls(pieces, vectors)


def sha256_of(path: Path) -> str:
    """The hash that a file's name says.

    Raises:
        BadInput: the name says none.
    """
    sha256 = path.stem.partition("-")[2]
    if path.name != KNOWLEDGE_NAME.format(sha256=sha256) or not _SHA256.fullmatch(sha256):
        raise BadInput(
            f"{path}: a file of articles is called {KNOWLEDGE_NAME.format(sha256='<SHA-256>')}"
        )
    return sha256
