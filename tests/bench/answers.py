"""What each part of an assistant is worth: base, adapter, retrieval, and both, beside a plain look-up.

    python -m tests.bench.answers --base BASE_FOLDER --recipe cpu-small DATASET_FOLDER...

Each dataset is trained on twice with the same number of tokens: with the recipe's ``references`` and with
none. Both are evaluated on the same held-out replies. Prints a line for each dataset and subject
(token F1, identical, meaning, facts, invented facts a reply), and how the two adapters compare.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from training.config import Recipe, TrainingSpec, load_recipe
from training.pipeline import EVALUATION_FILE
from training.results import Evaluation, Scores

COLUMNS = ("token_f1", "exact", "similarity", "facts", "invented", "perplexity")


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
    plain = msgspec.structs.replace(recipe, references=0)
    print(f"{'dataset':<14}{'subject':<20}{''.join(f'{column:>10}' for column in COLUMNS)}")
    ratios = {}
    for dataset in given.datasets:
        name = dataset.parent.name
        with tempfile.TemporaryDirectory() as folder:
            shown, shown_seconds = run(given.base, dataset, recipe, Path(folder) / "shown")
            alone, alone_seconds = run(given.base, dataset, plain, Path(folder) / "alone")
        subjects = {
            "base": shown.base,
            "base + retrieval": shown.base_retrieval or shown.base,
            "adapter": alone.new,
            "adapter + retrieval": shown.new,
            "look-up": shown.lookup,
        }
        for subject, scores in subjects.items():
            print(line(name, subject, scores), flush=True)
        ratios[name] = {
            "f1_with_retrieval_over_adapter": round(shown.new.token_f1 / alone.new.token_f1, 3),
            "f1_with_retrieval_over_lookup": round(shown.new.token_f1 / shown.lookup.token_f1, 3),
            "cpu_seconds": [round(shown_seconds), round(alone_seconds)],
        }
    print(json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
