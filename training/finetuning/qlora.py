"""Trains one adapter: NF4 base, LoRA, the method's loss. The same on CPU and GPU.

The run is a plan of steps, fixed by the seed before it starts. Killed at any moment and resumed,
it takes the same steps from its newest checkpoint and, on a CPU, ends with the same bytes.
"""

import errno
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil
import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    set_seed,
)

from training.adapters.package import LoraShape, TrainingSummary, read_manifest
from training.base_models.compute_dtype_probe import choose_for_run
from training.base_models.manifest import BaseModel, load_base
from training.base_models.quantize import load_nf4, quiet_libraries
from training.compute_dtype import TypeChoice, weights_fit
from training.config import Method, Recipe, TrainingSpec, method_recipe
from training.data.batching import truncate_plan
from training.data.chat_template import TrainingSequence, stop_token_ids
from training.data.tokenization import rows_of
from training.errors import ArtifactError, BadInput, Diverged, Interrupted
from training.events import (
    EstimateEvent,
    EventWriter,
    ResumedEvent,
    StageEvent,
)
from training.filesystem import sync_path, sync_tree, write_atomically
from training.finetuning.callback import TrainingCallback
from training.finetuning.checkpoint import CheckpointState, newest_checkpoint, read_state
from training.finetuning.estimate import Estimate, Footprint, disk_is_short, estimate, tokens_in
from training.finetuning.preference import DpoTrainer, KtoTrainer
from training.finetuning.preparation import TrainingData, packages, prepare
from training.finetuning.references import prepare_references
from training.finetuning.sft import SupervisedTrainer
from training.finetuning.trainer import PlanTrainer

TRAINED = "trained"
SUMMARY_FILE = "training.json"
TRAINERS: dict[Method, type[PlanTrainer]] = {
    "supervised": SupervisedTrainer,
    "dpo": DpoTrainer,
    "kto": KtoTrainer,
}
_PROBE_POSITIONS = 512
_QUICK_SECONDS = 5.0


class TrainedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """What `train` leaves: PEFT's two files in ``folder``, and this beside them.

    From scratch it leaves a whole model instead, and ``rank`` is 0.
    """

    folder: str
    summary: TrainingSummary
    rank: int
    alpha: float
    targets: tuple[str, ...]
    packages: dict[str, str]


class LoadedBase:
    """A base in memory: for one run, or for several that share it one after another.

    ``unpacked``: its quantised layers were dequantised once. ``speed``: (positions, seconds) of the first
    batch that was measured on it; later runs do not measure again.
    """

    def __init__(self, spec: TrainingSpec, out: Path, *, from_scratch: bool = False) -> None:
        """Load the NF4 base in the number type that this machine computes in faster.

        ``out`` keeps that choice, for a run that resumes. With ``from_scratch`` it is the base's architecture
        instead, with the weights that the spec's seed draws, in float32 wherever it runs: a model this far from
        done needs small updates, which bf16 weights lose.

        Raises:
            BaseModelError: the base is not whole.
        """
        folder = Path(spec.base)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.base: BaseModel = load_base(folder)
        self.from_scratch = from_scratch
        self.speed: tuple[int, float] | None = None
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / "nf4")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if from_scratch:
            self.computing = TypeChoice(type="float32", reason="every weight is trained")
            self.unpacked = True
            self.model: PreTrainedModel = _random_model(folder, spec.seed).to(device)
            return
        self.computing = choose_for_run(folder, spec.recipe, out).choices["training"]
        self.unpacked = device == "cpu" and weights_fit(
            self.computing.type,
            parameters=self.base.parameters,
            free_bytes=int(psutil.virtual_memory().available),
        )
        dtype = getattr(torch, self.computing.type)
        self.model = load_nf4(folder / "nf4", device=device, dtype=dtype, unpacked=self.unpacked)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a reply."""
        return stop_token_ids(self.tokenizer, self.model.generation_config)


def _random_model(folder: Path, seed: int) -> PreTrainedModel:
    set_seed(seed)
    config = AutoConfig.from_pretrained(folder / "serving")
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def train(
    spec: TrainingSpec,
    out: Path,
    progress: EventWriter,
    *,
    resume: bool,
    should_stop: Callable[[], bool],
    from_scratch: bool = False,
) -> TrainedAdapter:
    """Train, and leave the weights with the lowest validation loss in ``out/trained``, by rename.

    ``out`` is an existing folder, where checkpoints are kept too. With ``resume``, the run goes on from
    the newest of them; otherwise they are removed. After each step ``should_stop`` is asked whether to
    save and end.

    With ``from_scratch`` the base's architecture is trained from random weights instead, all of them and
    in float32; ``trained`` is then a whole model, and the run has no checkpoints.

    Example::

        progress = EventWriter(out / "events.jsonl")
        trained = train(load_spec(path), out, progress, resume=True, should_stop=lambda: False)
        print(trained.summary.validation_loss, trained.folder)

    Raises:
        BadInput: there is nothing to train on, or a checkpoint is of another run.
        BaseModelError: the base is not whole.
        Interrupted: ``should_stop`` said so; a checkpoint is on disk.
        OSError: the disk has no room (``ENOSPC``).
        Diverged: the loss is no longer a number.
    """
    quiet_libraries()
    shown = prepare_references(spec, out, progress, should_stop=should_stop)
    progress.emit(StageEvent, stage="loading", detail=f"base {Path(spec.base).name}")
    loaded = LoadedBase(spec, out, from_scratch=from_scratch)
    data = prepare(spec, loaded.tokenizer, stop_ids=loaded.stop_ids, shown=shown)
    trainer, stopped = fit(
        spec, loaded, data, out, progress, resume=resume, should_stop=should_stop
    )
    return _write(trainer, out=out, stopped=stopped)


def fit(
    spec: TrainingSpec,
    loaded: LoadedBase,
    data: TrainingData,
    out: Path,
    progress: EventWriter,
    *,
    resume: bool,
    should_stop: Callable[[], bool],
    watch: Callable[[PlanTrainer], TrainerCallback] | None = None,
) -> tuple[PlanTrainer, str]:
    """Train on a base that is loaded; return the trainer with the best weights, and why it ended.

    For runs that share a base: call the trainer's ``release`` before the next one. What is not said here
    is as in `train`, which writes the weights too.

    Args:
        spec: The run.
        loaded: Its base, without an adapter.
        data: From `prepare`, for this spec.
        out: An existing folder.
        progress: Gets the events.
        resume: Go on from the newest checkpoint.
        should_stop: Asked after each step whether to save and end.
        watch: Makes a further callback, which is called after ours and may end the run early: the reason
            is '' then.

    Raises:
        BadInput: a checkpoint is of another run.
        Diverged: the loss is no longer a number; the base is without an adapter again.
        Interrupted: ``should_stop`` said so; a checkpoint is on disk.
        OSError: the disk has no room (``ENOSPC``).
    """
    checkpoints = _checkpoint_folder(out, resume=resume)
    checkpoint, state = _newest_state(checkpoints, data, loaded.computing)
    trainer = _trainer(spec, loaded, data, state, checkpoints=checkpoints)

    choice = loaded.computing
    progress.emit(
        StageEvent, stage="estimating", detail=f"computes in {choice.type}: {choice.reason}"
    )
    trainer.follow(_estimate(trainer, loaded, progress=progress, out=out))

    progress.emit(StageEvent, stage="training", detail=_description(trainer, spec.method))
    if checkpoint:
        progress.emit(ResumedEvent, step=state.step)
        trainer.load_best(checkpoint)
    callback = TrainingCallback(trainer, progress=progress, should_stop=should_stop)
    trainer.add_callback(callback)
    if watch is not None:
        trainer.add_callback(watch(trainer))
    if not callback.stopped:
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except Diverged:
            trainer.release()
            raise
    if callback.interrupted:
        raise Interrupted(f"stopped after step {state.step} of {len(trainer.data.plan.steps)}")
    trainer.restore_best()
    return trainer, callback.stopped


def load_trained(out: Path) -> TrainedAdapter | None:
    """What an earlier `train` left in ``out``, or None."""
    path = out / TRAINED / SUMMARY_FILE
    return msgspec.json.decode(path.read_bytes(), type=TrainedAdapter) if path.is_file() else None


def _checkpoint_folder(out: Path, *, resume: bool) -> Path:
    """The folder of checkpoints, empty unless the run resumes."""
    folder = out / "checkpoints"
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _newest_state(
    checkpoints: Path, data: TrainingData, computing: TypeChoice
) -> tuple[Path | None, CheckpointState]:
    """The newest checkpoint and its state; a new state where there is none.

    Raises:
        BadInput: the checkpoint is of another run.
    """
    checkpoint = newest_checkpoint(checkpoints)
    state = (
        read_state(checkpoint, data.fingerprint)
        if checkpoint
        else CheckpointState(fingerprint=data.fingerprint)
    )
    if computing.type not in state.types:
        state.types.append(computing.type)
    return checkpoint, state


def _trainer(
    spec: TrainingSpec,
    loaded: LoadedBase,
    data: TrainingData,
    state: CheckpointState,
    *,
    checkpoints: Path,
) -> PlanTrainer:
    """The method's trainer on a new adapter, on the one to start with, or on all of the model."""
    recipe = method_recipe(spec)
    computing, wanted = loaded.computing.type, recipe.adapter_dtype
    return TRAINERS[spec.method](
        loaded.model,
        lora=None if loaded.from_scratch else _lora(spec, recipe, loaded.base),
        start=Path(spec.start_adapter) if spec.start_adapter is not None else None,
        recipe=recipe,
        tokenizer=loaded.tokenizer,
        data=data,
        state=state,
        out=checkpoints,
        seed=spec.seed,
        adapter_dtype=getattr(torch, computing if wanted == "auto" else wanted),
    )


def _description(trainer: PlanTrainer, method: Method) -> str:
    """What is trained on, for people."""
    data = trainer.data
    what = {"supervised": "sequences", "dpo": "pairs of replies", "kto": "judged replies"}
    device = trainer.args.device.type
    detail = f"{len(data.train)} {what[method]} on {device}, {data.plan.padding:.1%} padding"
    if data.skipped:
        detail += f"; {data.skipped} conversations are too long for max_length and skipped"
    return detail


def _lora(spec: TrainingSpec, recipe: Recipe, base: BaseModel) -> LoraConfig:
    """The recipe's shape, or that of the adapter to start with.

    Raises:
        BadInput: that adapter cannot be read, or is of another base.
    """
    rank, alpha, targets = recipe.rank, float(recipe.alpha), recipe.targets
    if spec.start_adapter is not None:
        try:
            start = read_manifest(Path(spec.start_adapter))
        except ArtifactError as exc:
            raise BadInput(f"the adapter to start with: {exc}") from exc
        if start.base.serving_sha256 != base.serving_sha256:
            raise BadInput(
                f"the adapter to start with ({spec.start_adapter}) was trained on another base, "
                f"{start.base.name!r}; train on that, or start with none"
            )
        rank, alpha, targets = start.lora.rank, start.lora.alpha, start.lora.targets
    return LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear" if targets == ("all-linear",) else list(targets),
        task_type="CAUSAL_LM",
    )


def _estimate(
    trainer: PlanTrainer, loaded: LoadedBase, *, progress: EventWriter, out: Path
) -> TrainingData:
    """Measure one small batch, and say what the run needs before it starts.

    Returns the data, with a shortened plan where the recipe has a budget of time and it needs more.

    Raises:
        OSError: the disk has no room for it (``ENOSPC``).
    """
    recipe, data, state = trainer.recipe, trainer.data, trainer.run_state
    loaded.speed = loaded.speed or _measure_speed(trainer)
    measured, seconds = loaded.speed
    adapter_bytes = sum(p.numel() * p.element_size() for p in trainer.weights().values())
    footprint = Footprint(
        type=loaded.computing.type, unpacked=loaded.unpacked, adapter_bytes=adapter_bytes
    )

    def estimated(data: TrainingData, note: str = "") -> Estimate:
        return estimate(
            data.plan,
            recipe=recipe,
            base=data.base,
            footprint=footprint,
            positions_per_second=measured / seconds,
            widest_batch=data.widest_batch,
            validation_positions=data.validation_positions,
            forwards=trainer.forwards,
            first_step=state.step,
            basis=f"a first batch of {measured} tokens took {seconds:.1f} s here{note}",
        )

    found = estimated(data)
    whole = sum(data.plan.tokens)
    if not state.step:
        least = recipe.min_train_tokens
        state.tokens = tokens_in(recipe.train_minutes, least=least, estimated=found)
    if state.tokens:
        data = msgspec.structs.replace(data, plan=truncate_plan(data.plan, state.tokens))
        note = f"; shortened from {whole:,} tokens to fit {recipe.train_minutes:g} minutes"
        if state.tokens <= recipe.min_train_tokens:
            note = (
                f"; shortened from {whole:,} tokens to the least of this recipe, which takes longer "
                f"here than its {recipe.train_minutes:g} minutes"
            )
        found = estimated(data, note)
    progress.emit(
        EstimateEvent,
        seconds=round(found.seconds, 1),
        memory_bytes=found.memory_bytes,
        train_tokens=found.train_tokens,
        steps=found.steps,
        basis=found.basis,
    )
    if short := disk_is_short(out, found.disk_bytes):
        raise OSError(errno.ENOSPC, short)
    return data


def measure_speed(
    spec: TrainingSpec, loaded: LoadedBase, data: TrainingData, out: Path
) -> tuple[int, float]:
    """(positions, seconds) of one batch on a base that has no adapter; kept as its ``speed``."""
    state = CheckpointState(fingerprint=data.fingerprint)
    trainer = _trainer(spec, loaded, data, state, checkpoints=out)
    loaded.speed = _measure_speed(trainer)
    trainer.release()
    return loaded.speed


def _measure_speed(trainer: PlanTrainer) -> tuple[int, float]:
    """(positions, seconds) of one batch of middling sequences, forward and back."""
    rows = [row for example in trainer.data.train for row in rows_of(example)]
    rows.sort(key=lambda row: len(row.token_ids))
    middle = len(rows) // 2
    width = len(rows[middle].token_ids)
    probe = rows[middle : middle + max(1, _PROBE_POSITIONS // width)]
    seconds = _probe_seconds(trainer, probe)
    if seconds < _QUICK_SECONDS:  # the first pass also builds kernels
        seconds = min(seconds, _probe_seconds(trainer, probe))
    return len(probe) * max(len(row.token_ids) for row in probe), seconds


def _probe_seconds(trainer: PlanTrainer, probe: Sequence[TrainingSequence]) -> float:
    """Seconds of one batch forward and back; weights and random numbers stay as they were."""
    started = time.monotonic()
    with torch.random.fork_rng():
        trainer.score_rows(probe).log_probs.sum().backward()
    seconds = time.monotonic() - started
    trainer.model.zero_grad()
    return seconds


def _write(trainer: PlanTrainer, *, out: Path, stopped: str) -> TrainedAdapter:
    """Save the weights, by rename, and return what was saved."""
    run, plan = trainer.run_state, trainer.data.plan
    partial, target = out / f".{TRAINED}.partial", out / TRAINED
    shutil.rmtree(partial, ignore_errors=True)
    if trainer.trains_all:
        trainer.model.save_pretrained(partial)
        shape = LoraShape(rank=0, alpha=0.0, targets=())
    else:
        shape = _save_peft(trainer.model, partial, base_name=trainer.data.base.name)
    trained = TrainedAdapter(
        folder=str(target),
        summary=TrainingSummary(
            steps=run.step,
            epochs=round(plan.epochs[run.step - 1], 3),
            tokens=sum(plan.tokens[: run.step]),
            seconds=round(run.seconds, 1),
            train_loss=run.train_loss,
            validation_loss=run.best_loss,
            stopped=f"{stopped}; best at step {run.best_step}" if run.best_step else stopped,
            computed_in=tuple(run.types),
        ),
        rank=shape.rank,
        alpha=shape.alpha,
        targets=shape.targets,
        packages=packages(),
    )
    write_atomically(partial / SUMMARY_FILE, msgspec.json.encode(trained))
    sync_tree(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync_path(out)
    return trained


def _save_peft(model: PeftModel, folder: Path, *, base_name: str) -> LoraShape:
    """Write weights and config and nothing else; return the shape, with the names of the adapted layers.

    The config is made reproducible: PEFT writes a set in any order, and this machine's paths.
    """
    model.save_pretrained(folder, selected_adapters=["default"])
    for path in folder.iterdir():
        if path.name not in ("adapter_model.safetensors", "adapter_config.json"):
            path.unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_bytes())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    lora = model.peft_config["default"]
    return LoraShape(rank=lora.r, alpha=lora.lora_alpha, targets=tuple(config["target_modules"]))
