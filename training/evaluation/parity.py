"""What the trainer computes, to compare with the engine: is what is served what was trained?"""

from collections.abc import Mapping
from pathlib import Path

import torch

from training.compute_dtype import TypeChoice, Work
from training.config import TrainingSpec
from training.data.chat_template import TrainingSequence
from training.evaluation.generator import Generator
from training.evaluation.heldout import HeldOutData
from training.events import EventWriter, evaluation_reporter
from training.results import ParitySample

PARITY_TOKENS = 2000


def parity_reference(
    spec: TrainingSpec,
    trained_folder: Path,
    progress: EventWriter | None = None,
    *,
    computing: Mapping[Work, TypeChoice],
    tokens: int = PARITY_TOKENS,
) -> list[ParitySample]:
    """Log-probabilities of held-out assistant tokens, as training computes them.

    Goes through the NF4 checkpoint and PEFT's own arithmetic, not through the serving weights: the
    comparison with the engine must notice when those two are not the same model. Where nothing was
    held out, the tokens are of the training split.

    Args:
        spec: The run.
        trained_folder: PEFT's two files of the new adapter; only read.
        progress: Gets an `EvaluationEvent` after each batch. The caller closes it.
        computing: The type to compute in, for ``training``.
        tokens: Conversations are added until they have this many assistant tokens.

    Raises:
        BadInput: the dataset has no reply that fits, or the base's template refuses it.
    """
    held_out = HeldOutData(spec)
    dtype = getattr(torch, computing["training"].type)
    generator = Generator.training(Path(spec.base) / "nf4", trained_folder, dtype=dtype)
    chosen: list[tuple[str, TrainingSequence]] = []
    counted = 0
    for name, sequence in held_out.parity_sequences(generator):
        if counted < tokens:
            chosen.append((name, sequence))
            counted += sum(sequence.loss_mask)
    report = evaluation_reporter(progress, "parity", total=len(chosen))
    with generator.using("new"):
        scored, _ = generator.score(
            [sequence for _, sequence in chosen], [()] * len(chosen), report
        )
    return [
        ParitySample(
            conversation=name,
            token_ids=tuple(sequence.token_ids),
            positions=tuple(i for i, trained in enumerate(sequence.loss_mask) if trained),
            logprobs=tuple(result.logprobs),
            greedy=tuple(result.greedy),
        )
        for (name, sequence), result in zip(chosen, scored, strict=True)
    ]
