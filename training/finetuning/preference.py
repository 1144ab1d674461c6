"""Preference optimisation: which of two replies is better (DPO), or whether one was desirable (KTO).

A reply's reward is ``beta * (log p(reply) - log p_reference(reply))``: how much likelier it has
become than under the reference model, which is the one that the run began with: no adapter, or the
start adapter as it was.

The losses are trl's (`DPOTrainer.compute_loss`, `KTOTrainer.compute_loss`), and so is the way to the
reference: the adapter is switched off, or for a copy of the start adapter, so there is no second
model. Added here: the log-probabilities under the reference are kept, and KTO's reference point is
measured over a whole step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from training.data.batching import Batch, length_batches
from training.data.tokenization import TokenizedPair, TokenizedUnpaired, mismatched
from training.evaluation.scores import compare
from training.finetuning.trainer import PlanTrainer, StepMetrics, labels_of

Known = dict[int, float]
"""Log-probabilities of sequences under the reference model, by the sequence's number."""


def label_weights(desirable: Sequence[bool]) -> tuple[float, float]:
    """(of desirable, of undesirable) replies, so that both sorts weigh the same in all.

    The paper's range for their ratio begins there (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8);
    the rarer sort is the one that gains.
    """
    yes = sum(desirable)
    no = len(desirable) - yes
    if not yes or not no:
        return 1.0, 1.0
    return max(1.0, no / yes), max(1.0, yes / no)


class PreferenceTrainer(PlanTrainer):
    """What both methods need: log-probabilities under the reference model."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of PlanTrainer
        super().__init__(*args, **options)
        self.precompute_ref_logps = True  # trl's losses then take what we hand them
        self._validation_reference: Known = {}

    def reference_logps(
        self, inputs: dict[str, torch.Tensor], numbers: Sequence[int], known: Known
    ) -> torch.Tensor:
        """(sequences,) log p of each under the reference model; what was not ``known`` is added.

        It is computed in the very batch that the policy computes, so that before the first step
        every reward is exactly 0.
        """
        if any(number not in known for number in numbers):
            found = self.compute_ref_log_probs(self.score, inputs)  # trl's
            logps = torch.cat([part for part in found if part is not None])
            known.update(zip(numbers, logps.tolist(), strict=True))
        return torch.tensor([known[n] for n in numbers], device=self.args.device)


class DpoTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc] # untyped
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

    Each pair is compared; the loss is the mean over a step's pairs.
    """

    def arguments(self, common: dict[str, Any]) -> DPOConfig:
        """The recipe's beta, and the paper's loss."""
        return DPOConfig(beta=self.recipe.beta, loss_type="sigmoid", **common)

    @property
    def forwards(self) -> float:
        """The reference reads a pair once; later epochs know its log-probabilities."""
        return 1 / max(1.0, self.recipe.epochs)

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Add the gradients of one step."""
        return self._mean_loss(self.data.train, batches, known=self.run_state.reference)

    def validation_step(self) -> StepMetrics:
        """Measure all validation pairs."""
        batches, known = self.validation_batches(), self._validation_reference
        return self._mean_loss(self.data.validation, batches, known=known)

    def _mean_loss(
        self, examples: Sequence[Any], batches: Sequence[Batch], *, known: Known
    ) -> StepMetrics:
        """Mean over the pairs of all batches, with gradients where they are wanted."""
        total = sum(len(batch) for batch in batches)
        tally = _Tally(self.recipe.beta, paired=True)
        for batch in batches:
            pairs: list[TokenizedPair] = [examples[i] for i in batch]
            inputs = self.inputs([p.chosen for p in pairs] + [p.rejected for p in pairs])
            numbers = [2 * i for i in batch] + [2 * i + 1 for i in batch]
            reference = self.reference_logps(inputs, numbers, known)
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = reference.chunk(2)
            loss = self.compute_loss(self.score, inputs) * (len(pairs) / total)
            self.backward(loss)
            tally.add(loss, self.scored, reference, [True] * len(pairs) + [False] * len(pairs))
        return tally.metrics()


class KtoTrainer(PreferenceTrainer, KTOTrainer):  # type: ignore[misc] # untyped
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7).

    A desirable reply has to be above the reference point, an undesirable one below. The loss is the
    mean over a step's replies.
    """

    def arguments(self, common: dict[str, Any]) -> KTOConfig:
        """The recipe's beta, and weights by how often each label occurs.

        trl's loss "apo_zero_unpaired" is its "kto" with a reference point of 0: "kto" would measure
        the point in each batch, of a few replies; ours is a whole step's (see `train_step`).
        """
        examples: Sequence[Any] = self.data.train
        yes, no = label_weights([example.desirable for example in examples])
        return KTOConfig(
            beta=self.recipe.beta,
            loss_type="apo_zero_unpaired",
            desirable_weight=yes,
            undesirable_weight=no,
            **common,
        )

    @property
    def forwards(self) -> float:
        """Both models read the mismatched replies, and the reference every other one once."""
        return 2 + 1 / max(1.0, self.recipe.epochs)

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Add the gradients of one step."""
        examples = self.data.train
        numbers = [i for batch in batches for i in batch]
        point = self.reference_point(examples, numbers, known={})
        return self._mean_loss(examples, batches, point, known=self.run_state.reference)

    def validation_step(self) -> StepMetrics:
        """Measure all validation replies against the reference point among them."""
        examples, known = self.data.validation, self._validation_reference
        numbers = list(range(len(examples)))
        point = self.reference_point(examples, numbers, known=known)
        return self._mean_loss(examples, self.validation_batches(), point, known=known)

    def reference_point(
        self, examples: Sequence[Any], numbers: Sequence[int], *, known: Known
    ) -> torch.Tensor:
        """z0 of the paper: how much likelier any reply has become, in nats and at least 0.

        It is the mean over replies that do not belong to their history: each history is read with
        the reply of the example before it, the first with the last's. A single example is read with
        the reply of one from elsewhere in the data.
        """
        far = (numbers[0] + len(examples) // 2) % len(examples)
        others = [numbers[-1], *numbers[:-1]] if len(numbers) > 1 else [far]
        rows = [
            mismatched(examples[i], examples[other], max_length=self.recipe.max_length)
            for i, other in zip(numbers, others, strict=True)
        ]
        total = torch.zeros((), device=self.args.device)
        for batch in length_batches(
            [len(row.token_ids) for row in rows], max_tokens=self.data.batch_tokens
        ):
            inputs = self.inputs([rows[i] for i in batch])
            marks = [len(examples) + numbers[i] for i in batch]  # apart from the matched replies
            reference = self.reference_logps(inputs, marks, known)
            with torch.no_grad():
                scored = self.score(input_ids=inputs["input_ids"], labels=labels_of(inputs))
            total += (scored.log_probs.sum(1) - reference).sum()
        return (total / len(rows)).clamp(min=0)

    def _mean_loss(
        self,
        examples: Sequence[Any],
        batches: Sequence[Batch],
        point: torch.Tensor,
        *,
        known: Known,
    ) -> StepMetrics:
        """Mean over the replies of all batches, with gradients where they are wanted."""
        total = sum(len(batch) for batch in batches)
        tally = _Tally(self.recipe.beta, paired=False)
        for batch in batches:
            replies: list[TokenizedUnpaired] = [examples[i] for i in batch]
            inputs = self.inputs([example.reply for example in replies])
            labels = [example.desirable for example in replies]
            reference = self.reference_logps(inputs, batch, known)
            inputs["label"] = torch.tensor(labels, device=self.args.device)
            # log p - (reference + z0): rewards are measured from the reference point
            inputs["ref_logps"] = reference + point
            loss = self.compute_loss(self.score, inputs) * (len(replies) / total)
            self.backward(loss)
            tally.add(loss, self.scored, reference, labels)
        return tally.metrics()


class _Tally:
    """Gathers what batches gave, for one `StepMetrics`."""

    def __init__(self, beta: float, *, paired: bool) -> None:
        self._beta, self._paired = beta, paired
        self._loss = 0.0
        self._rewards: dict[bool, list[float]] = {True: [], False: []}
        self._hits = self._tokens = 0

    def add(
        self,
        loss: torch.Tensor,
        scored: FusedCausalLMOutput,
        reference: torch.Tensor,
        desirable: Sequence[bool],
    ) -> None:
        """Take a batch's share of the loss, its scores, and which of its replies are desirable."""
        self._loss += loss.item()
        rewards = self._beta * (scored.log_probs.detach().sum(1) - reference)
        hits, tokens = scored.is_top1.sum(1).tolist(), scored.label_mask.sum(1).tolist()
        for row, (reward, good) in enumerate(zip(rewards.tolist(), desirable, strict=True)):
            self._rewards[good].append(reward)
            if good:
                self._hits += hits[row]
                self._tokens += tokens[row]

    def metrics(self) -> StepMetrics:
        """The means."""
        found = compare(self._rewards[True], self._rewards[False], paired=self._paired)
        return StepMetrics(
            loss=self._loss,
            accuracy=self._hits / self._tokens if self._tokens else None,
            reward_margin=found and found.margin,
            reward_accuracy=found and found.accuracy,
        )
