"""Few-shot heads: the softmax layer alone against the encoder tuned by contrast.

    python -m tests.bench.heads --sentiment FOLDER --intents FILE [FILE ...]
        [--shots 8 16 64] [--seeds 2] [--test 400] [--only-frozen]

FOLDER holds ``train.jsonl`` and ``test.jsonl`` (or ``.jsonl.gz``); a FILE of intents is split here by
clusters of near-duplicates. A line is ``{"text", "label"}``. Of each label so many texts are drawn, and
as many of at most 8 a label for the temperature; the test texts are the same for both methods. Prints
one row for each set, number of texts and method: means over the seeds.
"""

import argparse
import gzip
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from training.evaluation.metrics import Embed
from training.heads.alike import clusters_of, distinct
from training.heads.config import HeadRecipe
from training.heads.dataset import HELD_OUT, assign
from training.heads.encoders import embed_all, load_encoder
from training.heads.examples import Labelled
from training.heads.scores import HeadScores, score
from training.heads.softmax import fit, fit_temperature, probabilities

VALIDATION = 8


class Parts(NamedTuple):
    name: str
    train: list[Labelled]
    test: list[Labelled]


def read(path: Path) -> list[Labelled]:
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    return [msgspec.json.decode(line, type=Labelled) for line in lines]


def sets(given: argparse.Namespace) -> Iterator[Parts]:
    for folder in given.sentiment:
        found = {name: next(folder.glob(f"{name}.jsonl*")) for name in ("train", "test")}
        yield Parts(folder.name, read(found["train"]), read(found["test"]))
    for path in given.intents:
        splits = assign(clusters_of(distinct(read(path))[0]), seed=17)
        train = splits["train"] + splits["validation"]
        yield Parts(path.name.partition(".")[0], train, splits["test"])


def draw(
    texts: Sequence[Labelled], shots: int, rng: random.Random
) -> tuple[list[Labelled], list[Labelled]]:
    """(to train on, to calibrate with); labels with fewer texts give what they have."""
    train, validation = [], []
    for label in sorted({each.label for each in texts}):
        own = [each for each in texts if each.label == label]
        held = min(VALIDATION, shots, max(1, round(HELD_OUT[1][1] * len(own))))
        drawn = rng.sample(own, min(len(own), shots + held))
        validation += drawn[:held]
        train += drawn[held:]
    return train, validation


def measure(
    encode: Embed, train: list[Labelled], validation: list[Labelled], test: list[Labelled]
) -> HeadScores:
    labels = sorted({each.label for each in train})
    vectors = [embed_all(encode, [e.text for e in part]) for part in (train, validation, test)]
    layer = fit(
        vectors[0],
        [each.label for each in train],
        inverse_penalty=HeadRecipe().inverse_penalty,
        classes=labels,
    )
    known = [np.searchsorted(labels, [e.label for e in part]) for part in (validation, test)]
    temperature = fit_temperature(layer.logits(vectors[1]), known[0])
    logits = layer.logits(vectors[2])
    return score(
        probabilities(logits, temperature), probabilities(logits, 1.0), known[1], labels=labels
    )


def row(name: str, shots: int, method: str, found: Sequence[tuple[HeadScores, float]]) -> None:
    scores = [each for each, _ in found]
    cells = [
        np.mean([each.accuracy for each in scores]),
        np.mean([each.macro_f1 for each in scores]),
        np.mean([each.ece_uncalibrated for each in scores]),
        np.mean([each.ece for each in scores]),
    ]
    spread = max(e.accuracy for e in scores) - min(e.accuracy for e in scores)
    print(
        f"| {name} | {len(scores[0].labels)} | {shots} | {method} | {cells[0]:.3f} ({spread:.3f}) | "
        f"{cells[1]:.3f} | {cells[2]:.3f} | {cells[3]:.3f} | "
        f"{np.mean([seconds for _, seconds in found]):.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentiment", type=Path, nargs="*", default=[])
    parser.add_argument("--intents", type=Path, nargs="*", default=[])
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only-frozen", action="store_true", help="without contrastive training")
    parser.add_argument("--test", type=int, default=400, help="test texts at most")
    given = parser.parse_args()

    from training.heads.contrastive import tune  # noqa: PLC0415 - loads torch
    from training.heads.package import tuned_encoder  # noqa: PLC0415

    frozen = load_encoder("all-minilm-l6-v2")
    recipe = HeadRecipe()
    print("| set | labels | texts a label | method | accuracy (spread) | macro F1 | ", end="")
    print("ECE at T = 1 | ECE | CPU s |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    for parts in sets(given):
        test = random.Random(1).sample(parts.test, min(given.test, len(parts.test)))
        for shots in given.shots:
            plain, tuned = [], []
            for seed in range(given.seeds):
                train, validation = draw(parts.train, shots, random.Random(seed))
                kept = {each.label for each in train}
                asked = [each for each in test if each.label in kept]
                began = time.process_time()
                plain.append((measure(frozen, train, validation, asked), 0.0))
                plain[-1] = (plain[-1][0], time.process_time() - began)
                if given.only_frozen:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    began = time.process_time()
                    lora = tune(
                        train,
                        Path(folder),
                        recipe=recipe,
                        seed=seed,
                        on_step=lambda *_: None,
                        on_round=lambda _: None,
                        on_resume=lambda _: None,
                    )
                    found = measure(tuned_encoder(lora), train, validation, asked)
                    tuned.append((found, time.process_time() - began))
            row(parts.name, shots, "frozen", plain)
            if tuned:
                row(parts.name, shots, "contrastive", tuned)


if __name__ == "__main__":
    main()
