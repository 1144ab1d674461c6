"""Follows a run step by step: what it says, when it saves, when it ends."""

# ruff: noqa: TID253 - the second half of the door in training/finetuning/qlora.py

import time
from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.config import Recipe
from training.events import CheckpointEvent, EventWriter, StepEvent, ValidationEvent
from training.finetuning.checkpoint import CheckpointState
from training.finetuning.preparation import TrainingData
from training.finetuning.trainer import PlanTrainer

SAVE_SECONDS = 60.0  # from one checkpoint to the next at most, where steps are slow


class TrainingCallback(TrainerCallback):  # type: ignore[misc] # untyped
    """After each step: tells the loss, validates, saves, and stops the run when it should end."""

    trainer: PlanTrainer

    def __init__(
        self,
        recipe: Recipe,
        work: TrainingData,
        state: CheckpointState,
        *,
        progress: EventWriter,
        should_stop: Callable[[], bool],
    ) -> None:
        self._recipe, self._work, self._run = recipe, work, state
        self._progress, self._should_stop = progress, should_stop
        self._before = state.seconds
        self._validating = 0.0
        self.interrupted = False

    @property
    def stopped(self) -> str:
        """Why training has ended, or '' while it goes on."""
        if self._run.worse >= self._recipe.patience:
            return f"no better validation loss in {self._run.worse} validations"
        if self._run.step >= len(self._work.plan.steps):
            return "every step was taken"
        return ""

    def follow(self, work: TrainingData) -> None:
        """Take over a workload whose plan was shortened."""
        self._work = work

    def start(self) -> None:
        """Start the clock."""
        self._first, self._started = self._run.step, time.monotonic()
        self._saved = self._started

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
        run.step, run.train_loss = state.global_step, self.trainer.measured.loss
        elapsed = time.monotonic() - self._started
        run.seconds = self._before + elapsed
        self._tell_step(elapsed)
        last = run.step == len(self._work.plan.steps)
        if self._work.validation and (last or run.step % self._recipe.validate_every == 0):
            self._validate()
        if self.stopped:
            control.should_training_stop = True
            return
        self.interrupted = self._should_stop()
        waited = time.monotonic() - self._saved >= SAVE_SECONDS
        if self.interrupted or waited or run.step % self._recipe.checkpoint_every == 0:
            self.trainer.save_checkpoint()
            self._saved = time.monotonic()
            self._progress.emit(CheckpointEvent, step=run.step)
        control.should_training_stop = self.interrupted

    def _tell_step(self, elapsed: float) -> None:
        plan, run = self._work.plan, self._run
        done = sum(plan.tokens[self._first : run.step])
        left = sum(plan.tokens[run.step :])
        self._progress.emit(
            StepEvent,
            step=run.step,
            steps=len(plan.steps),
            epoch=round(plan.epochs[run.step - 1], 3),
            **self.trainer.measured._asdict(),
            learning_rate=self.trainer.step_rate,
            tokens=sum(plan.tokens[: run.step]),
            tokens_per_second=round(done / (elapsed - self._validating), 1),
            eta_seconds=round(left * elapsed / done, 1),
        )
        self._report(
            **self.trainer.measured._asdict(),
            learning_rate=self.trainer.step_rate,
            tokens=sum(plan.tokens[: run.step]),
            tokens_per_second=done / (elapsed - self._validating),
        )

    def _report(self, **figures: float | None) -> None:
        """Tell the recipe's trackers, through transformers' callbacks for them."""
        if self._recipe.report_to:
            self.trainer.log({name: n for name, n in figures.items() if n is not None})

    def _validate(self) -> None:
        run, started = self._run, time.monotonic()
        measured = self.trainer.validate()
        loss = measured.loss
        self._validating += time.monotonic() - started
        best = run.best_loss is None or loss < run.best_loss
        if best:
            run.best_loss, run.best_step, run.worse = loss, run.step, 0
            self.trainer.remember_best()
        else:
            run.worse += 1
        self._progress.emit(ValidationEvent, step=run.step, best=best, **measured._asdict())
        self._report(**{f"eval_{name}": n for name, n in measured._asdict().items()})
