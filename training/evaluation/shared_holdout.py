"""The held-out conversations on which a new adapter and the live one can be compared fairly.

The live adapter was made from another version of the data, or from other data altogether. A
conversation that either was trained on proves nothing. Data about another subject only shows that
the live adapter was not taught that subject: the new one would always win.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from connectors.conversation import Split
from training.adapters.package import read_manifest
from training.base_models.manifest import load_base
from training.config import TrainingSpec
from training.data.dataset import Dataset, Example, load
from training.data.splitting import SPLITS, customer_side
from training.errors import ArtifactError, BadInput

SAME_DATA = 0.5
"""Of the smaller dataset's conversations, the share that the other must have too (the overlap
coefficient, Szymkiewicz 1934). Versions of one growing dataset share nearly all, files of different
origin nearly none: where between the two it lies decides little."""


class SharedHoldout(msgspec.Struct, frozen=True):
    """Ids of the conversations that both can be measured on; ``note`` says what is missing, and why."""

    conversations: frozenset[str] = frozenset()
    note: str = ""


def find_shared_holdout(spec: TrainingSpec, held_out: Iterable[Example]) -> SharedHoldout:
    """Find which of ``held_out`` neither the live adapter nor the new one has been trained on.

    There are none without a live adapter, where it has another base, or where its data are others.
    Two conversations are the same when the customer asks the same, digits and punctuation aside.

    Raises:
        ArtifactError: the live adapter's manifest cannot be read.
        BadInput: the spec's dataset is not whole.
        BaseModelError: the base is not whole.
    """
    if spec.live_adapter is None:
        return SharedHoldout()
    live, root = Path(spec.live_adapter), Path(spec.dataset).parent
    manifest = read_manifest(live)
    if manifest.base.serving_sha256 != load_base(Path(spec.base)).serving_sha256:
        return SharedHoldout(
            note=f"not compared with the live adapter: it has another base ({manifest.base.name})"
        )
    live_data = _dataset(root, manifest.dataset_sha256)
    if live_data is None:
        return SharedHoldout(
            note="not compared with the live adapter: what it was trained on is not here"
        )
    new_data = load(Path(spec.dataset))
    if new_data.sha256 != live_data.sha256:
        new_asked, live_asked = _asked(new_data, SPLITS), _asked(live_data, SPLITS)
        shared = len(new_asked & live_asked) / max(1, min(len(new_asked), len(live_asked)))
        if shared < SAME_DATA:
            return SharedHoldout(
                note="not compared with the live adapter: it was trained on other data (the two "
                f"datasets share {len(new_asked & live_asked):,} of {len(new_asked):,} and "
                f"{len(live_asked):,} conversations)"
            )
    known = _trained_on(live, root)
    if spec.start_adapter is not None:
        known |= _trained_on(Path(spec.start_adapter), root)
    examples = list(held_out)
    unknown = [each for each in examples if customer_side(each.messages) not in known]
    note = ""
    if not unknown:
        note = "not compared with the live adapter: it was trained on all that is held out here"
    elif len(unknown) < len(examples):
        note = (
            f"the live adapter is scored on {len(unknown):,} of {len(examples):,} conversations: on "
            "the others one of the two was trained"
        )
    return SharedHoldout(frozenset(each.id for each in unknown), note)


def _trained_on(adapter: Path, root: Path) -> set[str]:
    """What customers asked in the training splits of an adapter and of the adapters it started from.

    An adapter whose manifest or dataset is gone adds nothing.
    """
    found: set[str] = set()
    seen: set[Path] = set()
    step: Path | None = adapter
    while step is not None and step not in seen:
        seen.add(step)
        try:
            manifest = read_manifest(step)
        except ArtifactError:
            break
        dataset = _dataset(root, manifest.dataset_sha256)
        if dataset is not None:
            found |= _asked(dataset, ("train",))
        step = step.parent / manifest.started_from if manifest.started_from else None
    return found


def _asked(dataset: Dataset, splits: Iterable[Split]) -> set[str]:
    return {customer_side(each.messages) for split in splits for each in dataset.read(split)}


def _dataset(root: Path, sha256: str) -> Dataset | None:
    """A dataset beside the spec's own; None where it is not there, or not whole any more."""
    if Path(sha256).name != sha256:  # a manifest from elsewhere may say anything
        return None
    try:
        return load(root / sha256)
    except BadInput:
        return None
