"""Few-shot image heads: a frozen backbone from ImageNet against the same network from scratch.

    python -m tests.bench.images FILE [--shots 8 16 64] [--seeds 2] [--steps 60] [--side 64]
        [--methods frozen grid scratch]

FILE is an ``.npz`` with ``x_train``, ``x_test`` (images, height, width, 3) of bytes, ``y_train``,
``y_test`` and ``classes``. Of each label so many images are drawn, and as many of at most 8 a label for
the temperature; the test images are the same for all. Both go through the heads' own reading, softmax
layer, temperature and scores:

    frozen    EfficientNet-Lite0 as it was trained on ImageNet, and a softmax layer on its features
    scratch   EfficientNet-Lite0 from random weights, trained on the drawn images alone (Adam, mirrored and
              shifted), on images of ``--side`` pixels, so that it does not take hours here
    grid      the softmax layer on the mean colours of an 8 x 8 grid: what no network tells

Prints one row for each number of images and method: means over the seeds, the interval of the first.
"""

import argparse
import io
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from training.evaluation.metrics import Vectors
from training.heads.config import EncoderName, HeadRecipe
from training.heads.efficientnet import EfficientNetLite0, scaled
from training.heads.encoders import Encode, embed_all, load_encoder
from training.heads.images import Pixels, read_picture
from training.heads.scores import HeadScores, score
from training.heads.softmax import fit, fit_temperature, probabilities

VALIDATION = 8
METHODS = ("frozen", "grid", "scratch")
ENCODERS: dict[str, EncoderName] = {"frozen": "efficientnet-lite0", "grid": "colour-grid"}
BATCH = 24
SHIFT = 4

Labels = npt.NDArray[np.int64]


class Part(NamedTuple):
    pictures: list[Pixels]
    labels: Labels


def as_uploaded(images: npt.NDArray[np.uint8]) -> list[Pixels]:
    """Through a file and the heads' reader, as what customers send."""
    pictures = []
    for image in images:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        pictures.append(read_picture(out.getvalue()))
    return pictures


def draw(part: Part, shots: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """(places to train on, places to calibrate with)."""
    train, validation = [], []
    for label in np.unique(part.labels):
        own = np.flatnonzero(part.labels == label).tolist()
        drawn = rng.sample(own, shots + min(VALIDATION, shots))
        train += drawn[:shots]
        validation += drawn[shots:]
    return train, validation


def scored(logits: Sequence[Vectors], parts: tuple[Part, Part], names: Sequence[str]) -> HeadScores:
    """Of the second part, with the temperature that fits the first."""
    temperature = fit_temperature(logits[0], parts[0].labels)
    found = [probabilities(logits[1], each) for each in (temperature, 1.0)]
    return score(found[0], found[1], parts[1].labels, labels=names)


def on_frozen(encode: Encode, train: Part, names: Sequence[str]) -> Encode:
    """Logits of a head, as a run trains it."""
    layer = fit(
        embed_all(encode, train.pictures),
        [names[label] for label in train.labels],
        inverse_penalty=HeadRecipe().inverse_penalty,
        classes=names,
    )
    return lambda pictures: layer.logits(encode(pictures))


def small(pictures: Sequence[Pixels], side: int) -> torch.Tensor:
    pixels = scaled(torch.from_numpy(np.stack(pictures)))
    return functional.interpolate(pixels, size=side, mode="area")


def settle(model: EfficientNetLite0, images: torch.Tensor) -> None:
    """Measure the means and variances that the network normalises by: few steps only begin to."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        for batch in images[torch.randperm(len(images))].split(BATCH):
            model(batch)


def from_scratch(train: Part, *, classes: int, steps: int, side: int, seed: int) -> Encode:
    """Logits of the network, trained on these images alone."""
    torch.manual_seed(seed)
    model = EfficientNetLite0(classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    images, labels = small(train.pictures, side), torch.from_numpy(train.labels)
    model.train()
    for _ in range(steps):
        places = torch.randperm(len(labels))[:BATCH]
        batch = images[places]
        if torch.rand(()) < 0.5:
            batch = batch.flip(3)
        dx, dy = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
        loss = functional.cross_entropy(model(batch.roll((dx, dy), (2, 3))), labels[places])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    settle(model, images)
    model.eval()

    def logits(pictures: Sequence[Pixels]) -> Vectors:
        with torch.inference_mode():
            found: Vectors = model(small(pictures, side)).numpy()
        return found

    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60, help="of 24 images, from scratch")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    given = parser.parse_args()

    stored = np.load(given.file, allow_pickle=False)
    names = sorted(stored["classes"].tolist())
    pool, test = (
        Part(
            as_uploaded(stored[f"x_{split}"]),
            np.searchsorted(names, stored["classes"][stored[f"y_{split}"]]),
        )
        for split in ("train", "test")
    )
    print(f"{len(test.labels)} test images, {len(names)} labels")
    print(
        "| images a label | method | accuracy (95 %) | balanced | ECE at T = 1 | ECE | CPU s to train |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)

    def row(shots: int, method: str, found: Sequence[tuple[HeadScores, float]]) -> None:
        first = found[0][0]
        means = [
            np.mean([getattr(each, name) for each, _ in found])
            for name in ("accuracy", "balanced_accuracy", "ece_uncalibrated", "ece")
        ]
        print(
            f"| {shots} | {method} | {means[0]:.3f} ({first.accuracy_low:.2f} to "
            f"{first.accuracy_high:.2f}) | {means[1]:.3f} | {means[2]:.3f} | {means[3]:.3f} | "
            f"{np.mean([seconds for _, seconds in found]):.0f} |",
            flush=True,
        )

    for method in given.methods:
        for shots in given.shots:
            found = []
            for seed in range(given.seeds):
                began = time.process_time()
                places = draw(pool, shots, random.Random(seed))
                train, validation = (
                    Part([pool.pictures[i] for i in each], pool.labels[each]) for each in places
                )
                if method == "scratch":
                    network = from_scratch(
                        train,
                        classes=len(names),
                        steps=given.steps,
                        side=given.side,
                        seed=seed,
                    )
                else:
                    network = on_frozen(load_encoder(ENCODERS[method]), train, names)
                seconds = time.process_time() - began
                logits = [embed_all(network, each.pictures) for each in (validation, test)]
                found.append((scored(logits, (validation, test), names), seconds))
            row(shots, method, found)


if __name__ == "__main__":
    main()
