"""Estimates what a run will need, in seconds and bytes. Nothing here needs torch."""

import shutil
from pathlib import Path

import msgspec

from training.base_models.manifest import BaseModel
from training.compute_dtype import BYTES, ComputeType
from training.config import Recipe
from training.data.batching import BatchPlan

# Of the model's forward and backward passes together; the output head, where it is used, too.
_FORWARD_SHARE = 0.4
# Python, torch, transformers and trl, loaded: measured 0.9 GB on a CPU.
_PROCESS_BYTES = 1_000_000_000
# Activations kept for the backward pass, per position, layer and hidden unit, in numbers. Measured
# on Llama-like models with LoRA on every linear layer; with checkpointing, one layer's at a time.
_ACTIVATIONS = 45


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the memory: the compute type, base weights in it or packed in NF4, the adapter."""

    type: ComputeType
    unpacked: bool
    adapter_bytes: int


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """``seconds`` from now to the end of training; ``memory_bytes`` is the peak.

    ``disk_bytes`` is what checkpoints and the adapter take at most.
    """

    seconds: float
    memory_bytes: int
    disk_bytes: int
    train_tokens: int
    steps: int
    basis: str


def estimate(
    plan: BatchPlan,
    *,
    recipe: Recipe,
    base: BaseModel,
    footprint: Footprint,
    positions_per_second: float,
    widest_batch: int,
    validation_positions: int,
    forwards: float = 0.0,
    first_step: int = 0,
    basis: str,
) -> Estimate:
    """Estimate a run from a measured speed.

    Args:
        plan: The run's steps.
        recipe: How often it validates, and what its activations need.
        base: Its size.
        footprint: What decides the memory.
        positions_per_second: Measured, forward and backward.
        widest_batch: Positions of the largest forward pass.
        validation_positions: Positions that one validation reads, forward only.
        forwards: Further forward passes over all of that, in training and validation.
        first_step: Steps that are done already.
        basis: Where the speed comes from, in words.
    """
    steps = len(plan.steps)
    validations = -(-(steps - first_step) // recipe.validate_every)
    trained = sum(plan.padded[first_step:])
    forward = forwards * trained + (1 + forwards) * validations * validation_positions
    return Estimate(
        seconds=(trained + forward * _FORWARD_SHARE) / positions_per_second,
        memory_bytes=memory_bytes(widest_batch, recipe=recipe, base=base, footprint=footprint),
        disk_bytes=6 * footprint.adapter_bytes,
        train_tokens=sum(plan.tokens[first_step:]),
        steps=steps,
        basis=basis,
    )


def memory_bytes(widest: int, *, recipe: Recipe, base: BaseModel, footprint: Footprint) -> int:
    """Peak memory: the process, the base, the adapter and its optimiser, activations."""
    layers = 1 + base.layers // 8 if recipe.gradient_checkpointing else base.layers
    size = BYTES[footprint.type]
    activations = widest * base.hidden_size * layers * _ACTIVATIONS * size
    logits = widest // 2 * base.vocab_size * (size + 8)  # the model's, float32, and its gradient
    weights = base.parameters * size if footprint.unpacked else base.size_bytes("nf4")
    # weights, gradients, two moments, and the best weights so far
    return _PROCESS_BYTES + weights + 5 * footprint.adapter_bytes + activations + logits


def tokens_in(
    minutes: float,
    *,
    least: int,
    estimated: Estimate,
) -> int:
    """Tokens of a run that should take ``minutes``, where all of ``estimated`` would take longer.

    ``least``: the result is never below this. 0 where the whole run fits, or ``minutes`` is 0.
    """
    if not minutes or estimated.seconds <= 60 * minutes:
        return 0
    fitting = int(estimated.train_tokens * 60 * minutes / estimated.seconds)
    return min(max(fitting, least), estimated.train_tokens)


def disk_is_short(folder: Path, needed: int) -> str | None:
    """A message for the user when ``folder``'s disk has less than ``needed`` bytes; else None."""
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return (
        f"{folder} needs {needed / 1e6:,.0f} MB for checkpoints and the adapter and its disk has "
        f"{free / 1e6:,.0f} MB free; make room, then run again with --resume"
    )


def batch_limit(recipe: Recipe) -> int:
    """Positions in one forward pass, at most; a step may have several."""
    return max(recipe.max_length, min(recipe.batch_tokens, 4096))
