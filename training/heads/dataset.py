"""Immutable datasets of labelled texts: without repeats, split, named by their hash.

A folder ``<root>/<sha256>/`` holds ``manifest.json`` and one JSON-lines file for each split. The same
texts, task and seed give the same folder, in whatever order they come. Near-duplicates are found as
for conversations (`training.data.deduplication`) and go to one split together.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from scipy.cluster.hierarchy import DisjointSet

from connectors.conversation import Split
from training.data.deduplication import (
    METHOD,
    SAME_SPLIT,
    candidates,
    digest,
    jaccard,
    normalise,
    shingles,
)
from training.errors import BadInput
from training.filesystem import FileEntry, write_folder
from training.heads.config import ANNOYED, Task
from training.heads.examples import Labelled

FORMAT = "tenantune-labels/1"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
HELD_OUT: tuple[tuple[Split, float], ...] = (("test", 0.25), ("validation", 0.2))
"""Shares of each label's texts. Without a GPU a head is trained in a minute, so what it is proved
with is worth more than a few more texts to train on."""
MIN_OF_LABEL = 8
MAX_LABELS = 200
_MANIFEST = "manifest.json"


class LabelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``sha256`` is the hash of this manifest without ``sha256``, and so of every file.

    ``counts``: texts of each split by label. ``repeated``: texts that were there more than once.
    ``conflicting``: distinct texts that were given with several labels; none of these is kept.
    """

    format: str = FORMAT
    sha256: str = ""
    task: Task
    labels: tuple[str, ...]
    seed: int
    counts: dict[Split, dict[str, int]]
    repeated: int
    conflicting: int
    near_duplicates: str = f"{METHOD}, {SAME_SPLIT}"
    files: dict[str, FileEntry]


class LabelDataset(msgspec.Struct, frozen=True):
    """A dataset on disk."""

    folder: Path
    manifest: LabelManifest

    def read(self, split: Split) -> list[Labelled]:
        """The texts of one split, in the order of the file."""
        lines = (self.folder / f"{split}.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Labelled) for line in lines]


def create_version(
    examples: Iterable[Labelled], root: Path, *, task: Task, seed: int = 17
) -> LabelDataset:
    """Drop repeats, split and write; an existing folder of the same hash is returned as it is.

        dataset = create_version(read_examples(path), root, task="annoyance")
        print(dataset.manifest.sha256, dataset.manifest.counts)

    Args:
        examples: Labelled texts in any order. One text with several labels is left out.
        root: Folder of all such datasets; made where it is missing.
        task: What the labels tell.
        seed: Decides which texts are held out.

    Raises:
        BadInput: fewer than two labels, too many, or a label with fewer than ``MIN_OF_LABEL``
            distinct texts; labels that the task does not have.
    """
    kept, repeated, conflicting = distinct(examples)
    counts = Counter(example.label for example in kept)
    _check_labels(counts, task, conflicting)
    splits = assign(clusters_of(kept), seed=seed)
    for label in counts:
        for split in SPLITS:
            if not any(example.label == label for example in splits[split]):
                raise BadInput(
                    f"no text with the label {label!r} is left for {split}: its texts are nearly the "
                    "same; add more varied ones"
                )
    files = {
        f"{split}.jsonl": b"".join(msgspec.json.encode(each) + b"\n" for each in splits[split])
        for split in SPLITS
    }
    manifest = LabelManifest(
        task=task,
        labels=tuple(sorted(counts)),
        seed=seed,
        counts={
            split: dict(sorted(Counter(each.label for each in splits[split]).items()))
            for split in SPLITS
        },
        repeated=repeated,
        conflicting=conflicting,
        files={
            name: FileEntry(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in files.items()
        },
    )
    manifest = msgspec.structs.replace(manifest, sha256=_hash_of(manifest))
    folder = root / manifest.sha256
    if not folder.exists():
        files[_MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        write_folder(folder, files)
    return load(folder)


def load(folder: Path) -> LabelDataset:
    """Open a dataset and check every hash.

    Raises:
        BadInput: it is missing, of another format, or changed.
    """
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=LabelManifest)
        sizes = {name: (folder / name).read_bytes() for name in manifest.files}
    except OSError as exc:
        raise BadInput(f"cannot read the dataset {folder}: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise BadInput(f"{folder / _MANIFEST}: {exc}") from exc
    if manifest.format != FORMAT or _hash_of(manifest) != manifest.sha256:
        raise BadInput(f"{folder / _MANIFEST} was changed; create the dataset again")
    for name, data in sizes.items():
        if hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
            raise BadInput(f"{folder / name} was changed; create the dataset again")
    return LabelDataset(folder, manifest)


def near_any(texts: Sequence[str], known: Sequence[str]) -> list[bool]:
    """For each text, whether it is nearly the same as one of those that are known."""
    plain = [normalise(text) for text in (*known, *texts)]
    marks = [shingles(text) for text in plain]
    found = [text in set(plain[: len(known)]) for text in plain[len(known) :]]
    for i, j in candidates(marks):
        at = i - len(known)
        if at >= 0 and j < len(known) and not found[at]:
            found[at] = jaccard(marks[i], marks[j]) >= SAME_SPLIT
    return found


def distinct(examples: Iterable[Labelled]) -> tuple[list[Labelled], int, int]:
    """(texts with one label each, sorted; repeats; texts with several labels).

    Texts are the same where lower case, digits and punctuation aside they are.
    """
    found: dict[str, list[Labelled]] = {}
    for example in sorted(examples, key=lambda each: (each.text, each.label)):
        found.setdefault(normalise(example.text), []).append(example)
    kept, repeated, conflicting = [], 0, 0
    for key in sorted(found):
        same = found[key]
        if len({example.label for example in same}) > 1:
            conflicting += 1
            continue
        kept.append(same[0])
        repeated += len(same) - 1
    return kept, repeated, conflicting


def _check_labels(counts: Counter[str], task: Task, conflicting: int) -> None:
    if task == "annoyance" and (len(counts) != 2 or ANNOYED not in counts):  # noqa: PLR2004
        raise BadInput(f"annoyance has two labels, {ANNOYED!r} and another, not {_listed(counts)}")
    if not 2 <= len(counts) <= MAX_LABELS:  # noqa: PLR2004
        raise BadInput(
            f"a head tells 2 to {MAX_LABELS} labels apart; these texts have {len(counts)}"
        )
    few = {label: count for label, count in sorted(counts.items()) if count < MIN_OF_LABEL}
    if few:
        rest = f"; {conflicting} texts have several labels and do not count" if conflicting else ""
        raise BadInput(
            f"at least {MIN_OF_LABEL} distinct texts of each label are needed: "
            + ", ".join(f"{label!r} has {count}" for label, count in few.items())
            + rest
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(repr(label) for label in sorted(counts)[:10])


def clusters_of(examples: Sequence[Labelled]) -> list[list[Labelled]]:
    """Groups of texts that must be in one split: chains of near-duplicates."""
    marks = [shingles(normalise(example.text)) for example in examples]
    groups = DisjointSet(range(len(examples)))
    for i, j in candidates(marks):
        if not groups.connected(i, j) and jaccard(marks[i], marks[j]) >= SAME_SPLIT:
            groups.merge(i, j)
    together: dict[int, list[Labelled]] = {}
    for at, example in enumerate(examples):
        together.setdefault(groups[at], []).append(example)
    return list(together.values())


def assign(clusters: Sequence[list[Labelled]], *, seed: int) -> dict[Split, list[Labelled]]:
    """Hold out the texts of each label with the highest hashes of (seed, text).

    So a dataset that grows keeps most of its test split. A cluster of more than twice a share is
    trained on. A cluster counts for the label that most of its texts have.
    """
    by_label: dict[str, list[tuple[str, list[Labelled]]]] = {}
    for cluster in clusters:
        label = Counter(example.label for example in cluster).most_common(1)[0][0]
        name = min(digest(str(seed), normalise(example.text)) for example in cluster)
        by_label.setdefault(label, []).append((name, cluster))
    splits: dict[Split, list[Labelled]] = {split: [] for split in SPLITS}
    for label in sorted(by_label):
        free = sorted(by_label[label], key=lambda each: each[0], reverse=True)
        total = sum(len(cluster) for _, cluster in free)
        for split, share in HELD_OUT:
            wanted, taken, left = max(1, round(share * total)), 0, []
            for name, cluster in free:
                if taken < wanted and len(cluster) <= 2 * wanted:
                    splits[split] += cluster
                    taken += len(cluster)
                else:
                    left.append((name, cluster))
            free = left
        for _, cluster in free:
            splits["train"] += cluster
    return {
        split: sorted(found, key=lambda each: (each.label, each.text))
        for split, found in splits.items()
    }


def _hash_of(manifest: LabelManifest) -> str:
    bare = msgspec.structs.replace(manifest, sha256="")
    return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
