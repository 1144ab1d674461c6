"""The training loop: trl's trainers, made to follow a plan of steps.

Where to find what:

- The loop over steps is transformers' ``Trainer.train``; trl's trainers inherit it. Each round calls
  `PlanTrainer.training_step` for the gradients of one step, clips them, and lets AdamW step.
- What a step computes is a method's ``train_step``: `SupervisedTrainer` in ``sft.py``, `DpoTrainer` and
  `KtoTrainer` in ``preference.py``. The losses are trl's own ``compute_loss``.
- What happens after each step (events, validation, checkpoints, early stopping) is in ``callback.py``.

What this module adds to trl, because it was measured to matter (``training/LOG.md``):

- A step is one entry of a `training.data.batching.BatchPlan`: batches of like length, one after
  another. The loss is a mean over the whole step, whatever batch an example is in.
- `PlanTrainer.score` runs the output head on the positions of the loss mask alone. trl's fused head runs
  it on every position unless it has Triton, which a CPU has not.
- A checkpoint is complete or not there, and holds the best weights so far.
"""

import math
import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import msgspec
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from trl.trainer.utils import FusedCausalLMOutput

from training.config import Recipe
from training.data.batching import Batch, length_batches
from training.data.chat_template import TrainingSequence
from training.data.collate import IGNORED, collate
from training.data.tokenization import width_of
from training.errors import Diverged
from training.filesystem import sync_path, sync_tree, write_atomically
from training.finetuning.checkpoint import STATE_FILE, CheckpointState
from training.finetuning.preparation import TrainingData

BEST_FILE = "best.safetensors"
Weights = dict[str, torch.Tensor]


class StepMetrics(NamedTuple):
    """Means of a step or a validation; see `training.events.StepEvent`."""

    loss: float
    accuracy: float | None
    reward_margin: float | None = None
    reward_accuracy: float | None = None


def rate_factor(recipe: Recipe, *, steps: int, step: int) -> float:
    """Share of the learning rate in the step after ``step`` steps of ``steps``.

    Unlike transformers' schedules, the first step's rate is not 0: short runs have few to waste.
    """
    warmup = round(recipe.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (steps - step) / max(steps - warmup, 1)
    match recipe.schedule:
        case "constant":
            return 1.0
        case "linear":
            return left
        case "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * left)
        case _:
            assert_never(recipe.schedule)


class PlanTrainer(Trainer):  # type: ignore[misc] # untyped
    """Put before one of trl's trainers, makes it follow a plan; trains one LoRA adapter.

    Or, without the shape of one, every weight of the model. Then there are no checkpoints: one would be
    some four times the size of the model, and is not worth it in a control that takes minutes.
    """

    scored: FusedCausalLMOutput

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        lora: LoraConfig | None,
        start: Path | None,
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerBase,
        data: TrainingData,
        state: CheckpointState,
        out: Path,
        seed: int,
        adapter_dtype: torch.dtype,
    ) -> None:
        """Give ``model`` an adapter of the shape ``lora``, if any, and prepare a run.

        ``start`` is the folder of an adapter to begin with. What the run begins with is also the
        reference model of ``dpo`` and ``kto``. ``state`` is that of the checkpoint to resume from, or
        a new one, and is kept up to date; ``out`` is the folder of checkpoints.
        """
        self.recipe, self.data, self.run_state = recipe, data, state
        self.trains_all = lora is None
        self.best: Weights = {}
        self.metrics = StepMetrics(math.nan, math.nan)
        self._head_positions: torch.Tensor | None = None
        super().__init__(
            model=get_peft_model(model, lora) if start else model,
            args=self.arguments(_arguments(recipe, out=out, seed=seed)),
            train_dataset=Dataset.from_dict({"batches": data.plan.steps}),  # a row is a step
            data_collator=lambda rows: rows[0],
            processing_class=tokenizer,
            peft_config=None if start else lora,
        )
        self.remove_callback(PrinterCallback)
        self.follow(data)
        # with a start, trl keeps a copy as the reference
        for adapter in () if self.trains_all else self.model.peft_config:
            for weight in self.weights(adapter).values():
                weight.data = weight.data.to(adapter_dtype)  # trl turns some of them to bf16
            if start:
                self.load_weights(start, adapter)
        head = self.model.get_output_embeddings()
        self._head_hook = head.register_forward_pre_hook(self._keep_positions)

    def release(self) -> None:
        """Take the adapter off the model that this was made with, so that another run can have it."""
        self._head_hook.remove()
        if not self.trains_all:
            self.model.unload()

    @abstractmethod
    def arguments(self, common: dict[str, Any]) -> TrainingArguments:
        """The method's configuration of trl, given what all methods have in common."""

    @abstractmethod
    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Add the gradients of one step: a mean over the training examples of all its batches."""

    @abstractmethod
    def validation_step(self) -> StepMetrics:
        """Measure the validation examples; no gradients, and the model is in eval mode."""

    @property
    def forwards(self) -> float:
        """Passes forward, on average, that a step needs beside the one that learns."""
        return 0.0

    def weights(self, adapter: str = "default") -> Weights:
        """An adapter's parameters, by name; the trained one is "default". Without one, all there are."""
        named = self.model.named_parameters()
        return {name: p for name, p in named if self.trains_all or f".{adapter}." in name}

    def load_weights(self, folder: Path, adapter: str = "default") -> None:
        """Load PEFT's file bit for bit; PEFT's own loading would turn bf16 weights to float32."""
        saved = load_file(folder / "adapter_model.safetensors")
        for name, weight in self.weights(adapter).items():
            weight.data.copy_(saved[name.replace(f".{adapter}.", ".")])

    def follow(self, data: TrainingData) -> None:
        """Take the steps of this plan, or of its beginning where it was shortened; before `train`."""
        self.data, self.args.max_steps = data, len(data.plan.steps)

    def inputs(self, rows: Sequence[TrainingSequence]) -> dict[str, torch.Tensor]:
        """A batch for `compute_loss`, on the model's device."""
        batch = collate(rows, pad=self.processing_class.pad_token_id)
        return {name: tensor.to(self.args.device) for name, tensor in batch.items()}

    def validation_batches(self) -> list[Batch]:
        """The validation examples in batches of like length."""
        widths = [width_of(example) for example in self.data.validation]
        return length_batches(widths, max_tokens=self.data.batch_tokens)

    def score(
        self,
        *,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        branch_mask: torch.Tensor | None = None,
        **_: object,
    ) -> FusedCausalLMOutput:
        """Log-probabilities of the labels: what trl's losses call in place of the model.

        Each tensor of the answer is (batch, width - 1) and 0 where there is no label; the newest answer
        is kept as ``scored``, for the metrics.

        Does what trl's fused head does, in less time (``training/LOG.md``). The output head runs only
        where there is a label, and there is no attention mask unless a sequence has branches: padding is
        on the right, where no token looks, and without a mask attention skips the upper triangle.
        Entropies and mean logits, which trl would only log, are 0.
        """
        mask = labels[:, 1:] != IGNORED  # (batch, width - 1)
        self._head_positions = functional.pad(mask, (0, 1))
        try:
            logits = self.model(
                input_ids=input_ids,
                attention_mask=branch_mask,
                position_ids=position_ids,
                use_cache=False,
            ).logits[0]
        finally:
            self._head_positions = None
        targets = labels[:, 1:][mask]
        nll = functional.cross_entropy(logits.float(), targets, reduction="none")
        zeros = torch.zeros(mask.shape, device=mask.device)
        self.scored = FusedCausalLMOutput(
            log_probs=zeros.masked_scatter(mask, -nll),
            is_top1=mask.masked_scatter(mask, logits.detach().argmax(-1) == targets),
            label_mask=mask,
            entropy=zeros,
            mean_logits=zeros,
        )
        return self.scored

    def score_rows(self, rows: Sequence[TrainingSequence]) -> FusedCausalLMOutput:
        """Log-probabilities of the tokens of the sequences' loss masks."""
        inputs = self.inputs(rows)
        return self.score(**inputs, labels=labels_of(inputs))

    def _keep_positions(
        self, head: torch.nn.Module, args: tuple[Any, ...]
    ) -> tuple[Any, ...] | None:
        """Before the output head: (batch, width, hidden) -> (1, positions, hidden)."""
        del head
        kept = self._head_positions
        return None if kept is None else (args[0][kept].unsqueeze(0), *args[1:])

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss; a validation has none."""
        if loss.requires_grad:
            self.accelerator.backward(loss)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gradients of one step of the plan; called by the loop."""
        del num_items_in_batch
        model.train()
        self.metrics = self.train_step(inputs["batches"])
        loss = self.metrics.loss
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} at step {self.state.global_step + 1}; "
                "train with a lower learning_rate"
            )
        return torch.tensor(loss, device=self.args.device)

    def validate(self) -> StepMetrics:
        """Measure the validation examples."""
        self.model.eval()
        with torch.no_grad():
            metrics = self.validation_step()
        self.model.train()
        return metrics

    def learning_rate(self, step: int) -> float:
        """Learning rate of the plan's step ``step`` (from 0)."""
        steps = len(self.data.plan.steps)
        return self.recipe.learning_rate * rate_factor(self.recipe, steps=steps, step=step)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the recipe's schedule."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda step: rate_factor(self.recipe, steps=num_training_steps, step=step),
        )
        return self.lr_scheduler

    def remember_best(self) -> None:
        """Keep a copy of the weights as they are now."""
        self.best = {name: p.detach().cpu().clone() for name, p in self.weights().items()}

    def restore_best(self) -> None:
        """Set the adapter to the best weights, where some were kept."""
        weights = self.weights()
        for name, best in self.best.items():
            weights[name].data.copy_(best)

    def load_best(self, checkpoint: Path) -> None:
        """Take over the best weights that a checkpoint has kept."""
        best = checkpoint / BEST_FILE
        self.best = load_file(best) if best.is_file() else {}

    def finish_checkpoint(self, written: Path) -> None:
        """Complete what the trainer has written, rename it to ``step-<n>``, and remove older ones."""
        if self.best:
            save_file(self.best, written / BEST_FILE)
        write_atomically(written / STATE_FILE, msgspec.json.encode(self.run_state))
        sync_tree(written)
        target = written.with_name(f"step-{self.run_state.step:07d}")
        shutil.rmtree(target, ignore_errors=True)
        written.rename(target)
        sync_path(target.parent)
        for folder in target.parent.iterdir():
            if folder != target:
                shutil.rmtree(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        del model
        self.load_weights(Path(resume_from_checkpoint))

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        """Its rows are the plan's steps, whose examples are tokenised already."""
        return dataset

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass figures to the trackers; trl would add some of its own, which `score` leaves at 0."""
        Trainer.log(self, logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - trl's
        """No card: the adapter's manifest says more."""


def labels_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(batch, width) token ids, and `IGNORED` outside the loss mask."""
    return inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)


def _arguments(recipe: Recipe, *, out: Path, seed: int) -> dict[str, Any]:
    """The recipe as trl's arguments; saving, logging and validation are the callback's."""
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": 1,  # row of the dataset: a step
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "max_length": None,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "router_aux_loss_coef": 0.0,
        "bf16": False,  # no autocast: base and adapter compute in types of their own
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": list(recipe.report_to) or "none",
        "run_name": out.parent.name,  # the job's id, where a server trains
        "disable_tqdm": True,
    }
