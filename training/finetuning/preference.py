"""Learning which of two replies is better (DPO), or whether one was wanted (KTO).

A reply's reward is ``beta * (log p(reply) - log p_reference(reply))``: how much likelier it has
become than under the model that the run began with (no adapter, or the start adapter as it was).
That model is the trained one with its adapter off, or set back, so there is no second copy.

The losses are trl's (`DPOTrainer`, loss "sigmoid"; `KTOTrainer`, loss "kto"), and a test holds
them to it. Its trainers bring a sampler, a collator and logits of their own; on a plan a killed
run ends with the same bytes, and only learnt positions reach the output head.
"""

# ruff: noqa: TID253 - the second half of the door in training/finetuning/qlora.py

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from training.data.batching import Batch, length_batches
from training.data.chat_template import TrainingSequence
from training.data.collate import TokenLosses
from training.data.tokenization import (
    TokenizedExample,
    TokenizedPair,
    TokenizedUnpaired,
    mismatched,
    width_of,
)
from training.evaluation.scores import compare
from training.finetuning.trainer import PlanTrainer, StepMetrics, Weights


def dpo_losses(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Rewards of pairs, (pairs,) each -> losses (Rafailov et al. 2023, arXiv 2305.18290, eq. 7)."""
    return -functional.logsigmoid(chosen - rejected)


def kto_losses(rewards: torch.Tensor, wanted: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    """Rewards and labels, (replies,) each -> losses without weights.

    ``usual`` is the reward of any reply, never below 0 (beta x z0 of Ethayarajh et al. 2024, arXiv
    2402.01306, eq. 7): a wanted reply has to be above it, an unwanted one below.
    """
    above = torch.where(wanted, rewards - usual, usual - rewards)
    return 1 - torch.sigmoid(above)


def judgement_weights(wanted: Sequence[bool]) -> tuple[float, float]:
    """(of wanted, of unwanted) replies, so that both sorts weigh the same in all.

    The paper's range for their ratio begins there (eq. 8); the rarer sort is the one that gains.
    """
    yes = sum(wanted)
    no = len(wanted) - yes
    if not yes or not no:
        return 1.0, 1.0
    return max(1.0, no / yes), max(1.0, yes / no)


class PreferenceTrainer(PlanTrainer):
    """What both methods need: rewards, against a model that costs no memory."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of PlanTrainer
        super().__init__(*args, **options)
        self._start: Weights = {}
        self._validation_reference: dict[int, float] = {}

    def start_from_here(self) -> None:
        """Take the adapter's weights as they are now for the reference, in place of none."""
        self._start = {name: p.detach().clone() for name, p in self.adapter().items()}

    @contextmanager
    def _still(self) -> Iterator[None]:
        """No gradients, no dropout."""
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            yield
        self.model.train(training)

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        with self._still():
            if not self._start:
                with self.model.disable_adapter():
                    yield
                return
            now = {name: p.detach().clone() for name, p in self.adapter().items()}
            self.load_adapter(self._start)
            yield
            self.load_adapter(now)

    def _rewards(
        self, rows: Sequence[TrainingSequence], numbers: Sequence[int], known: dict[int, float]
    ) -> tuple[torch.Tensor, TokenLosses]:
        """(rows,) rewards; ``known``, the reference's log p of a row by number, is added to.

        What is not known is read in the very batch that the policy reads, so that before the
        first step every reward is exactly 0.
        """
        if any(number not in known for number in numbers):
            with self._as_reference():
                nats = self.read(rows).row_nll()
            known.update(zip(numbers, (-nats).tolist(), strict=True))
        reference = torch.tensor([known[n] for n in numbers], device=self.args.device)
        read = self.read(rows)
        return self._recipe.beta * (-read.row_nll() - reference), read


class DpoTrainer(PreferenceTrainer):
    """Every pair is compared; the loss is the mean over a step's pairs."""

    @property
    def forwards(self) -> float:
        """The reference reads a pair once; later epochs know what it said."""
        return 1 / max(1.0, self._recipe.epochs)

    def train_step(self, step: int) -> StepMetrics:
        """Add the gradients of one step."""
        batches = self._work.plan.steps[step]
        pairs = sum(len(batch) for batch in batches)
        tally = _Tally(paired=True)
        for batch in batches:
            losses = self._compare(self._work.train, batch, known=self.run.reference, tally=tally)
            self.accelerator.backward(losses.sum() / pairs)
        return tally.measured()

    def validation_step(self) -> StepMetrics:
        """Measure all validation pairs."""
        items, tally = self._work.validation, _Tally(paired=True)
        for batch in _batches(items, self._work.batch_tokens):
            self._compare(items, batch, known=self._validation_reference, tally=tally)
        return tally.measured()

    def _compare(
        self, items: Sequence[Any], batch: Batch, *, known: dict[int, float], tally: "_Tally"
    ) -> torch.Tensor:
        """(pairs,) losses of a batch."""
        pairs: list[TokenizedPair] = [items[i] for i in batch]
        rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        numbers = [2 * i for i in batch] + [2 * i + 1 for i in batch]
        rewards, read = self._rewards(rows, numbers, known)
        losses = dpo_losses(*rewards.chunk(2))
        tally.add(losses, rewards, [True] * len(pairs) + [False] * len(pairs), read)
        return losses


class KtoTrainer(PreferenceTrainer):
    """Every reply is held against the usual reward of its step."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of PlanTrainer
        super().__init__(*args, **options)
        items: list[Any] = self._work.train
        self._weights = judgement_weights([item.desirable for item in items])

    @property
    def forwards(self) -> float:
        """Both models read the mismatched replies, and the reference every judged one once."""
        return 2 + 1 / max(1.0, self._recipe.epochs)

    def train_step(self, step: int) -> StepMetrics:
        """Add the gradients of one step."""
        steps, items = self._work.plan.steps, self._work.train
        numbers = [i for batch in steps[step] for i in batch]
        before = numbers[-1] if len(numbers) > 1 else steps[step - 1][-1][-1]
        usual = self._usual(items, numbers, before=before, known={})
        tally = _Tally(paired=False)
        for batch in steps[step]:
            losses = self._hold(items, batch, usual, known=self.run.reference, tally=tally)
            self.accelerator.backward(losses.sum() / len(numbers))
        return tally.measured()

    def validation_step(self) -> StepMetrics:
        """Measure all validation replies against what is usual among them."""
        items, known = self._work.validation, self._validation_reference
        numbers = list(range(len(items)))
        usual = self._usual(items, numbers, before=numbers[-1], known=known)
        tally = _Tally(paired=False)
        for batch in _batches(items, self._work.batch_tokens):
            self._hold(items, batch, usual, known=known, tally=tally)
        return tally.measured()

    def _usual(
        self, items: Sequence[Any], numbers: Sequence[int], *, before: int, known: dict[int, float]
    ) -> torch.Tensor:
        """The mean reward of replies that do not belong to their history, at least 0.

        Each history is read with the reply of the item before it, the first with ``before``'s.
        """
        rows = [
            mismatched(items[i], items[other], max_length=self._recipe.max_length)
            for i, other in zip(numbers, [before, *numbers[:-1]], strict=True)
        ]
        total = torch.zeros((), device=self.args.device)
        lengths = [len(row.token_ids) for row in rows]
        for batch in length_batches(lengths, max_tokens=self._work.batch_tokens):
            marks = [len(items) + numbers[i] for i in batch]  # apart from the matched replies
            with self._still():
                total += self._rewards([rows[i] for i in batch], marks, known)[0].sum()
        return (total / len(rows)).clamp(min=0)

    def _hold(
        self,
        items: Sequence[Any],
        batch: Batch,
        usual: torch.Tensor,
        *,
        known: dict[int, float],
        tally: "_Tally",
    ) -> torch.Tensor:
        """(replies,) losses of a batch."""
        replies: list[TokenizedUnpaired] = [items[i] for i in batch]
        rewards, read = self._rewards([item.reply for item in replies], batch, known)
        labels = [item.desirable for item in replies]
        wanted = torch.tensor(labels, device=self.args.device)
        yes, no = self._weights
        losses = kto_losses(rewards, wanted, usual) * torch.where(wanted, yes, no)
        tally.add(losses, rewards, labels, read)
        return losses


class _Tally:
    """Gathers what batches gave, for one `Measured`."""

    def __init__(self, *, paired: bool) -> None:
        self._paired = paired
        self._losses: list[float] = []
        self._rewards: dict[bool, list[float]] = {True: [], False: []}
        self._hits = self._tokens = 0

    def add(
        self, losses: torch.Tensor, rewards: torch.Tensor, wanted: Sequence[bool], read: TokenLosses
    ) -> None:
        """Take a batch's losses, and of each row its reward, whether it was wanted, its tokens."""
        self._losses += losses.tolist()
        rows = zip(rewards.tolist(), wanted, read.hits.split(read.counts), strict=True)
        for reward, good, hits in rows:
            self._rewards[good].append(reward)
            if good:
                self._hits += int(hits.sum())
                self._tokens += len(hits)

    def measured(self) -> StepMetrics:
        """The means."""
        found = compare(self._rewards[True], self._rewards[False], paired=self._paired)
        return StepMetrics(
            loss=sum(self._losses) / len(self._losses),
            accuracy=self._hits / self._tokens if self._tokens else None,
            reward_margin=found and found.margin,
            reward_accuracy=found and found.accuracy,
        )


def _batches(items: Sequence[TokenizedExample], max_tokens: int) -> list[Batch]:
    return length_batches([width_of(item) for item in items], max_tokens=max_tokens)
