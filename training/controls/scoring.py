"""Scores a model that was trained beside a version, on the version's held-out conversations."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from training.adapters.package import TrainingSummary
from training.config import TrainingSpec
from training.data.products import find_products
from training.errors import BadInput
from training.evaluation.evaluate import (
    model_inputs,
    rate_replies,
    retrieval_inputs,
    run_model,
)
from training.evaluation.generator import Generator
from training.evaluation.heldout import HeldOutData, choose_contexts
from training.evaluation.scores import ConversationLosses, scores_of
from training.evaluation.sentence_embedder import load_embedder
from training.events import EventWriter, evaluation_reporter
from training.results import TrainedControl
from training.retrieval.index import ExchangeIndex


class Trained(NamedTuple):
    """What a run left: PEFT's two files or a ``whole`` model, its index if any, and what the run did."""

    folder: Path
    index_path: Path | None
    summary: TrainingSummary
    whole: bool = False


class ScoredControl(msgspec.Struct, frozen=True):
    """A control with its losses, which comparisons need."""

    control: TrainedControl
    losses: ConversationLosses


def score_control(
    spec: TrainingSpec,
    trained: Trained,
    *,
    conversations: int,
    dtype: torch.dtype,
    progress: EventWriter,
    subject: str,
) -> ScoredControl:
    """Score as `training.evaluation.evaluate` scores a version, with its own index, where it has one.

    Args:
        spec: The version's.
        trained: The model.
        conversations: That it learnt from; kept with the result.
        dtype: The type to compute in.
        progress: Gets an `EvaluationEvent` after each batch.
        subject: What these call it.

    Raises:
        BadInput: nothing that was held out fits into the recipe's ``max_length``.
    """
    serving, recipe = Path(spec.base) / "serving", spec.recipe
    if trained.whole:
        generator = Generator.whole(trained.folder, serving, dtype=dtype)
    else:
        generator = Generator.serving(serving, {"new": trained.folder}, dtype=dtype)
    held_out = HeldOutData(spec)
    contexts = choose_contexts(held_out.examples, recipe.evaluation_replies, seed=spec.seed)
    inputs = model_inputs(spec, held_out, generator, contexts)
    if trained.index_path is not None or spec.knowledge is not None:
        index = ExchangeIndex.load(trained.index_path) if trained.index_path else None
        inputs = retrieval_inputs(inputs, index, spec, held_out, generator)
    if not inputs.named:
        raise BadInput(
            f"no held-out reply fits into {recipe.max_length} tokens: raise the recipe's max_length"
        )
    report = evaluation_reporter(progress, subject, total=inputs.total)
    (output,) = run_model(
        generator, "base" if trained.whole else "new", [inputs], report, only=None
    )
    dataset = held_out.dataset
    products = find_products(dataset.read("train"), system_prompt=dataset.system_prompt)
    replies = rate_replies(output.texts, contexts, load_embedder(torch.float32), products)
    made = trained.summary
    return ScoredControl(
        TrainedControl(
            conversations=conversations,
            tokens=made.tokens,
            epochs=made.epochs,
            seconds=made.seconds,
            scores=scores_of(replies, losses=output.losses, seed=spec.seed),
        ),
        output.losses,
    )
