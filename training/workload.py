"""What a run works on: its conversations as tokens, and the plan of its steps."""

import hashlib
import importlib.metadata
import random
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from connectors.conversation import ChatMessage, Split
from training.base_model import BaseModel, load_base
from training.batches import Plan, length_batches, plan_run, positions
from training.dataset import Dataset, load
from training.errors import BadInput
from training.estimate import batch_limit
from training.spec import TrainingSpec
from training.template import TrainingSequence, training_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """``fingerprint`` names the run: same spec, base, data and packages, same steps.

    ``batch_tokens`` bounds the positions of one forward pass; ``left_out`` counts conversations
    whose last exchange alone is longer than the recipe's ``max_length``.
    """

    base: BaseModel
    dataset: Dataset
    train: list[TrainingSequence]
    validation: list[TrainingSequence]
    left_out: int
    plan: Plan
    batch_tokens: int
    fingerprint: str

    @property
    def validation_positions(self) -> int:
        """Positions that one validation computes."""
        lengths = [len(s.token_ids) for s in self.validation]
        batches = length_batches(lengths, max_tokens=self.batch_tokens)
        return sum(positions(lengths, batch) for batch in batches)


def prepare(
    spec: TrainingSpec, tokenizer: "PreTrainedTokenizerBase", *, stop_ids: Collection[int]
) -> Workload:
    """Read base and dataset, encode, and plan.

    Raises:
        BadInput: there is nothing to train on, or the template cannot be trained on.
        BaseModelError: the base is not whole.
    """
    base, dataset = load_base(Path(spec.base)), load(Path(spec.dataset))
    train, left_out = _encode(spec, dataset, tokenizer, split="train", stop_ids=stop_ids)
    validation, _ = _encode(spec, dataset, tokenizer, split="validation", stop_ids=stop_ids)
    if not train:
        raise BadInput(
            f"no conversation of {dataset.folder} can be trained on: {left_out} are longer than "
            f"max_length {spec.recipe.max_length}, the others have no assistant turn with weight"
        )
    limit = batch_limit(spec.recipe)
    plan = plan_run(
        [len(s.token_ids) for s in train],
        seed=spec.seed,
        epochs=spec.recipe.epochs,
        step_tokens=spec.recipe.batch_tokens,
        batch_tokens=limit,
        max_train_tokens=spec.recipe.max_train_tokens,
    )
    facts = msgspec.json.encode((spec, base.serving_sha256, dataset.sha256, packages()))
    return Workload(
        base=base,
        dataset=dataset,
        train=train,
        validation=validation,
        left_out=left_out,
        plan=plan,
        batch_tokens=limit,
        fingerprint=hashlib.sha256(facts).hexdigest(),
    )


def packages() -> dict[str, str]:
    """Versions of what computes the adapter."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _encode(
    spec: TrainingSpec,
    dataset: Dataset,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    split: Split,
    stop_ids: Collection[int],
) -> tuple[list[TrainingSequence], int]:
    """Sequences of a split, and how many conversations gave none.

    Validation reads at most ``validation_conversations``, the same ones for one seed.
    """
    examples = dataset.read(split)
    if split == "validation":
        random.Random(spec.seed).shuffle(examples)  # noqa: S311 - an order, not a secret
        examples = examples[: spec.recipe.validation_conversations]
    prompt = dataset.system_prompt
    system = [ChatMessage(role="system", content=prompt)] if prompt else []
    found = [
        training_sequences(
            tokenizer,
            [*system, *example.messages],
            stop_ids=stop_ids,
            max_length=spec.recipe.max_length,
        )
        for example in examples
    ]
    return [s for sequences in found for s in sequences], sum(not s for s in found)
