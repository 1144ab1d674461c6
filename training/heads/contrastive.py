"""Tunes the sentence encoder to labels by contrast, SetFit's way, with LoRA. Loads torch.

Tunstall et al. 2022 (arXiv 2209.11055): texts of one label are drawn together and texts of two
labels apart, which makes thousands of pairs of a few dozen texts. Here only a LoRA is trained (Hu et
al. 2021), as for the chat model: a megabyte a version instead of 90, and fewer pairs were needed
than for all weights (``training/LOG.md``).

Training goes round by round. After each, the LoRA is on disk, and the next one starts from there
with pairs and an optimiser of its own. So a run that was killed goes on at its last whole round,
and ends with the same bytes.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from transformers import PrinterCallback, TrainerCallback

from training.adapters.safetensors_io import TensorFile, write_tensors
from training.filesystem import replacing
from training.heads.config import HeadRecipe
from training.heads.encoders import limit_threads, package_folder
from training.heads.examples import Labelled
from training.heads.lora import LORA_FILE, MAX_HEADER_BYTES, TARGETS

_ROUND = "round-{:03d}.safetensors"

OnStep = Callable[[int, int, float, float], None]
"""Called after each step with its number from 1, the number of all steps, the loss, and the rate."""


def tune(
    examples: Sequence[Labelled],
    folder: Path,
    *,
    recipe: HeadRecipe,
    seed: int,
    on_step: OnStep,
    on_round: Callable[[int], None],
    on_resume: Callable[[int], None],
) -> Path:
    """Train a LoRA on pairs of these texts, and return its file.

    Args:
        examples: Texts of at least two labels, two texts of each at the least.
        folder: Of this training alone. What an earlier one has left is gone on from.
        recipe: How many rounds, pairs and so on.
        seed: Of the pairs and of the LoRA's first weights.
        on_step: Told of each step.
        on_round: Told of the last step of each round, when its LoRA is on disk.
        on_resume: Told of the last step that an earlier run has left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = folder / LORA_FILE
    if finished.is_file():
        return finished
    texts = min(len(examples), max(2, recipe.max_pairs // (2 * recipe.rounds)))
    steps_of_round = -(-2 * texts // recipe.batch_pairs)
    done = [number for number in range(recipe.rounds) if (folder / _ROUND.format(number)).is_file()]
    limit_threads()
    torch.manual_seed(seed)
    model = SentenceTransformer(str(package_folder()), device=_device())
    model.add_adapter(
        LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            target_modules=list(TARGETS),
            lora_dropout=0.0,
        )
    )
    if done:
        _restore(model, folder / _ROUND.format(done[-1]))
        on_resume((done[-1] + 1) * steps_of_round)
    for number in range(done[-1] + 1 if done else 0, recipe.rounds):
        rate = recipe.learning_rate * (1 - number / recipe.rounds)
        first = number * steps_of_round

        def report(step: int, loss: float, *, first: int = first, rate: float = rate) -> None:
            on_step(first + step, recipe.rounds * steps_of_round, loss, rate)

        pairs = pairs_of(examples, texts=texts, seed=seed * 1_000 + number)
        _train(model, pairs, folder, recipe=recipe, rate=rate, seed=seed + number, report=report)
        target = finished if number == recipe.rounds - 1 else folder / _ROUND.format(number)
        with replacing(target) as beside:
            _save(beside, _lora_weights(model))
        on_round(first + steps_of_round)
    return finished


def pairs_of(
    examples: Sequence[Labelled], *, texts: int, seed: int
) -> dict[str, list[str] | list[float]]:
    """Each of so many texts with another of its label (1.0), and with one of another label (0.0)."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    by_label: dict[str, list[Labelled]] = {}
    for example in examples:
        by_label.setdefault(example.label, []).append(example)
    first: list[str] = []
    second: list[str] = []
    scores: list[float] = []
    for example in rng.sample(list(examples), texts):
        same = [each for each in by_label[example.label] if each is not example] or [example]
        other = rng.choice([label for label in by_label if label != example.label])
        for score, partner in ((1.0, rng.choice(same)), (0.0, rng.choice(by_label[other]))):
            first.append(example.text)
            second.append(partner.text)
            scores.append(score)
    return {"first": first, "second": second, "score": scores}


class _Reporter(TrainerCallback):  # type: ignore[misc] # untyped
    """Tells of each step with its loss."""

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self._report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ANN401
        """Called with the loss of the step that has just ended."""
        del args, control
        if logs and "loss" in logs:
            self._report(state.global_step, float(logs["loss"]))


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc] # untyped
    """sentence-transformers' trainer, without the model card: it would encode examples for it."""

    def add_model_card_callback(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Nothing."""


def _train(
    model: SentenceTransformer,
    pairs: Mapping[str, Sequence[object]],
    folder: Path,
    *,
    recipe: HeadRecipe,
    rate: float,
    seed: int,
    report: Callable[[int, float], None],
) -> None:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "unused"),
        num_train_epochs=1,
        per_device_train_batch_size=recipe.batch_pairs,
        learning_rate=rate,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=_device() == "cpu",
        seed=seed,
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(pairs)),
        loss=CosineSimilarityLoss(model),
        callbacks=[_Reporter(report)],
    )
    trainer.remove_callback(PrinterCallback)  # standard output is for events
    trainer.train()


def _lora_weights(model: SentenceTransformer) -> dict[str, npt.NDArray[np.float32]]:
    """The LoRA's matrices by the name of the layer that they belong to, and A or B."""
    found = {}
    for name, parameter in model[0].auto_model.named_parameters():
        layer, lora, rest = name.partition(".lora_")
        if lora:
            found[f"{layer}.{rest[0]}"] = parameter.detach().float().cpu().numpy()
    return found


def _restore(model: SentenceTransformer, path: Path) -> None:
    with TensorFile(path, max_header_bytes=MAX_HEADER_BYTES) as file, torch.no_grad():
        for name, parameter in model[0].auto_model.named_parameters():
            layer, lora, rest = name.partition(".lora_")
            if lora:
                parameter.copy_(torch.from_numpy(file.read(f"{layer}.{rest[0]}").copy()))


def _save(path: Path, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    shapes = {name: array.shape for name, array in weights.items()}
    write_tensors(path, shapes, dtype="F32", values=weights.__getitem__)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
