"""How much less data, how much less time? What a version's tokens make without its head start.

Each control trains on as many tokens as the version did, with the version's recipe, and is scored on
the same held-out conversations:

- *the learning curve*: adapters on 10, 25 and 50 % of the training conversations, each within the next; the
  version itself is the point of 100 %;
- *from scratch*: the base's architecture and tokenizer with random weights, all of them trained.

Equal tokens, and not equal epochs: a tenth of the data in a tenth of the steps would show what too few
steps do. So the smaller parts are read more often, and as for the version the weights are kept that
validate best.

What is finished is a file and is not computed again. A part of the curve goes on at its checkpoint:

    controls/<name>.json    `ScoredControl`
    controls/<name>/        a run as any other; removed once it is scored
    controls.json           `training.results.Controls`
"""

import gc
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import torch

from training.adapters.package import INDEX_NAME, TrainingSummary
from training.base_models.manifest import load_base
from training.compute_dtype import COMPUTE_FILE, MachineChoices, save_choices
from training.config import Recipe, TrainingSpec
from training.controls.scoring import ScoredControl, Trained, score_control
from training.data.dataset import Dataset, create_subset
from training.data.dataset import load as load_dataset
from training.errors import BadInput
from training.evaluation.heldout import SPLIT
from training.evaluation.scores import loss_change
from training.events import EvaluationEvent, EventWriter, StageEvent, StepEvent
from training.filesystem import load_or_compute
from training.finetuning.estimate import Footprint, batch_limit, memory_bytes
from training.finetuning.qlora import load_trained, train
from training.results import CONTROLS_FILE, Controls
from training.signals import Stopper

FOLDER = "controls"
SHARES = (0.1, 0.25, 0.5)
SCRATCH_RATE = 1e-3  # ``training/LOG.md`` has what others did
SCRATCH_WARMUP = 0.1
SCRATCH_COST = 1.6  # a step's seconds over those of an adapter's
_MIN_CONVERSATIONS = 10  # to take parts of


class _Control(NamedTuple):
    """One model to train; ``subject`` is what events call it."""

    name: str
    subject: str
    conversations: int
    from_scratch: bool = False


def reason_against(spec: TrainingSpec, dataset: Dataset) -> str | None:
    """Why a version of this spec has no such controls; None where it has."""
    counts = dataset.manifest.counts
    if spec.method != "supervised":
        return f"it is for adapters that learn replies, not for {spec.method}"
    if spec.imported is not None:
        return "the adapter was trained elsewhere"
    if spec.start_adapter is not None:
        return "the adapter began with another one, and knows what that had learnt"
    if not counts.get(SPLIT):
        return "no conversation was held out"
    if counts.get("train", 0) < _MIN_CONVERSATIONS:
        return f"there are fewer than {_MIN_CONVERSATIONS} training conversations to take parts of"
    return None


def measure_controls(
    spec: TrainingSpec,
    version: Trained,
    out: Path,
    progress: EventWriter,
    *,
    computing: MachineChoices,
    stopper: Stopper,
) -> Controls:
    """Train and score what is not there yet, and leave ``controls.json`` in ``out``.

    Args:
        spec: The version's.
        version: What the controls are for. Its summary says how many tokens they get.
        out: An existing folder, owned by this run.
        progress: Gets an `EvaluationEvent` after each step and each batch of a control.
        computing: The types to compute in: all controls in the same.
        stopper: Entered. After it has stopped a call, the next one goes on there.

    Raises:
        BadInput: see `reason_against`, or nothing held out fits into the recipe's ``max_length``.
        Interrupted: a signal came; what is done is kept.
    """
    controls = load_or_compute(
        out / CONTROLS_FILE,
        Controls,
        lambda: _measure(
            spec, version, out / FOLDER, progress, computing=computing, stopper=stopper
        ),
    )
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return controls


def _measure(
    spec: TrainingSpec,
    version: Trained,
    folder: Path,
    progress: EventWriter,
    *,
    computing: MachineChoices,
    stopper: Stopper,
) -> Controls:
    dataset = load_dataset(Path(spec.dataset))
    if (reason := reason_against(spec, dataset)) is not None:
        raise BadInput(f"no full evaluation: {reason}")
    count = dataset.manifest.counts["train"]
    parts = [
        _Control(f"{share:.0%}", f"{share:.0%} of the data", max(1, round(share * count)))
        for share in SHARES
    ]
    scratch = _Control("scratch", "from scratch", count, from_scratch=True)
    short = _memory_short(spec)
    trained = parts if short else [scratch, *parts]
    progress.emit(
        StageEvent,
        stage="evaluating",
        detail=f"full: {_expectation(version.summary, trained)}{short and f'; {short}'}",
    )
    folder.mkdir(exist_ok=True)
    whole = _Control("100%", "100% of the data", count)

    def scored(control: _Control) -> ScoredControl:
        model = version
        if control is not whole:
            model = _train(
                control,
                spec,
                dataset,
                folder / control.name,
                tokens=version.summary.tokens,
                computing=computing,
                progress=progress,
                stopper=stopper,
            )
        return score_control(
            spec,
            model,
            conversations=control.conversations,
            dtype=getattr(torch, computing.choices["evaluation"].type),
            progress=progress,
            subject=f"scoring {control.subject}",
        )

    found: dict[str, ScoredControl] = {}
    for control in [whole, *trained]:
        path = folder / f"{control.name}.json"
        found[control.name] = load_or_compute(path, ScoredControl, lambda: scored(control))  # noqa: B023
        shutil.rmtree(folder / control.name, ignore_errors=True)
        gc.collect()  # trainers refer to themselves
    new, half, random = found[whole.name], found[parts[-1].name], found.get(scratch.name)
    return Controls(
        tokens=version.summary.tokens,
        curve=tuple(found[each.name].control for each in [*parts, whole]),
        scratch=random.control if random else None,
        scratch_rate=SCRATCH_RATE,
        scratch_note=short,
        pretraining=loss_change(new.losses, random.losses, seed=spec.seed) if random else None,
        last_doubling=loss_change(new.losses, half.losses, seed=spec.seed),
    )


def _expectation(version: TrainingSummary, trained: list[_Control]) -> str:
    """What it will take, by the version's own speed."""
    runs = sum(SCRATCH_COST if each.from_scratch else 1.0 for each in trained)
    return (
        f"{len(trained)} further runs of {version.tokens:,} tokens, about "
        f"{version.seconds * runs / 60:.1f} minutes where this version took "
        f"{version.seconds / 60:.1f}, and their scores"
    )


def _memory_short(spec: TrainingSpec) -> str:
    """Why nothing can be trained from scratch here; '' where the memory is there."""
    base = load_base(Path(spec.base))
    needed = memory_bytes(
        batch_limit(spec.recipe),
        recipe=spec.recipe,
        base=base,
        # the weights are all trained: each has a gradient, two moments, and a copy of its best
        footprint=Footprint(type="float32", unpacked=True, adapter_bytes=4 * base.parameters),
    )
    cuda = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if cuda else psutil.virtual_memory().available
    if needed <= free:
        return ""
    return (
        f"nothing was trained from scratch: that takes {needed / 2**30:.1f} GiB of memory, and "
        f"{free / 2**30:.1f} GiB were free"
    )


def _train(
    control: _Control,
    spec: TrainingSpec,
    dataset: Dataset,
    run: Path,
    *,
    tokens: int,
    computing: MachineChoices,
    progress: EventWriter,
    stopper: Stopper,
) -> Trained:
    """Train a control in the folder ``run``, or go on there."""
    trained = load_trained(run)
    if trained is None:
        run.mkdir(exist_ok=True)
        save_choices(run / COMPUTE_FILE, computing)
        if not control.from_scratch:
            size = control.conversations
            dataset = create_subset(dataset, run, conversations=size, seed=spec.seed)
        with stopper.deferred():
            trained = train(
                msgspec.structs.replace(
                    spec,
                    dataset=str(dataset.folder),
                    recipe=_recipe(spec.recipe, tokens, control),
                    live_adapter=None,
                ),
                run,
                _ControlEvents(progress, f"training {control.subject}"),
                resume=True,
                should_stop=lambda: stopper.requested,
                from_scratch=control.from_scratch,
            )
    index = run / INDEX_NAME
    return Trained(
        Path(trained.folder),
        index if index.is_file() else None,
        trained.summary,
        whole=control.from_scratch,
    )


def _recipe(recipe: Recipe, tokens: int, control: _Control) -> Recipe:
    """The version's, for as many tokens as it took."""
    recipe = msgspec.structs.replace(
        recipe,
        epochs=float(tokens),  # no bound beside that of tokens
        max_train_tokens=tokens,
        train_minutes=0.0,
        report_to=(),
    )
    if not control.from_scratch:
        return recipe
    return msgspec.structs.replace(recipe, learning_rate=SCRATCH_RATE, warmup_ratio=SCRATCH_WARMUP)


class _ControlEvents(EventWriter):
    """A control's training as progress of the evaluation: its steps are not the version's."""

    def __init__(self, progress: EventWriter, subject: str) -> None:
        self._progress, self._subject = progress, subject

    def emit(self, kind: type[Any], **fields: Any) -> None:  # noqa: ANN401 - the struct checks
        """Pass on how many steps are done, and nothing else."""
        if kind is StepEvent:
            self._progress.emit(
                EvaluationEvent,
                subject=self._subject,
                done=fields["step"],
                total=fields["steps"],
            )
