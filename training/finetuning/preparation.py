"""Prepares a run: its conversations as tokens, and the plan of its steps."""

import hashlib
import importlib.metadata
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from connectors.conversation import Split
from training.base_models.manifest import BaseModel, load_base
from training.config import Recipe, TrainingSpec
from training.data.batching import BatchPlan, length_batches, plan_run, positions
from training.data.dataset import Dataset, Example, load
from training.data.tokenization import (
    ExampleTokenizer,
    TokenizedExample,
    TokenizedUnpaired,
    token_count,
    width_of,
)
from training.errors import BadInput
from training.finetuning.estimate import batch_limit
from training.retrieval.prompts import Shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """What a run trains on.

    ``fingerprint``: equal for equal spec, base, data and packages, which give equal steps.
    ``batch_tokens``: positions of one forward pass, at most. ``skipped``: conversations whose last
    exchange alone is longer than the recipe's ``max_length``.
    """

    base: BaseModel
    dataset: Dataset
    train: list[TokenizedExample]
    validation: list[TokenizedExample]
    skipped: int
    plan: BatchPlan
    batch_tokens: int
    fingerprint: str

    @property
    def widest_batch(self) -> int:
        """Positions of the largest forward pass of training."""
        widths = [width_of(item) for item in self.train]
        return max(positions(widths, batch) for step in self.plan.steps for batch in step)

    @property
    def validation_positions(self) -> int:
        """Positions that one validation computes."""
        widths = [width_of(item) for item in self.validation]
        batches = length_batches(widths, max_tokens=self.batch_tokens)
        return sum(positions(widths, batch) for batch in batches)


class TokenizedSplits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run reads, as tokens; the fields are those of `TrainingData`."""

    train: list[TokenizedExample]
    validation: list[TokenizedExample]
    skipped: int


def tokenize(
    spec: TrainingSpec,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    stop_ids: Collection[int],
    shown: Mapping[Split, Shown],
) -> TokenizedSplits:
    """Tokenise what a run reads. The arguments and errors are those of `prepare`."""
    dataset = load(Path(spec.dataset))
    example_tokenizer = ExampleTokenizer(
        dataset, tokenizer, stop_ids=stop_ids, max_length=spec.recipe.max_length
    )
    train, skipped = _encode(
        examples_of(spec, dataset, "train"), example_tokenizer, shown.get("train", {})
    )
    validation, _ = _encode(
        examples_of(spec, dataset, "validation"), example_tokenizer, shown.get("validation", {})
    )
    return TokenizedSplits(train=train, validation=validation, skipped=skipped)


def prepare(
    spec: TrainingSpec,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    stop_ids: Collection[int],
    shown: Mapping[Split, Shown] | None = None,
    tokenized: TokenizedSplits | None = None,
) -> TrainingData:
    """Read base and dataset, tokenise, and plan.

    Args:
        spec: The run.
        tokenizer: The base's.
        stop_ids: Tokens that end a reply.
        shown: What replies are shown, from `prepare_references`.
        tokenized: From `tokenize`, where runs share it.

    Raises:
        BadInput: there is nothing to train on, or the template cannot be trained on.
        BaseModelError: the base is not whole.
    """
    base, dataset = load_base(Path(spec.base)), load(Path(spec.dataset))
    shown = shown or {}
    tokenized = tokenized or tokenize(spec, tokenizer, stop_ids=stop_ids, shown=shown)
    train, skipped = tokenized.train, tokenized.skipped
    if not train:
        raise BadInput(
            f"no conversation of {dataset.folder} can be trained on: {skipped} are longer than "
            f"max_length {spec.recipe.max_length}, the others have no assistant turn with weight"
        )
    _require_both_labels(train, spec)
    limit = batch_limit(spec.recipe)
    widths = [width_of(item) for item in train]
    plan = plan_run(
        widths,
        tokens=[token_count(item) for item in train],
        seed=spec.seed,
        epochs=spec.recipe.epochs,
        step_tokens=step_tokens(spec.recipe, widths),
        batch_tokens=limit,
        min_epochs=spec.recipe.min_epochs,
        max_train_tokens=spec.recipe.max_train_tokens,
    )
    told = msgspec.to_builtins(spec)
    # what follows the training does not belong to it; and what was no field when older runs began goes
    del told["recipe"]["full_evaluation"]
    if spec.knowledge is None:
        del told["knowledge"]
    facts = msgspec.json.encode((told, base.serving_sha256, dataset.sha256, packages(), shown))
    return TrainingData(
        base=base,
        dataset=dataset,
        train=train,
        validation=tokenized.validation,
        skipped=skipped,
        plan=plan,
        batch_tokens=limit,
        fingerprint=hashlib.sha256(facts).hexdigest(),
    )


def step_tokens(recipe: Recipe, widths: Sequence[int]) -> int:
    """Tokens of one optimiser step, at most.

    Steps are measured in tokens, so that each costs the same whatever its examples are. A number of
    examples (OpenAI's ``batch_size``) is converted to the tokens of that many average ones.
    """
    if not recipe.batch_examples:
        return recipe.batch_tokens
    return max(1, round(recipe.batch_examples * sum(widths) / len(widths)))


def packages() -> dict[str, str]:
    """Versions of the packages that compute the adapter."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _require_both_labels(train: Sequence[TokenizedExample], spec: TrainingSpec) -> None:
    """Refuse judgements with only one label: they teach nothing but to say more, or less."""
    if len({item.desirable for item in train if isinstance(item, TokenizedUnpaired)}) == 1:
        raise BadInput(
            f"the judgements that fit into max_length {spec.recipe.max_length} are all of one "
            "sort; kto needs wanted and unwanted replies: raise the recipe's max_length"
        )


def examples_of(spec: TrainingSpec, dataset: Dataset, split: Split) -> list[Example]:
    """The examples of a split that a run reads.

    Validation reads at most ``validation_conversations``, the same ones for one seed.
    """
    examples = dataset.read(split)
    if split == "validation":
        random.Random(spec.seed).shuffle(examples)  # noqa: S311 - an order, not a secret
        examples = examples[: spec.recipe.validation_conversations]
    return examples


def _encode(
    examples: Sequence[Example], tokenizer: ExampleTokenizer, shown: Shown
) -> tuple[list[TokenizedExample], int]:
    """The examples as tokens, and how many conversations gave none."""
    found = [tokenizer.items(example, shown.get(example.id)) for example in examples]
    return [item for items in found for item in items], sum(not items for items in found)
