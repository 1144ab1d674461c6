"""Supervised fine-tuning: the loss on the assistant's own words."""

# ruff: noqa: TID253 - the second half of the door in training/finetuning/qlora.py

from collections.abc import Sequence

import torch

from training.data.batching import Batch, length_batches
from training.data.chat_template import TrainingSequence
from training.data.tokenization import TokenizedExample, rows_of
from training.finetuning.trainer import PlanTrainer, StepMetrics


class SupervisedTrainer(PlanTrainer):
    """-log p, the mean over a step's learnt tokens, whatever batch they are in."""

    def train_step(self, step: int) -> StepMetrics:
        """Add the gradients of one step."""
        batches = [_rows(self._work.train, batch) for batch in self._work.plan.steps[step]]
        learnt = max(sum(sum(row.loss_mask) for rows in batches for row in rows), 1)
        total = hits = torch.zeros((), device=self.args.device)
        for rows in batches:
            read = self.read(rows)
            loss = read.nll.sum() / learnt
            self.accelerator.backward(loss)
            total = total + loss.detach()
            hits = hits + read.hits.sum()
        return StepMetrics(loss=total.item(), accuracy=hits.item() / learnt)

    def validation_step(self) -> StepMetrics:
        """Nats a token over all validation sequences."""
        items = self._work.validation
        rows = _rows(items, range(len(items)))
        total, hits, tokens = 0.0, 0, 0
        lengths = [len(row.token_ids) for row in rows]
        for batch in length_batches(lengths, max_tokens=self._work.batch_tokens):
            read = self.read([rows[i] for i in batch])
            total += read.nll.sum().item()
            hits += int(read.hits.sum())
            tokens += len(read.nll)
        return StepMetrics(loss=total / tokens, accuracy=hits / tokens)


def _rows(items: Sequence[TokenizedExample], batch: Batch | range) -> list[TrainingSequence]:
    return [row for i in batch for row in rows_of(items[i])]
