"""One run from spec to adapter: load, train, evaluate, write.

Each stage leaves its result in the output folder by rename, and is skipped when that is there:

    compute.json       the types that the machine computes in, and why
    trained/           the best weights                 (checkpoints/ while training)
                       or those of an adapter that was trained elsewhere
                       with retrieval.safetensors, the index of what is shown, where the recipe says so
    evaluation.json    `training.results.Evaluation`
    parity.json        the trainer's log-probabilities, to compare with the engine's
    controls.json      what is trained beside the adapter, to compare it with, where the recipe has
                       ``full_evaluation``: `training.controls.measure`
    adapter/           weights, config and manifest: the finished adapter, written last
"""

import errno
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from training.adapters.foreign import read_imported
from training.adapters.package import (
    INDEX_NAME,
    AdapterManifest,
    BaseRef,
    KnowledgeRef,
    LoraShape,
    read_manifest,
    write_manifest,
)
from training.base_models.manifest import load_base
from training.config import Method, TrainingSpec, load_spec
from training.data.dataset import Kind
from training.data.dataset import load as load_dataset
from training.errors import BadInput, BaseModelError, Interrupted
from training.events import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ErrorEvent,
    EventWriter,
    ResultEvent,
    StageEvent,
)
from training.filesystem import load_or_compute, sync_path, sync_tree
from training.finetuning.trackers import keep_local, what_to_install
from training.locks import locked
from training.results import CONTROLS_FILE, Evaluation, ParitySample
from training.signals import Stopper

if TYPE_CHECKING:
    from training.controls.scoring import Trained
    from training.finetuning.qlora import TrainedAdapter

ADAPTER = "adapter"
EVALUATION_FILE = "evaluation.json"
PARITY_FILE = "parity.json"
CONTROLS = "controls"  # `training.controls.measure` works in it
SHOWN_FILE = "shown.json"
DATASET_KINDS: dict[Method, Kind] = {
    "supervised": "conversations",
    "dpo": "preferences",
    "kto": "judgements",
}
_WEIGHT_FILES = ("adapter_model.safetensors", "adapter_config.json")
# What torch, on either device, and the process's allocator say when memory runs out.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def run(spec_path: Path, out: Path, *, resume: bool, stopper: Stopper | None = None) -> int:
    """Run a spec and return the exit code of `training.events`.

    Progress and errors are events, on standard output and in ``out/events.jsonl``. A second run in
    the same folder waits for the first.

        status = run(Path("spec.json"), Path("out"), resume=False)
        if status == EXIT_OK:
            manifest = read_manifest(Path("out") / ADAPTER)

    Args:
        spec_path: A `TrainingSpec` as JSON.
        out: The run's folder; made where it is missing, and owned by this run.
        resume: Keep finished stages and train on from the newest checkpoint. Without it, the
            results of an earlier run in ``out`` are removed.
        stopper: Watches for signals; by default one without a time limit. Must not be entered yet.
    """

    def work(progress: EventWriter, stopper: Stopper) -> Path:
        _stages(load_spec(spec_path), out, progress, resume=resume, stopper=stopper)
        return out / ADAPTER

    return run_guarded(work, out, stopper=stopper)


def run_controls(
    spec_path: Path, out: Path, adapter: Path, *, resume: bool, stopper: Stopper | None = None
) -> int:
    """Train and score the controls of a finished adapter; as `run`, but ``out`` gets ``controls.json``.

    Args:
        spec_path: As of `run`: the spec that the adapter was made by.
        out: A folder for this alone.
        adapter: The folder of the finished adapter; only read.
        resume: Go on where an earlier call stopped. Without it, its results are removed.
        stopper: As of `run`.
    """

    def work(progress: EventWriter, stopper: Stopper) -> Path:
        spec = load_spec(spec_path)
        validate(spec)
        if not resume:
            _remove_controls(out)
        from training.controls.scoring import Trained  # noqa: PLC0415 - loads torch

        summary = read_manifest(adapter).training
        if summary is None or not summary.tokens:
            raise BadInput("no full evaluation: the adapter was trained elsewhere")
        index = adapter / INDEX_NAME
        trained = Trained(adapter, index if index.is_file() else None, summary)
        _measure_controls(spec, trained, out, progress, stopper=stopper)
        return out / CONTROLS_FILE

    return run_guarded(work, out, stopper=stopper)


def run_guarded(
    work: Callable[[EventWriter, Stopper], Path], out: Path, *, stopper: Stopper | None
) -> int:
    """Do the work of a run in its folder, alone; its end or its error is an event, and the exit code.

    ``work`` returns what it has made. An error that has no code of its own is raised after its event.
    """
    stopper = stopper or Stopper()
    try:
        out.mkdir(parents=True, exist_ok=True)
        progress = EventWriter(out / "events.jsonl")
    except OSError as exc:
        print(f"cannot write to {out}: {exc.strerror}")  # noqa: T201 - there is nowhere else
        return EXIT_BAD_INPUT
    with closing(progress):
        started = time.monotonic()
        try:
            # a worker that has just died may have left its run saving in this folder
            with stopper, locked(out / ".lock"):
                made = work(progress, stopper)
        except Exception as exc:
            code, status = classify_error(exc)
            progress.emit(ErrorEvent, code=code, message=_message(exc))
            if code == "internal":
                raise
            return status
        seconds = round(time.monotonic() - started, 1)
        progress.emit(StageEvent, stage="done")
        progress.emit(ResultEvent, adapter=str(made), seconds=seconds)
    return EXIT_OK


def classify_error(exc: BaseException) -> tuple[str, int]:
    """The code of an `ErrorEvent`, and the exit code, for an exception."""
    text = str(exc).lower()
    if isinstance(exc, Interrupted):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(exc, BadInput | BaseModelError):
        return "bad_input", EXIT_BAD_INPUT
    full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "no space left on device" in text:
        return "disk_full", EXIT_FAILED
    if isinstance(exc, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY):
        return "out_of_memory", EXIT_FAILED
    return "internal", EXIT_FAILED


def _message(exc: Exception) -> str:
    match classify_error(exc)[0]:
        case "out_of_memory":
            return (
                f"memory ran out ({exc}); use a recipe with smaller batch_tokens, max_length or "
                "rank, or gradient_checkpointing"
            )
        case "disk_full":
            return f"the disk is full ({exc}); make room, then run again with --resume"
        case "internal":
            return f"{type(exc).__name__}: {exc}"
        case _:
            return str(exc)


def _stages(
    spec: TrainingSpec, out: Path, progress: EventWriter, *, resume: bool, stopper: Stopper
) -> None:
    if not resume:
        for name in (ADAPTER, "trained", "checkpoints"):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (EVALUATION_FILE, PARITY_FILE, INDEX_NAME, SHOWN_FILE):
            (out / name).unlink(missing_ok=True)
        _remove_controls(out)
    if (out / ADAPTER).is_dir():
        return
    # Imported after the check: a mistake in the spec is then reported without ten seconds of imports.
    validate(spec)
    from training.finetuning.qlora import load_trained, train  # noqa: PLC0415 - loads torch
    from training.finetuning.references import settle_references  # noqa: PLC0415 - loads torch

    spec = settle_references(spec, progress)

    trained = load_trained(out)
    if trained is None and spec.imported is not None:
        from training.finetuning.foreign_adapter import use_imported  # noqa: PLC0415 - loads torch

        trained = use_imported(Path(spec.imported), out)
    if trained is None:
        if spec.recipe.report_to:
            keep_local(out)
        with stopper.deferred():
            trained = train(
                spec, out, progress, resume=resume, should_stop=lambda: stopper.requested
            )
    shutil.rmtree(out / "checkpoints", ignore_errors=True)

    from training.base_models.compute_dtype_probe import choose_for_run  # noqa: PLC0415 - loads torch
    from training.evaluation.evaluate import evaluate  # noqa: PLC0415 - loads torch
    from training.evaluation.parity import parity_reference  # noqa: PLC0415 - loads torch
    from training.retrieval.index import ExchangeIndex  # noqa: PLC0415 - loads numpy

    computing = choose_for_run(Path(spec.base), spec.recipe, out).choices
    weights = Path(trained.folder)
    progress.emit(StageEvent, stage="evaluating")
    index = ExchangeIndex.load(out / INDEX_NAME) if (out / INDEX_NAME).is_file() else None
    is_evaluated = (out / EVALUATION_FILE).is_file()
    if index is not None and index.tokens is not None and not is_evaluated:
        from training.evaluation.copying import fit_copy_bias  # noqa: PLC0415 - loads torch

        index.copy_bias = fit_copy_bias(spec, weights, index, computing=computing["evaluation"])
        index.save(out / INDEX_NAME)
    if index is not None and spec.recipe.quote_replies and not is_evaluated:
        from training.evaluation.draft_weight import fit_draft_weight  # noqa: PLC0415 - loads torch

        index.draft_weight = fit_draft_weight(
            spec, weights, index, progress, computing=computing["evaluation"]
        )
        index.save(out / INDEX_NAME)
    evaluation = load_or_compute(
        out / EVALUATION_FILE,
        Evaluation,
        lambda: evaluate(spec, weights, progress, computing=computing, index=index),
    )
    load_or_compute(
        out / PARITY_FILE,
        list[ParitySample],
        lambda: parity_reference(spec, weights, progress, computing=computing),
    )
    if spec.recipe.full_evaluation:
        _add_controls(spec, trained, out, progress, stopper=stopper)
    progress.emit(StageEvent, stage="writing")
    _write_adapter(spec, out, trained, evaluation)


def validate(spec: TrainingSpec) -> None:
    """Refuse early what cannot work.

    Raises:
        BadInput: the dataset is not whole or does not suit the method, the recipe asks for more
            than the base can read, or for a tracker that is not installed.
        BaseModelError: the base is not whole.
    """
    base = load_base(Path(spec.base))
    dataset = load_dataset(Path(spec.dataset))
    if dataset.kind != DATASET_KINDS[spec.method]:
        raise BadInput(
            f"method {spec.method!r} learns from {DATASET_KINDS[spec.method]}; "
            f"{spec.dataset} holds {dataset.kind}"
        )
    if spec.recipe.max_length > base.max_length:
        raise BadInput(
            f"recipe {spec.recipe.name!r} has max_length {spec.recipe.max_length}; "
            f"base {base.name!r} reads at most {base.max_length}"
        )
    if (absent := what_to_install(spec.recipe.report_to)) is not None:
        raise BadInput(absent)
    for name in ("live_adapter", "start_adapter", "imported"):
        folder = getattr(spec, name)
        if folder and not Path(folder).is_dir():
            raise BadInput(f"there is no {name.replace('_', ' ')} at {folder}")


def _remove_controls(out: Path) -> None:
    shutil.rmtree(out / CONTROLS, ignore_errors=True)
    (out / CONTROLS_FILE).unlink(missing_ok=True)


def _add_controls(
    spec: TrainingSpec,
    trained: "TrainedAdapter",
    out: Path,
    progress: EventWriter,
    *,
    stopper: Stopper,
) -> None:
    """Train and score the controls of an adapter that was just trained; say why, where it has none."""
    from training.controls.measure import reason_against  # noqa: PLC0415 - loads torch
    from training.controls.scoring import Trained  # noqa: PLC0415 - loads torch

    reason = reason_against(spec, load_dataset(Path(spec.dataset)))
    if reason is not None:
        progress.emit(StageEvent, stage="evaluating", detail=f"no full evaluation: {reason}")
        return
    index = out / INDEX_NAME
    version = Trained(Path(trained.folder), index if index.is_file() else None, trained.summary)
    _measure_controls(spec, version, out, progress, stopper=stopper)


def _measure_controls(
    spec: TrainingSpec, version: "Trained", out: Path, progress: EventWriter, *, stopper: Stopper
) -> None:
    from training.base_models.compute_dtype_probe import choose_for_run  # noqa: PLC0415 - loads torch
    from training.controls.measure import measure_controls  # noqa: PLC0415 - loads torch

    computing = choose_for_run(Path(spec.base), spec.recipe, out)
    measure_controls(spec, version, out, progress, computing=computing, stopper=stopper)


def _write_adapter(
    spec: TrainingSpec, out: Path, trained: "TrainedAdapter", evaluation: Evaluation
) -> None:
    """Assemble the adapter folder beside its place, and rename it there."""
    base, dataset = load_base(Path(spec.base)), load_dataset(Path(spec.dataset))
    partial = out / f".{ADAPTER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in _WEIGHT_FILES:
        shutil.copyfile(Path(trained.folder) / name, partial / name)
    if (out / INDEX_NAME).is_file():
        shutil.copyfile(out / INDEX_NAME, partial / INDEX_NAME)
    write_manifest(
        partial,
        AdapterManifest(
            label=spec.label,
            job_id=out.name,
            base=BaseRef(name=base.name, serving_sha256=base.serving_sha256),
            dataset_sha256=dataset.sha256,
            system_prompt=dataset.system_prompt,
            recipe=spec.recipe,
            seed=spec.seed,
            method=spec.method,
            started_from=Path(spec.start_adapter).name if spec.start_adapter else None,
            foreign=read_imported(Path(spec.imported)).foreign if spec.imported else None,
            knowledge=_knowledge_ref(spec),
            lora=LoraShape(rank=trained.rank, alpha=trained.alpha, targets=trained.targets),
            packages=trained.packages,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            training=trained.summary,
            scores={str(name): found for name, found in evaluation.scores().items()},
        ),
    )
    sync_tree(partial)
    partial.rename(out / ADAPTER)
    sync_path(out)


def _knowledge_ref(spec: TrainingSpec) -> KnowledgeRef | None:
    from training.retrieval.articles import ArticleIndex, sha256_of  # noqa: PLC0415 - loads numpy

    if spec.knowledge is None:
        return None
    path = Path(spec.knowledge)
    return KnowledgeRef(sha256=sha256_of(path), pieces=len(ArticleIndex.load(path)))
