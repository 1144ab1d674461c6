"""trl's trainer, made to follow a plan: its steps, its checkpoints; what is learnt is a subclass's.

What differs from trl's own, and why:

- A step is one item of a `training.data.batching.BatchPlan`: batches of like length, one after another, and
  the loss of all of them divided by what the step learns.
- The output head sees only positions that are learnt (a third of them, with 49,152 words each).
- A checkpoint holds the best weights too, and appears by rename once it is whole.
"""

# ruff: noqa: TID253 - the second half of the door in training/finetuning/qlora.py

import math
import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import msgspec
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from training.config import Recipe
from training.data.batching import BatchPlan
from training.data.chat_template import TrainingSequence
from training.data.collate import IGNORED, TokenLosses, collate
from training.errors import TrainingError
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

    Unlike transformers' schedules, neither the first nor the last step has rate 0: short runs
    have few to waste.
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


class _Steps:
    """The plan's steps, by number: the trainer makes its batches itself."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan.steps)

    def __getitem__(self, step: int) -> dict[str, int]:
        return {"step": step}


def trainer_config(recipe: Recipe, plan: BatchPlan, *, out: Path, seed: int) -> SFTConfig:
    """The recipe in trl's words; saving, logging and validation are ours."""
    return SFTConfig(
        output_dir=str(out),
        max_steps=len(plan.steps),
        per_device_train_batch_size=1,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch_fused",
        gradient_checkpointing=recipe.gradient_checkpointing,
        bf16=False,  # no autocast: base and adapter compute in types of their own
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=list(recipe.report_to) or "none",
        run_name=out.parent.name,  # the job's id, where a server trains
        disable_tqdm=True,
    )


class PlanTrainer(SFTTrainer):  # type: ignore[misc] # untyped
    """Runs a plan on a model with one adapter."""

    def __init__(
        self,
        model: PeftModel,
        *,
        config: SFTConfig,
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerBase,
        work: TrainingData,
        state: CheckpointState,
        callback: TrainerCallback,
        adapter_dtype: torch.dtype,
    ) -> None:
        super().__init__(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),
            processing_class=tokenizer,
            callbacks=[callback],
        )
        self.remove_callback(PrinterCallback)
        self.run = state
        self.best: Weights = {}
        self.measured = StepMetrics(math.nan, math.nan)
        self.step_rate = 0.0
        self._recipe, self._work = recipe, work
        self._kept: torch.Tensor | None = None
        self._checkpoints = Path(config.output_dir)
        for weight in self.adapter().values():
            weight.data = weight.data.to(adapter_dtype)  # trl turns every quantised model's to bf16
        head = model.get_output_embeddings()
        head.register_forward_pre_hook(self._keep_learnt)

    def follow(self, work: TrainingData) -> None:
        """Take the plan's steps from here on; before `train`."""
        self._work, self.args.max_steps = work, len(work.plan.steps)

    def adapter(self) -> Weights:
        """The trained parameters, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def load_adapter(self, weights: Weights) -> None:
        """Copy weights into the model, in place."""
        for name, parameter in self.adapter().items():
            parameter.data.copy_(weights[name])

    def remember_best(self) -> None:
        """Keep a copy of the weights as they are now."""
        self.best = {name: p.detach().cpu().clone() for name, p in self.adapter().items()}

    @property
    def forwards(self) -> float:
        """Passes forward, on average, that a step needs beside the one that learns."""
        return 0.0

    @abstractmethod
    def train_step(self, step: int) -> StepMetrics:
        """Add the gradients of the plan's step ``step`` (from 0)."""

    @abstractmethod
    def validation_step(self) -> StepMetrics:
        """Measure the workload's validation items; no gradients, and the model is in eval mode."""

    def read(self, rows: Sequence[TrainingSequence]) -> TokenLosses:
        """Read rows in one pass."""
        batch = collate(rows, pad=self.processing_class.pad_token_id)
        ids, labels = (batch[name].to(self.args.device) for name in ("input_ids", "labels"))
        self._kept = labels != IGNORED
        try:
            logits = self.model(input_ids=ids, use_cache=False).logits[0]
        finally:
            kept, self._kept = self._kept, None
        wanted = labels[kept]
        return TokenLosses(
            nll=functional.cross_entropy(logits.float(), wanted, reduction="none"),
            hits=logits.detach().argmax(-1) == wanted,
            counts=kept.sum(1).tolist(),
        )

    def _keep_learnt(self, head: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Before the output head: (batch, width, hidden) -> (1, learnt, hidden)."""
        del head
        return None if self._kept is None else (args[0][self._kept].unsqueeze(0), *args[1:])

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gradients of one step of the plan."""
        del num_items_in_batch
        model.train()
        self.measured = self.train_step(inputs["step"])
        self.step_rate = self._get_learning_rate()
        loss = self.measured.loss
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {self.state.global_step + 1}; "
                "train with a lower learning_rate"
            )
        return torch.tensor(loss, device=self.args.device)

    def validate(self) -> StepMetrics:
        """Measure the validation items."""
        self.model.eval()
        with torch.no_grad():
            measured = self.validation_step()
        self.model.train()
        return measured

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the recipe's schedule."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda step: rate_factor(self._recipe, steps=num_training_steps, step=step),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The plan's steps in order; a resumed run skips those that are done."""
        return DataLoader(_Steps(self._work.plan), batch_size=1, collate_fn=lambda items: items[0])

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the inputs here are not what transformers expects."""
        del inputs
        return 0

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - trl's
        """No card: the adapter's manifest says more."""

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ANN401 - transformers'
        del trial
        return str(self._checkpoints / ".partial")

    def save_checkpoint(self) -> None:
        """Write ``step-<n>`` whole or not at all, then remove older ones."""
        partial = self._checkpoints / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        self._save_checkpoint(self.model, None)
        (written,) = partial.iterdir()
        if self.best:
            save_file(self.best, written / BEST_FILE)
        write_atomically(written / STATE_FILE, msgspec.json.encode(self.run))
        sync_tree(written)
        target = self._checkpoints / f"step-{self.run.step:07d}"
        shutil.rmtree(target, ignore_errors=True)
        written.rename(target)
        sync_path(self._checkpoints)
        for folder in self._checkpoints.iterdir():
            if folder != target:
                shutil.rmtree(folder)

    def load_best(self, checkpoint: Path) -> None:
        """Take over the best weights that a checkpoint has kept."""
        best = checkpoint / BEST_FILE
        self.best = load_file(best) if best.is_file() else {}

    def load_saved(self, folder: Path) -> None:
        """Load PEFT's file bit for bit; its own loading would turn bf16 weights to float32."""
        saved = load_file(folder / "adapter_model.safetensors")
        own = self.adapter()
        self.load_adapter({name: saved[name.replace(".default.", ".")] for name in own})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        del model
        self.load_saved(Path(resume_from_checkpoint))
