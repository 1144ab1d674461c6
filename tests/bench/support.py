"""How often an answer is wrongly said to rest on nothing, or on something.

    python -m tests.bench.support FOLDER FOLDER [...]

A folder holds a tenant's conversations as ``train.jsonl`` and ``test.jsonl`` (or ``.jsonl.gz``), with messages as in a
dataset version. For each tenant the index is built from its first ``TRAIN`` conversations to learn from, as a run does. A false alarm: a question of the
tenant's own held-out conversations that nothing is said to support. A miss: a question to another of the
tenants that something is said to support; greetings and thanks are among those, and are no mistake. AUC is of the score
less the threshold. Articles are left out.
"""

import gzip
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from training.data.contexts import Context, contexts_of
from training.data.dataset import Example
from training.evaluation.sentence_embedder import load_embedder
from training.retrieval.index import (
    SUPPORTED_SHARE,
    ExchangeIndex,
    Thresholds,
    Vectors,
    encode,
    query_of,
)

TRAIN, TEST = 320, 60  # conversations of a tenant


class Questions(NamedTuple):
    """Questions as they are looked up, and which of them begin a conversation."""

    vectors: Vectors
    first: npt.NDArray[np.bool_]


def read(folder: Path, split: str, most: int) -> list[Example]:
    plain, packed = folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz"
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    return [msgspec.json.decode(line, type=Example) for line in data.splitlines()[:most] if line]


def margins(index: ExchangeIndex, thresholds: Thresholds, asked: Questions) -> Vectors:
    """How far above its threshold each question's nearest exchange is."""
    scores = np.array([hits[0].score for hits in index.search(asked.vectors, 1)], dtype=np.float32)
    return scores - np.where(asked.first, thresholds.first, thresholds.later).astype(np.float32)


def auc(own: Vectors, others: Vectors) -> float:
    return float(mannwhitneyu(own, others).statistic) / (len(own) * len(others))


def joined(parts: Sequence[Questions]) -> Questions:
    return Questions(
        np.concatenate([each.vectors for each in parts]),
        np.concatenate([each.first for each in parts]),
    )


def main(folders: Sequence[Path]) -> None:
    import torch  # noqa: PLC0415 - not for --help

    embed = load_embedder(torch.float32)
    indexes: list[ExchangeIndex] = []
    held_out: list[Questions] = []
    for folder in folders:
        indexes.append(ExchangeIndex.build(read(folder, "train", TRAIN), embed=embed))
        contexts: list[Context] = [
            context for each in read(folder, "test", TEST) for context in contexts_of(each)
        ]
        vectors = encode([query_of(context) for context in contexts], embed)
        held_out.append(Questions(vectors, np.array([not each.before for each in contexts])))
    print("tenant, thresholds: false alarms; misses, of first questions; AUC, first, later")
    for number, index in enumerate(indexes):
        own, others = held_out[number], joined(held_out[:number] + held_out[number + 1 :])
        together = [
            hits[0].score
            for hits in index.neighbours(
                [
                    context
                    for each in read(folders[number], "train", TRAIN)
                    for context in contexts_of(each)
                ],
                1,
            )
            if hits
        ]
        one = float(np.quantile(together, 1 - SUPPORTED_SHARE))
        for name, thresholds in (("one", Thresholds(one, one)), ("two", index.thresholds)):
            mine, theirs = (margins(index, thresholds, asked) for asked in (own, others))
            by_sort = [
                auc(mine[own.first == sort], theirs[others.first == sort]) for sort in (1, 0)
            ]
            print(
                f"{folders[number].name}, {name} ({thresholds.first:.2f}, {thresholds.later:.2f}): "
                f"{np.mean(mine < 0):.3f} of {len(mine)}; {np.mean(theirs >= 0):.3f} of {len(theirs)}, "
                f"{np.mean(theirs[others.first] >= 0):.3f}; {auc(mine, theirs):.3f}, "
                f"{by_sort[0]:.3f}, {by_sort[1]:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
