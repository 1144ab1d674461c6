"""Trains one trial after another on one base in memory, and scores each at its rungs.

Trials share the base, the index of past exchanges and the tokens of the dataset. A trial is the run that
a job would make with its recipe, up to the rung where it ends; killed, it goes on at its checkpoint.
Scores are of the validation split: the test split is for the report of what a job trains later.
"""

import gc
import math
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from connectors.conversation import Split
from training.adapters.package import INDEX_NAME
from training.base_models.quantize import quiet_libraries
from training.config import TrainingSpec
from training.data.batching import length_batches
from training.data.chat_template import TrainingSequence
from training.data.dataset import load
from training.data.tokenization import ExampleTokenizer, rows_of, token_count
from training.errors import BadInput
from training.events import EventWriter, StageEvent
from training.finetuning.preparation import (
    TokenizedSplits,
    TrainingData,
    examples_of,
    prepare,
    tokenize,
)
from training.finetuning.qlora import LoadedBase, fit, measure_speed
from training.finetuning.references import build_index, find_shown
from training.finetuning.trainer import PlanTrainer
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import Shown
from training.sweeps.config import Setting, with_setting
from training.sweeps.records import Loss, Rung

SCORED = 64
"""Validation conversations that finished trials are scored on, at most."""

Scored = dict[str, TrainingSequence]
"""By conversation."""


class AtRung(Protocol):
    """Keeps a trial's score at rung ``number``; returns whether the trial goes on."""

    def __call__(self, number: int, rung: Rung) -> bool:
        """Called once for each rung, in their order."""
        ...


class _Material(NamedTuple):
    """What trials with one number of references read."""

    shown: dict[Split, Shown]
    tokenized: TokenizedSplits
    scored: Scored


class Workbench:
    """The base in memory, and what trials read, by the number of references.

    Args:
        spec: The control's run.
        references: The numbers that are tried.
        out: The sweep's folder, where the index is kept.
        progress: Gets the stages.
        should_stop: Whether to end while texts are indexed.

    Raises:
        BadInput: nothing can be trained on, or no validation conversation fits whole.
        BaseModelError: the base is not whole.
        Interrupted: ``should_stop`` said so.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        references: Sequence[int],
        *,
        out: Path,
        progress: EventWriter,
        should_stop: Callable[[], bool],
    ) -> None:
        quiet_libraries()
        self._spec = spec
        index = _load_index(spec, out, progress, should_stop) if any(references) else None
        progress.emit(StageEvent, stage="loading", detail=f"base {Path(spec.base).name}, once")
        self._loaded = LoadedBase(spec, out)
        self._material = _comparable(
            {count: self._read(count, index if count else None) for count in references},
            control=spec.recipe.references,
        )
        if not self._material[spec.recipe.references].scored:
            raise BadInput(
                f"no validation conversation of {spec.dataset} fits whole into max_length "
                f"{spec.recipe.max_length}: bring more conversations, or raise it"
            )

    @property
    def references(self) -> tuple[int, ...]:
        """The numbers that can be compared."""
        return tuple(self._material)

    def data(self, spec: TrainingSpec) -> TrainingData:
        """A run's data, out of what is tokenised already."""
        material = self._material[spec.recipe.references]
        return prepare(
            spec,
            self._loaded.tokenizer,
            stop_ids=self._loaded.stop_ids,
            shown=material.shown,
            tokenized=material.tokenized,
        )

    def train(
        self,
        setting: Setting,
        known: Sequence[Rung],
        rungs: Sequence[int],
        at_rung: AtRung,
        *,
        out: Path,
        progress: EventWriter,
        should_stop: Callable[[], bool],
    ) -> bool:
        """Train one trial until it is not to go on, and return whether it has taken its last step.

        Args:
            setting: What differs from the control.
            known: The rungs that it had reached before it was stopped.
            rungs: Tokens of training at each rung.
            at_rung: Called at each new one.
            out: For checkpoints; removed when the trial has ended.
            progress: Gets the events.
            should_stop: Asked after each step whether to save and end.

        Raises:
            Interrupted: ``should_stop`` said so; a checkpoint is on disk.
            Diverged: the loss is no longer a number.
        """
        recipe = with_setting(self._spec.recipe, setting)
        recipe = msgspec.structs.replace(
            recipe, max_train_tokens=rungs[-1], train_minutes=0.0, report_to=()
        )
        spec = msgspec.structs.replace(self._spec, recipe=recipe)
        data = self.data(spec)
        few = recipe.validation_conversations
        scored = self._material[setting.references].scored
        watch = _Watch(data, dict(list(scored.items())[:few]), rungs, known, at_rung)
        out.mkdir(exist_ok=True)
        trainer, stopped = fit(
            spec,
            self._loaded,
            data,
            out,
            progress,
            resume=True,
            should_stop=should_stop,
            watch=watch.of,
        )
        if stopped:
            watch.score_last(trainer, scored)
        trainer.release()
        del trainer, watch
        gc.collect()  # trainers are full of cycles, and hold the optimiser's memory
        shutil.rmtree(out)
        return bool(stopped)

    @property
    def whole_run(self) -> int:
        """Tokens of the control's run where nothing cuts it short."""
        return sum(self.data(self._spec).plan.tokens)

    @property
    def longest_pass(self) -> int:
        """Tokens of one pass over the training split, with the references that make it longest."""
        return max(
            sum(map(token_count, material.tokenized.train)) for material in self._material.values()
        )

    def measure(self, out: Path) -> tuple[int, float]:
        """(positions, seconds) of a first batch of the control, forward and back."""
        return measure_speed(self._spec, self._loaded, self.data(self._spec), out)

    def _read(self, count: int, index: ExchangeIndex | None) -> _Material:
        recipe = self._spec.recipe
        spec = _with(self._spec, references=count)
        wider = _with(spec, validation_conversations=max(SCORED, recipe.validation_conversations))
        dataset, loaded = load(Path(spec.dataset)), self._loaded
        shown = find_shown(wider, dataset, index)
        tokenizer = ExampleTokenizer(
            dataset, loaded.tokenizer, stop_ids=loaded.stop_ids, max_length=recipe.max_length
        )
        scored = {
            example.id: row
            for example in examples_of(wider, dataset, "validation")
            for item in tokenizer.items(example, shown.get("validation", {}).get(example.id))
            for row in rows_of(item)
        }
        tokenized = tokenize(spec, loaded.tokenizer, stop_ids=loaded.stop_ids, shown=shown)
        return _Material(shown, tokenized, scored)


class _Watch(TrainerCallback):  # type: ignore[misc] # untyped
    """Scores a trial at its rungs, and ends it where it is not to go on.

    The last rung is not one of its own: it is scored with the best weights, once training has ended.
    """

    def __init__(
        self,
        data: TrainingData,
        scored: Scored,
        rungs: Sequence[int],
        known: Sequence[Rung],
        at_rung: AtRung,
    ) -> None:
        self._scored, self._rungs, self._at_rung = scored, rungs, at_rung
        ends = list(accumulate(data.plan.tokens))
        self._steps = [min(bisect_left(ends, tokens) + 1, len(ends)) for tokens in rungs[:-1]]
        self._next = len(known)
        self._seconds = math.fsum(rung.seconds for rung in known)

    def of(self, trainer: PlanTrainer) -> "_Watch":
        """Watch this trainer."""
        self._trainer = trainer
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by the trainer: it may have been stopped just before a rung was scored."""
        self.on_step_end(args, state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by the trainer when a step's weights are in place."""
        del args
        while (
            not control.should_training_stop
            and self._next < len(self._steps)
            and state.global_step >= self._steps[self._next]
        ):
            if not self._score(self._scored):
                control.should_training_stop = True

    def score_last(self, trainer: PlanTrainer, scored: Scored) -> None:
        """Training has taken its last step, perhaps before a rung."""
        self._trainer = trainer
        while self._next < len(self._rungs):
            last = self._next == len(self._rungs) - 1
            self._score(scored if last else self._scored)

    def _score(self, scored: Scored) -> bool:
        started, number = time.monotonic(), self._next
        losses = conversation_losses(self._trainer, scored)
        trained = self._trainer.run_state.seconds - self._seconds  # since the rung before
        rung = Rung(
            tokens=self._rungs[number],
            seconds=max(trained, 0.0) + time.monotonic() - started,
            losses=losses,
        )
        self._seconds += rung.seconds
        self._next += 1
        return self._at_rung(number, rung)


def conversation_losses(trainer: PlanTrainer, scored: Scored) -> dict[str, Loss]:
    """Of each conversation, the nats of its assistant tokens under the weights as they are."""
    names, rows = list(scored), list(scored.values())
    batches = length_batches(
        [len(row.token_ids) for row in rows], max_tokens=trainer.data.batch_tokens
    )
    found: dict[str, Loss] = {}
    trainer.model.eval()
    with torch.no_grad():
        for batch in batches:
            log_probs = trainer.score_rows([rows[i] for i in batch]).log_probs
            for i, nats in zip(batch, (-log_probs.double().sum(1)).tolist(), strict=True):
                found[names[i]] = Loss(nats, sum(rows[i].loss_mask))
    trainer.model.train()
    return {name: found[name] for name in names}


def _comparable(materials: Mapping[int, _Material], *, control: int) -> dict[int, _Material]:
    """The numbers of references that can be compared, scored on the same assistant tokens.

    What a reply is shown may push an old exchange out of ``max_length``, and the loss of its reply with it:
    such a conversation is not scored. A number that would leave less than half of them is not tried.
    """
    counts = {
        count: {name: sum(row.loss_mask) for name, row in each.scored.items()}
        for count, each in materials.items()
    }
    whole = counts[min(counts)]  # with the fewest shown
    common = {name for name, tokens in counts[control].items() if whole.get(name) == tokens}
    kept = []
    for count in sorted(counts, key=lambda count: (count != control, count)):
        both = {name for name in common if counts[count].get(name) == whole[name]}
        if count == control or 2 * len(both) >= len(common):
            kept.append(count)
            common = both
    return {
        count: materials[count]._replace(
            scored={k: v for k, v in materials[count].scored.items() if k in common}
        )
        for count in sorted(kept)
    }


def _with(spec: TrainingSpec, **changes: int) -> TrainingSpec:
    return msgspec.structs.replace(spec, recipe=msgspec.structs.replace(spec.recipe, **changes))


def _load_index(
    spec: TrainingSpec, out: Path, progress: EventWriter, should_stop: Callable[[], bool]
) -> ExchangeIndex:
    path = out / INDEX_NAME
    if not path.is_file():
        progress.emit(StageEvent, stage="indexing", detail="past exchanges, by meaning, once")
        build_index(load(Path(spec.dataset)), should_stop=should_stop).save(path)
    return ExchangeIndex.load(path)
