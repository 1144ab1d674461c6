"""Supervised fine-tuning: the loss on the assistant's own words.

The loss is trl's (`SFTTrainer.compute_loss`): -log p, the mean over the tokens of a step's loss masks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from training.data.batching import Batch
from training.data.chat_template import TrainingSequence
from training.finetuning.trainer import PlanTrainer, StepMetrics, labels_of


class SupervisedTrainer(PlanTrainer, SFTTrainer):  # type: ignore[misc] # untyped
    """Learns replies as they are."""

    def arguments(self, common: dict[str, Any]) -> SFTConfig:
        """Nothing but what all methods have."""
        return SFTConfig(**common)

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Add the gradients of one step."""
        return self._mean_loss(self.data.train, batches)

    def validation_step(self) -> StepMetrics:
        """Measure all validation sequences."""
        return self._mean_loss(self.data.validation, self.validation_batches())

    def _mean_loss(self, sequences: Sequence[Any], batches: Sequence[Batch]) -> StepMetrics:
        """Mean over the tokens in the loss masks of all batches, with gradients where they are wanted."""
        read: list[list[TrainingSequence]] = [[sequences[i] for i in batch] for batch in batches]
        tokens = max(sum(sum(row.loss_mask) for rows in read for row in rows), 1)
        total = hits = torch.zeros((), device=self.args.device)
        for rows in read:
            inputs = self.inputs(rows)
            inputs["labels"] = labels_of(inputs)
            del inputs["completion_mask"]  # trl's for preferences
            loss = self.compute_loss(self.score, inputs, num_items_in_batch=tokens)
            self.backward(loss)
            total = total + loss.detach()
            hits = hits + self.scored.is_top1.sum()
        return StepMetrics(loss=total.item(), accuracy=hits.item() / tokens)
