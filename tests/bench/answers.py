"""What each part of an assistant is worth: base, adapter, retrieval, and both, beside a plain look-up.

    python -m tests.bench.answers --base BASE_FOLDER --recipe cpu-small FOLDER...

A folder is a dataset version, or holds a tenant's conversations as ``train.jsonl``, ``validation.jsonl`` and
``test.jsonl`` (or ``.jsonl.gz``), with messages as in a dataset version, and ``tenant.json`` with its
``suggested_system_prompt``. Each dataset is trained on with the recipe. Where it shows ``references``, once more with the same number of tokens and
none, for the adapter alone. Both are evaluated on the same held-out replies. Prints a line for each dataset and subject
(token F1, identical, meaning, facts, invented facts a reply), and how the two adapters compare.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec

from connectors.conversation import Conversation, Role, Split, Turn
from training.config import Recipe, TrainingSpec, load_recipe
from training.data.dataset import Example, create_version
from training.pipeline import EVALUATION_FILE
from training.results import Evaluation, Scores

COLUMNS = ("token_f1", "exact", "similarity", "facts", "invented", "perplexity")


def conversations(folder: Path) -> Iterator[Conversation]:
    """A tenant's conversations, each pinned to the split of its file."""
    for split in get_args(Split):
        plain, packed = folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz"
        data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        for line in data.splitlines():
            example = msgspec.json.decode(line, type=Example)
            turns = [
                Turn(Role.CUSTOMER if message.role == "user" else Role.AGENT, message.content)
                for message in example.messages
            ]
            yield Conversation(example.id, tuple(turns), split=split)


def dataset_of(folder: Path, root: Path) -> Path:
    """The folder of the dataset version, which is made in ``root`` of a tenant's conversations."""
    if (folder / "manifest.json").exists():
        return folder
    prompt = json.loads((folder / "tenant.json").read_bytes())["suggested_system_prompt"]
    return create_version(conversations(folder), root, system_prompt=prompt).folder


def run(base: Path, dataset: Path, recipe: Recipe, out: Path) -> tuple[Evaluation, float]:
    """(evaluation, CPU seconds) of a whole run in a process of its own."""
    spec = TrainingSpec(label="bench", base=str(base), dataset=str(dataset), recipe=recipe)
    out.mkdir(parents=True)
    path = out.with_suffix(".json")
    path.write_bytes(msgspec.json.encode(spec))
    before = os.times().children_user
    argv = [sys.executable, "-m", "training", str(path), str(out)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{dataset}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = msgspec.json.decode((out / EVALUATION_FILE).read_bytes(), type=Evaluation)
    return found, os.times().children_user - before


def line(dataset: str, subject: str, scores: Scores) -> str:
    figures = [getattr(scores, column) for column in COLUMNS]
    cells = [f"{'-' if figure is None else format(figure, '.3f'):>10}" for figure in figures]
    return f"{dataset:<14}{subject:<20}{''.join(cells)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--recipe", default="cpu-small")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    plain = msgspec.structs.replace(recipe, references=0, copy_words=False)
    print(f"{'dataset':<14}{'subject':<20}{''.join(f'{column:>10}' for column in COLUMNS)}")
    ratios = {}
    for source in given.datasets:
        name = source.name[:13]
        with tempfile.TemporaryDirectory() as folder:
            dataset = dataset_of(source, Path(folder) / "datasets")
            shown, shown_seconds = run(given.base, dataset, recipe, Path(folder) / "shown")
            alone, seconds = shown.new_plain or shown.new, [shown_seconds]
            if recipe.references:
                found, alone_seconds = run(given.base, dataset, plain, Path(folder) / "alone")
                alone, seconds = found.new, [shown_seconds, alone_seconds]
        subjects = {
            "base": shown.base,
            "base + retrieval": shown.base_retrieval or shown.base,
            "adapter": alone,
            "adapter + retrieval": shown.new,
            "look-up": shown.lookup,
        }
        for subject, scores in subjects.items():
            print(line(name, subject, scores), flush=True)
        ratios[name] = {
            "f1_with_retrieval_over_adapter": round(shown.new.token_f1 / alone.token_f1, 3),
            "f1_with_retrieval_over_lookup": round(shown.new.token_f1 / shown.lookup.token_f1, 3),
            "cpu_seconds": [round(each) for each in seconds],
        }
    print(json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
