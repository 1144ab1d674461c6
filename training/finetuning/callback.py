"""After each step: what the run reports, when it validates and saves, when it ends."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.events import CheckpointEvent, EventWriter, StepEvent, ValidationEvent
from training.finetuning.checkpoint import CheckpointState
from training.finetuning.trainer import PlanTrainer

SAVE_SECONDS = 60.0  # from one checkpoint to the next at most, where steps are slow


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process had: allocated by torch on a CUDA device, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


class TrainingCallback(TrainerCallback):  # type: ignore[misc] # untyped
    """After each step: reports it, validates, saves, and stops the run when it should end."""

    def __init__(
        self, trainer: PlanTrainer, *, progress: EventWriter, should_stop: Callable[[], bool]
    ) -> None:
        self._trainer, self._recipe, self._data = trainer, trainer.recipe, trainer.data
        self._run: CheckpointState = trainer.run_state
        self._progress, self._should_stop = progress, should_stop
        self._first, self._before = self._run.step, self._run.seconds
        self._started = self._saved = time.monotonic()
        self._validating = 0.0
        self.interrupted = False

    @property
    def stopped(self) -> str:
        """Why training has ended, or '' while it goes on."""
        if self._run.worse >= self._recipe.patience:
            return f"no better validation loss in {self._run.worse} validations"
        if self._run.step >= len(self._data.plan.steps):
            return "every step was taken"
        return ""

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Called by the trainer when a step's weights are in place."""
        del args
        run = self._run
        run.step, run.train_loss = state.global_step, self._trainer.metrics.loss
        elapsed = time.monotonic() - self._started
        run.seconds = self._before + elapsed
        self._report_step(elapsed)
        last = run.step == len(self._data.plan.steps)
        if self._data.validation and (last or run.step % self._recipe.validate_every == 0):
            self._validate()
        if self.stopped:
            control.should_training_stop = True
            return
        self.interrupted = self._should_stop()
        control.should_training_stop = self.interrupted
        if self._trainer.trains_all:  # has no checkpoints
            return
        overdue = time.monotonic() - self._saved >= SAVE_SECONDS
        if self.interrupted or overdue or run.step % self._recipe.checkpoint_every == 0:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by the trainer when it has written its checkpoint."""
        del control
        written = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self._trainer.finish_checkpoint(written)
        self._saved = time.monotonic()
        self._progress.emit(CheckpointEvent, step=self._run.step)

    def _report_step(self, elapsed: float) -> None:
        plan, run = self._data.plan, self._run
        done = sum(plan.tokens[self._first : run.step])
        left = sum(plan.tokens[run.step :])
        self._progress.emit(
            StepEvent,
            step=run.step,
            steps=len(plan.steps),
            epoch=round(plan.epochs[run.step - 1], 3),
            **self._trainer.metrics._asdict(),
            learning_rate=self._trainer.learning_rate(run.step - 1),
            tokens=sum(plan.tokens[: run.step]),
            tokens_per_second=round(done / (elapsed - self._validating), 1),
            eta_seconds=round(left * elapsed / done, 1),
            memory_bytes=peak_memory_bytes(self._trainer.model.device),
        )
        self._log(
            **self._trainer.metrics._asdict(),
            learning_rate=self._trainer.learning_rate(run.step - 1),
            tokens=sum(plan.tokens[: run.step]),
            tokens_per_second=done / (elapsed - self._validating),
        )

    def _log(self, **figures: float | None) -> None:
        """Pass figures to the recipe's trackers, through transformers' callbacks for them."""
        if self._recipe.report_to:
            self._trainer.log({name: n for name, n in figures.items() if n is not None})

    def _validate(self) -> None:
        run, started = self._run, time.monotonic()
        metrics = self._trainer.validate()
        loss = metrics.loss
        self._validating += time.monotonic() - started
        best = run.best_loss is None or loss < run.best_loss
        if best:
            run.best_loss, run.best_step, run.worse = loss, run.step, 0
            self._trainer.remember_best()
        else:
            run.worse += 1
        self._progress.emit(ValidationEvent, step=run.step, best=best, **metrics._asdict())
        self._log(**{f"eval_{name}": n for name, n in metrics._asdict().items()})
