"""Immutable dataset versions: de-duplicated, split, named by their hash.

A folder ``<root>/<sha256>/`` holds ``manifest.json`` and one JSON-lines file for each split. The
same conversations, prompt and seed give the same folder, whatever order they come in.
`training.data.splitting` decides what is kept and which split it goes to.

A dataset is of one kind: conversations, preferences (two replies to one history) or judgements
(a reply with a label). Here, "conversations" are records of any kind.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from connectors.conversation import ChatMessage, Conversation, Split
from connectors.preference import Preference, UnpairedPreference
from training.data.deduplication import METHOD, NGRAM, SAME_SPLIT
from training.data.splitting import (
    DUPLICATE,
    NO_PREFERENCE,
    REASONS,
    SPLITS,
    Record,
    UsableRecord,
    assign_splits,
    cluster_near_duplicates,
    exact_duplicates,
    usable,
)
from training.errors import BadInput
from training.filesystem import FileEntry, write_folder

FORMAT = 1
MIN_EXAMPLES = 10
"""Conversations that must be left after de-duplication; OpenAI asks for the same number."""

_MANIFEST = "manifest.json"

Kind = Literal["conversations", "preferences", "judgements"]
_KINDS: dict[type[Record], Kind] = {
    Conversation: "conversations",
    Preference: "preferences",
    UnpairedPreference: "judgements",
}


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation as the trainer reads it; without the system message.

    ``rejected``: the reply to which the last one of ``messages`` was preferred (preferences).
    ``desirable``: the label of the last reply of ``messages`` (judgements). Files have it as
    ``wanted``: another name would change the hash of every dataset of judgements.
    """

    id: str
    messages: list[ChatMessage]
    rejected: str | None = None
    desirable: bool = msgspec.field(default=True, name="wanted")


class NearDuplicates(msgspec.Struct, frozen=True):
    """How near-duplicates were found. Similarities are Jaccard, 0 to 1."""

    method: str = METHOD
    ngram: int = NGRAM
    same_split: float = SAME_SPLIT
    duplicate: float = DUPLICATE


class DatasetManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``sha256`` is the hash of this manifest without ``sha256``, and so of every file.

    ``counts``: conversations in each split. ``dropped``: conversations that were not kept, by
    reason. ``kind`` is not written for conversations: all the first datasets were of that kind.
    ``repeated``: how many of the kept ones repeat another; only written where some do.
    """

    format: int = FORMAT
    sha256: str = ""
    kind: Kind | msgspec.UnsetType = msgspec.UNSET
    repeated: int | msgspec.UnsetType = msgspec.UNSET
    system_prompt: str
    seed: int
    fractions: tuple[float, float, float]
    counts: dict[Split, int]
    dropped: dict[str, int]
    near_duplicates: NearDuplicates = NearDuplicates()
    files: dict[str, FileEntry]


class _Written(msgspec.Struct):
    """The one field that says whether the rest can be read."""

    format: int


class Dataset(msgspec.Struct, frozen=True):
    """A dataset version on disk."""

    folder: Path
    sha256: str
    system_prompt: str
    manifest: DatasetManifest

    @property
    def kind(self) -> Kind:
        """What the dataset's records are."""
        return self.manifest.kind or "conversations"

    def read(self, split: Split) -> list[Example]:
        """The examples of one split, in the order of the file."""
        lines = (self.folder / f"{split}.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Example) for line in lines]


def create_version(
    conversations: Iterable[Record],
    root: Path,
    *,
    system_prompt: str,
    seed: int = 17,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    as_given: bool = False,
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> Dataset:
    """De-duplicate, split and write; an existing folder of the same hash is returned as it is.

        dataset = create_version(conversations, root, system_prompt="You answer for Loaf.")
        print(dataset.sha256, dataset.manifest.counts)
        examples = load(dataset.folder).read("train")

    Args:
        conversations: Records of one kind, in any order; read once.
        root: Folder of all dataset versions; made where it is missing.
        system_prompt: Put before every conversation in training and evaluation.
        seed: Decides which conversations are held out.
        fractions: Shares of train, validation and test, above 0 and 1 in all. They apply to
            conversations that are not pinned. A held-out split with pinned conversations gets no
            others (of judgements: no others with that label). A pinned held-out conversation that
            nearly repeats one of an earlier split (train, validation, test) is dropped.
        as_given: The conversations are a training file that a user has put together. What it
            repeats is trained on as often as it is there. A held-out split may be empty: with fewer
            than ``MIN_EXAMPLES`` distinct conversations, nothing is held out.
        left_out: Conversations that the caller has left out, by reason; counted as ``dropped``.

    Raises:
        BadInput: fewer than ``MIN_EXAMPLES`` usable conversations; records of several kinds;
            judgements with only one label; or, without ``as_given``, a held-out split would be
            empty (for judgements, also a test split with only one label).
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:  # noqa: PLR2004
        raise BadInput(f"fractions must be above 0 and add up to 1, not {fractions}")
    dropped = Counter({**dict.fromkeys(REASONS, 0), **left_out})
    kinds: set[Kind] = set()
    items = usable(_recording_kind(conversations, kinds), dropped)
    if len(kinds) > 1:
        raise BadInput(
            f"{' and '.join(sorted(kinds))} cannot be in one dataset; create one of each"
        )
    kind = kinds.pop() if kinds else "conversations"
    if kind == "preferences":
        dropped.setdefault(NO_PREFERENCE, 0)
    items, repeats = exact_duplicates(items)
    clusters = cluster_near_duplicates(items, dropped, keep=as_given)
    kept = sum(len(cluster) for cluster in clusters)
    if not as_given:
        dropped["exact_duplicate"] += len(repeats)
        repeats = []
    if kept + len(repeats) < MIN_EXAMPLES:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n) or "none"
        raise BadInput(
            f"{kept} usable conversations, at least {MIN_EXAMPLES} are needed; dropped: {reasons}"
        )
    splits: dict[Split, list[UsableRecord]] = {split: [] for split in SPLITS}
    few = as_given and _unpinned(clusters) < MIN_EXAMPLES
    for group in _by_label(clusters):
        train_only = few or (as_given and _unpinned(group) < len(SPLITS))
        shares = (1.0, 0.0, 0.0) if train_only else fractions
        for split, found in assign_splits(group, seed=seed, fractions=shares).items():
            splits[split] += found
    repeated = _restore_repeats(splits, repeats, dropped)
    for split in SPLITS:
        if as_given and split != "train":
            continue
        if not splits[split]:
            raise BadInput(
                f"no conversation is left for {split}: {kept} usable ones in {len(clusters)} "
                "groups of near-duplicates; add more varied ones, or pin fewer to other splits"
            )
        if kind == "judgements" and split != "validation":
            _require_both_labels(splits[split], split)
    return _write(
        root,
        splits,
        kind=kind,
        system_prompt=system_prompt,
        seed=seed,
        fractions=fractions,
        dropped=dropped,
        repeated=repeated,
    )


def create_subset(dataset: Dataset, root: Path, *, conversations: int, seed: int) -> Dataset:
    """A version with only some of the training conversations; what is held out stays as it is.

    The seed puts them in an order of which the first are taken: a smaller subset is within a larger one.
    """
    lines = (dataset.folder / "train.jsonl").read_bytes().splitlines(keepends=True)
    order = list(range(len(lines)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a sample, not a secret
    files = {f"{split}.jsonl": (dataset.folder / f"{split}.jsonl").read_bytes() for split in SPLITS}
    files["train.jsonl"] = b"".join(lines[i] for i in sorted(order[:conversations]))
    manifest = msgspec.structs.replace(
        dataset.manifest,
        counts=dataset.manifest.counts | {"train": min(conversations, len(lines))},
        files={name: _entry(data) for name, data in files.items()},
    )
    return _write_files(root, manifest, files)


def _unpinned(clusters: Sequence[list[UsableRecord]]) -> int:
    return sum(not any(item.pinned for item in cluster) for cluster in clusters)


def _restore_repeats(
    splits: dict[Split, list[UsableRecord]], repeats: Sequence[UsableRecord], dropped: Counter[str]
) -> int:
    """Add to train the repeats of what is there, and count them; the others repeat held-out data."""
    trained = {item.key for item in splits["train"]}
    again = [item for item in repeats if item.pinned in {None, "train"} and item.key in trained]
    splits["train"] += again
    dropped["exact_duplicate"] += len(repeats) - len(again)
    return len(again)


def _recording_kind(records: Iterable[Record], kinds: set[Kind]) -> Iterator[Record]:
    for record in records:
        kinds.add(_KINDS[type(record)])
        yield record


def _by_label(clusters: Sequence[list[UsableRecord]]) -> list[list[list[UsableRecord]]]:
    """Clusters with an undesirable reply, and the others: each split needs some of both."""
    groups: dict[bool, list[list[UsableRecord]]] = {True: [], False: []}
    for cluster in clusters:
        groups[all(item.label for item in cluster)].append(cluster)
    return [group for group in groups.values() if group]


def _require_both_labels(items: Sequence[UsableRecord], split: Split) -> None:
    for wanted in (True, False):
        if not any(item.label == wanted for item in items):
            raise BadInput(
                f"{split} has no {'wanted' if wanted else 'unwanted'} reply among its "
                f"{len(items)}; add more judgements of that sort, or pin some to it"
            )


def load(folder: Path) -> Dataset:
    """Open a dataset version and check every hash.

    Raises:
        BadInput: the folder is not a whole dataset; says which file.
    """
    try:
        data = (folder / _MANIFEST).read_bytes()
        written = msgspec.json.decode(data, type=_Written)
        if written.format != FORMAT:
            raise BadInput(f"{folder} has format {written.format}; this version reads {FORMAT}")
        manifest = msgspec.json.decode(data, type=DatasetManifest)
    except OSError as exc:
        raise BadInput(f"{folder} is no dataset: {_MANIFEST}: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadInput(f"{folder / _MANIFEST}: {exc}") from exc
    if manifest.sha256 != _hash_of(manifest):
        raise BadInput(
            f"{folder / _MANIFEST} was changed after it was written; create the version again"
        )
    for name in (f"{split}.jsonl" for split in SPLITS):
        try:
            data = (folder / name).read_bytes()
        except OSError as exc:
            raise BadInput(f"{folder / name}: {exc.strerror}; create the version again") from exc
        if manifest.files.get(name) != _entry(data):
            raise BadInput(
                f"{folder / name} was changed after it was written; create the version again"
            )
    return Dataset(folder, manifest.sha256, manifest.system_prompt, manifest)


def _write(
    root: Path,
    splits: dict[Split, list[UsableRecord]],
    *,
    kind: Kind,
    system_prompt: str,
    seed: int,
    fractions: tuple[float, float, float],
    dropped: Counter[str],
    repeated: int,
) -> Dataset:
    uses = Counter(item.id for items in splits.values() for item in items)
    twins: Counter[tuple[str, str]] = Counter()
    files: dict[str, bytes] = {}
    for split, items in splits.items():
        examples = []
        for item in sorted(items, key=lambda item: (item.raw, item.id)):
            name = item.id if uses[item.id] == 1 else f"{item.id}~{item.raw[:8]}"
            twins[item.id, item.raw] += 1
            if (number := twins[item.id, item.raw]) > 1:
                name = f"{name}~{number}"
            examples.append(
                Example(name, item.messages, rejected=item.rejected, desirable=item.label)
            )
        files[f"{split}.jsonl"] = b"".join(msgspec.json.encode(e) + b"\n" for e in examples)
    manifest = DatasetManifest(
        kind=msgspec.UNSET if kind == "conversations" else kind,
        repeated=repeated or msgspec.UNSET,
        system_prompt=system_prompt,
        seed=seed,
        fractions=fractions,
        counts={split: len(items) for split, items in splits.items()},
        dropped=dict(dropped),
        files={name: _entry(data) for name, data in files.items()},
    )
    return _write_files(root, manifest, files)


def _write_files(root: Path, manifest: DatasetManifest, files: dict[str, bytes]) -> Dataset:
    manifest = msgspec.structs.replace(manifest, sha256=_hash_of(manifest))
    folder = root / manifest.sha256
    if folder.exists():
        return load(folder)
    files[_MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_folder(folder, files)
    return load(folder)


def _entry(data: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _hash_of(manifest: DatasetManifest) -> str:
    bare = msgspec.structs.replace(manifest, sha256="")
    return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
