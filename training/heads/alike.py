"""Which examples are the same, and which nearly: those must not stand on both sides of a split.

Texts are compared as conversations are (`training.data.deduplication`), pictures by their likeness.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from scipy.cluster.hierarchy import DisjointSet

from training.data.deduplication import (
    METHOD,
    SAME_SPLIT,
    candidates,
    jaccard,
    normalise,
    shingles,
)
from training.heads.config import IMAGE, Task
from training.heads.examples import Example, Labelled, LabelledImage
from training.heads.images import likeness, load_picture

SAME_PICTURE = 0.98
"""The correlation from which two pictures are in one split: one image saved twice has 0.99 and more."""
E = TypeVar("E", bound=Example)


def method_of(task: Task) -> str:
    """How near-duplicates are found, in words."""
    if task == IMAGE:
        return f"correlation of 32 x 32 grey values, {SAME_PICTURE}"
    return f"{METHOD}, {SAME_SPLIT}"


def content_of(example: Example) -> str:
    """The text, or the picture's name."""
    return example.text if isinstance(example, Labelled) else example.image


def key_of(example: Example) -> str:
    """Examples with the same key are the same: texts apart from lower case, digits and punctuation."""
    return normalise(example.text) if isinstance(example, Labelled) else example.image


def distinct(examples: Iterable[E]) -> tuple[list[E], int, int]:
    """(examples with one label each, sorted; repeats; examples with several labels)."""
    found: dict[str, list[E]] = {}
    for example in sorted(examples, key=lambda each: (content_of(each), each.label)):
        found.setdefault(key_of(example), []).append(example)
    kept, repeated, conflicting = [], 0, 0
    for key in sorted(found):
        same = found[key]
        if len({example.label for example in same}) > 1:
            conflicting += 1
            continue
        kept.append(same[0])
        repeated += len(same) - 1
    return kept, repeated, conflicting


def clusters_of(examples: Sequence[E], *, pictures: Path | None = None) -> list[list[E]]:
    """Groups of examples that must be in one split: chains of near-duplicates.

    Args:
        examples: All texts, or all images.
        pictures: Where the images' pictures lie.
    """
    groups = DisjointSet(range(len(examples)))
    for i, j in _pairs(examples, pictures):
        groups.merge(i, j)
    together: dict[int, list[E]] = {}
    for at, example in enumerate(examples):
        together.setdefault(groups[at], []).append(example)
    return list(together.values())


def near_any(
    examples: Sequence[Example], known: Sequence[Example], *, pictures: Path | None = None
) -> list[bool]:
    """For each example, whether it is nearly the same as one of those that are known."""
    keys = {key_of(example) for example in known}
    found = [key_of(example) in keys for example in examples]
    for i, j in _pairs((*known, *examples), pictures):
        if j < len(known) <= i:
            found[i - len(known)] = True
    return found


def _pairs(examples: Sequence[Example], pictures: Path | None) -> Iterator[tuple[int, int]]:
    """(i, j), j < i, of examples that are nearly the same."""
    texts = [example.text for example in examples if isinstance(example, Labelled)]
    images = [example.image for example in examples if isinstance(example, LabelledImage)]
    if images and pictures is not None:
        marks = likeness([load_picture(pictures, name) for name in images])
        for i, mark in enumerate(marks):
            yield from ((i, int(j)) for j in (marks[:i] @ mark >= SAME_PICTURE).nonzero()[0])
        return
    sets = [shingles(normalise(text)) for text in texts]
    for i, j in candidates(sets):
        if jaccard(sets[i], sets[j]) >= SAME_SPLIT:
            yield i, j
