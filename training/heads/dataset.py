"""Immutable datasets of labelled texts or images: without repeats, split, named by their hash.

A folder ``<root>/<sha256>/`` holds ``manifest.json`` and one JSON-lines file for each split. The same
examples, task and seed give the same folder, in whatever order they come. Near-duplicates (``alike``)
go to one split together. Pictures lie once for all datasets in ``<root>/pictures``, where reading an
image puts them; a dataset names them by the hash of their pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from connectors.conversation import Split
from training.data.deduplication import digest
from training.errors import BadInput
from training.filesystem import FileEntry, write_folder
from training.heads.alike import E, clusters_of, content_of, distinct, key_of, method_of
from training.heads.config import ANNOYED, IMAGE, Task
from training.heads.examples import Example, Labelled, LabelledImage, pictures_of
from training.heads.images import Pixels, load_picture

FORMAT = "tenantune-labels/1"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
HELD_OUT: tuple[tuple[Split, float], ...] = (("test", 0.25), ("validation", 0.2))
"""Shares of each label's examples. Without a GPU a head is trained in a minute, so what it is proved
with is worth more than a few more to train on."""
MIN_OF_LABEL = 8
MAX_LABELS = 200
_MANIFEST = "manifest.json"


class LabelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``sha256`` is the hash of this manifest without ``sha256``, and so of every file.

    ``counts``: examples of each split by label. ``repeated``: those that were there more than once.
    ``conflicting``: distinct ones that were given with several labels; none of these is kept.
    """

    format: str = FORMAT
    sha256: str = ""
    task: Task
    labels: tuple[str, ...]
    seed: int
    counts: dict[Split, dict[str, int]]
    repeated: int
    conflicting: int
    near_duplicates: str
    files: dict[str, FileEntry]


class LabelDataset(msgspec.Struct, frozen=True):
    """A dataset on disk."""

    folder: Path
    manifest: LabelManifest

    @property
    def pictures(self) -> Path:
        """Where the pictures of images lie."""
        return pictures_of(self.folder.parent)

    def read(self, split: Split) -> list[Example]:
        """The examples of one split, in the order of the file."""
        lines = (self.folder / f"{split}.jsonl").read_bytes().splitlines()
        if self.manifest.task == IMAGE:
            return [msgspec.json.decode(line, type=LabelledImage) for line in lines]
        return [msgspec.json.decode(line, type=Labelled) for line in lines]

    def content(self, example: Example) -> str | Pixels:
        """The text, or the picture, which is checked against its hash.

        Raises:
            BadInput: the picture is missing, or was changed.
        """
        if isinstance(example, Labelled):
            return example.text
        return load_picture(self.pictures, example.image)


def create_version(
    examples: Iterable[Example], root: Path, *, task: Task, seed: int = 17
) -> LabelDataset:
    """Drop repeats, split and write; an existing folder of the same hash is returned as it is.

        dataset = create_version(read_examples(path), root, task="annoyance")
        print(dataset.manifest.sha256, dataset.manifest.counts)

    Args:
        examples: All texts, or all images, in any order. What has several labels is left out.
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
    splits = assign(clusters_of(kept, pictures=pictures_of(root)), seed=seed)
    for label in counts:
        for split in SPLITS:
            if not any(example.label == label for example in splits[split]):
                raise BadInput(
                    f"nothing with the label {label!r} is left for {split}: what has it is nearly the "
                    "same; add what is more varied"
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
        near_duplicates=method_of(task),
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


def _check_labels(counts: Counter[str], task: Task, conflicting: int) -> None:
    if task == "annoyance" and (len(counts) != 2 or ANNOYED not in counts):  # noqa: PLR2004
        raise BadInput(f"annoyance has two labels, {ANNOYED!r} and another, not {_listed(counts)}")
    if not 2 <= len(counts) <= MAX_LABELS:  # noqa: PLR2004
        raise BadInput(f"a head tells 2 to {MAX_LABELS} labels apart; here are {len(counts)}")
    few = {label: count for label, count in sorted(counts.items()) if count < MIN_OF_LABEL}
    if few:
        what = "images" if task == IMAGE else "texts"
        rest = f"; {conflicting} {what} have several labels and do not count" if conflicting else ""
        raise BadInput(
            f"at least {MIN_OF_LABEL} distinct {what} of each label are needed: "
            + ", ".join(f"{label!r} has {count}" for label, count in few.items())
            + rest
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(repr(label) for label in sorted(counts)[:10])


def assign(clusters: Sequence[list[E]], *, seed: int) -> dict[Split, list[E]]:
    """Hold out the examples of each label with the highest hashes of (seed, key).

    So a dataset that grows keeps most of its test split. A cluster of more than twice a share is
    trained on. A cluster counts for the label that most in it have.
    """
    by_label: dict[str, list[tuple[str, list[E]]]] = {}
    for cluster in clusters:
        label = Counter(example.label for example in cluster).most_common(1)[0][0]
        name = min(digest(str(seed), key_of(example)) for example in cluster)
        by_label.setdefault(label, []).append((name, cluster))
    splits: dict[Split, list[E]] = {split: [] for split in SPLITS}
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
        split: sorted(found, key=lambda each: (each.label, content_of(each)))
        for split, found in splits.items()
    }


def _hash_of(manifest: LabelManifest) -> str:
    bare = msgspec.structs.replace(manifest, sha256="")
    return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
