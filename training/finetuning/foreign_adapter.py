"""Instead of training: puts an adapter that was trained elsewhere where training leaves its own."""

import shutil
from pathlib import Path

import msgspec

from training.adapters.foreign import copy_imported, read_imported
from training.adapters.package import TrainingSummary
from training.filesystem import sync_path, sync_tree, write_atomically
from training.finetuning.preparation import packages
from training.finetuning.qlora import SUMMARY_FILE, TRAINED, TrainedAdapter


def use_imported(imported: Path, out: Path) -> TrainedAdapter:
    """Copy an adapter that `convert_adapter` wrote to ``imported`` to ``out/trained``, by rename.

    Raises:
        ArtifactError: it is not whole.
    """
    taken = read_imported(imported)
    partial, target = out / f".{TRAINED}.partial", out / TRAINED
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    copy_imported(imported, partial)
    trained = TrainedAdapter(
        folder=str(target),
        summary=TrainingSummary(
            steps=0, epochs=0.0, tokens=0, seconds=0.0, stopped="trained elsewhere"
        ),
        rank=taken.lora.rank,
        alpha=taken.lora.alpha,
        targets=taken.lora.targets,
        packages=packages(),
    )
    write_atomically(partial / SUMMARY_FILE, msgspec.json.encode(trained))
    sync_tree(partial)
    partial.rename(target)
    sync_path(out)
    return trained
