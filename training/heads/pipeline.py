"""One run from spec to head: encode, train, choose, calibrate, score, write.

Each stage leaves its result in the output folder by rename, and is skipped when that is there:

    contrastive/       the encoder's LoRA, round by round
    candidates/        for each method, its logits of the held-out texts, and its weights
    heads/<sha256>/    the finished head, written last

The validation part decides what is free: which method, and the temperature. Scores and gates are of
the test part, which decides nothing.
"""

import importlib.metadata
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from connectors.conversation import Split
from training.adapters.safetensors_io import TensorFile, write_tensors
from training.errors import ArtifactError, BadInput, Interrupted, TrainingError
from training.evaluation.metrics import Vectors
from training.events import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    CheckpointEvent,
    ErrorEvent,
    EventWriter,
    ResultEvent,
    ResumedEvent,
    StageEvent,
    StepEvent,
    evaluation_reporter,
)
from training.filesystem import replacing, write_atomically
from training.heads import dataset as datasets
from training.heads import package
from training.heads.alike import near_any
from training.heads.config import IMAGE, IMAGE_ENCODERS, HeadSpec, Method, load_spec
from training.heads.dataset import LabelDataset
from training.heads.encoders import Encode, embed_all, encoder_ref, load_encoder
from training.heads.examples import Example, Labelled
from training.heads.package import Head, HeadManifest
from training.heads.scores import Comparison, Numbers, apply_gates, compare, score
from training.heads.softmax import Probabilities, Softmax, fit, fit_temperature, probabilities
from training.locks import locked
from training.signals import Stopper

HEADS = "heads"
RESULT_FILE = "head.json"
_MAX_HEADER_BYTES = 1 << 20
_PACKAGES = ("numpy", "scikit-learn", "sentence-transformers", "torch")


class Candidate(NamedTuple):
    """What a method has made: the weights, the encoder's LoRA, and logits of what is held out."""

    method: Method
    softmax: Softmax
    lora: Path | None
    validation: Vectors
    test: Vectors


class Finished(msgspec.Struct, frozen=True):
    """The finished head; its folder is ``heads/<sha256>`` in the run's folder."""

    sha256: str


def run(spec_path: Path, out: Path, *, resume: bool, stopper: Stopper | None = None) -> int:
    """Run a spec and return the exit code of `training.events`.

    Progress and errors are events, on standard output and in ``out/events.jsonl``. A second run in
    the same folder waits for the first, and with ``resume`` goes on where it stopped.

        status = run(Path("spec.json"), Path("out"), resume=False)
        if status == EXIT_OK:
            head = Head(finished_head(Path("out")))

    Args:
        spec_path: A `HeadSpec` as JSON.
        out: The run's folder; made where it is missing, and owned by this run.
        resume: Keep finished stages. Without it, ``out`` must not hold another run.
        stopper: Watches for signals; by default one without a time limit. Must not be entered yet.
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
            with stopper, locked(out / ".lock"):
                folder = _stages(load_spec(spec_path), out, progress, resume=resume)
        except Exception as exc:
            code, status = _classify(exc)
            progress.emit(ErrorEvent, code=code, message=str(exc) or type(exc).__name__)
            if code == "internal":
                raise
            return status
        progress.emit(StageEvent, stage="done")
        seconds = round(time.monotonic() - started, 1)
        progress.emit(ResultEvent, adapter=str(folder), seconds=seconds)
    return EXIT_OK


def finished_head(out: Path) -> Path:
    """The folder of a run's finished head.

    Raises:
        ArtifactError: the run has not ended.
    """
    try:
        found = msgspec.json.decode((out / RESULT_FILE).read_bytes(), type=Finished)
    except (OSError, msgspec.DecodeError) as exc:
        raise ArtifactError(f"{out} has no finished head") from exc
    return out / HEADS / found.sha256


def _classify(exc: Exception) -> tuple[str, int]:
    match exc:
        case Interrupted():
            return "interrupted", EXIT_INTERRUPTED
        case BadInput():
            return "bad_input", EXIT_BAD_INPUT
        case TrainingError():
            return "failed", EXIT_FAILED
        case _:
            return "internal", EXIT_FAILED


def _stages(spec: HeadSpec, out: Path, progress: EventWriter, *, resume: bool) -> Path:
    progress.emit(StageEvent, stage="loading")
    dataset = datasets.load(Path(spec.dataset))
    _own(spec, out, resume=resume)
    if (out / RESULT_FILE).is_file():
        folder = finished_head(out)
        package.verify(folder)
        return folder
    if (spec.encoder in IMAGE_ENCODERS) != (dataset.manifest.task == IMAGE):
        raise BadInput(f"{spec.encoder} cannot encode the examples of {dataset.manifest.task}")
    started = time.monotonic()
    examples = {split: dataset.read(split) for split in datasets.SPLITS}
    truth = {split: _numbers(dataset, found) for split, found in examples.items()}
    encode = load_encoder(spec.encoder)
    fitting = _Fitting(spec, dataset, out, examples, progress)
    frozen = fitting.candidate("frozen", encode=encode, lora=None)
    chosen, choice, validation = frozen, "the frozen encoder, as asked", None
    wanted = spec.recipe.method
    if wanted != "frozen" and spec.encoder != "all-minilm-l6-v2":
        wanted, choice = "frozen", f"the frozen encoder: {spec.encoder} is not tuned"
    if wanted != "frozen":
        tuned = fitting.contrastive()
        validation = compare(
            tuned.validation.argmax(axis=1), frozen.validation.argmax(axis=1), truth["validation"]
        )
        chosen, choice = _choose(frozen, tuned, validation, asked=wanted == "contrastive")
    progress.emit(StageEvent, stage="evaluating")
    temperature = fit_temperature(chosen.validation, truth["validation"])
    found = probabilities(chosen.test, temperature)
    live, note, live_sha256 = _compare_with_live(
        spec, dataset, examples["test"], truth=truth["test"], found=found, encode=encode
    )
    progress.emit(StageEvent, stage="writing")
    majority = Counter(truth["train"].tolist()).most_common(1)[0][0]
    manifest = HeadManifest(
        task=dataset.manifest.task,
        labels=dataset.manifest.labels,
        method=chosen.method,
        encoder=encoder_ref(spec.encoder),
        dataset_sha256=dataset.manifest.sha256,
        recipe=spec.recipe,
        seed=spec.seed,
        temperature=temperature,
        scores=score(
            found,
            probabilities(chosen.test, 1.0),
            truth["test"],
            labels=dataset.manifest.labels,
        ),
        verdict=apply_gates(found.argmax(axis=1), truth["test"], majority=majority, live=live),
        choice=choice,
        validation=validation,
        live_sha256=live_sha256,
        note=note,
        seconds=round(time.monotonic() - started, 1),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folder = package.write(
        out / HEADS, manifest, chosen.softmax, chosen.lora, scratch=out / "candidates"
    )
    write_atomically(out / RESULT_FILE, msgspec.json.encode(Finished(folder.name)))
    return folder


def _own(spec: HeadSpec, out: Path, *, resume: bool) -> None:
    """See that what lies in ``out`` is of this spec.

    Raises:
        BadInput: it is of another, or of an earlier run that is not to be resumed.
    """
    path, data = out / "run.json", msgspec.json.encode(spec)
    if path.is_file() and (not resume or path.read_bytes() != data):
        why = "another spec" if resume else "an earlier run: give --resume to go on with it"
        raise BadInput(f"{out} holds {why}, or give an empty output folder")
    write_atomically(path, data)


def _numbers(dataset: LabelDataset, examples: Sequence[Example]) -> Numbers:
    found: Numbers = np.searchsorted(dataset.manifest.labels, [each.label for each in examples])
    return found


class _Fitting(NamedTuple):
    """Makes the candidates of a run."""

    spec: HeadSpec
    dataset: LabelDataset
    out: Path
    examples: dict[Split, list[Example]]
    progress: EventWriter

    def contrastive(self) -> Candidate:
        """Tune the encoder of texts by contrast, and fit the softmax layer on it."""
        from training.heads.contrastive import tune  # noqa: PLC0415 - loads torch

        self.progress.emit(StageEvent, stage="training", detail="the encoder, by contrast")
        texts = [each for each in self.examples["train"] if isinstance(each, Labelled)]
        started, words, first = time.monotonic(), 0, 0
        mean_words = sum(len(each.text.split()) for each in texts) / len(texts)

        def on_step(step: int, steps: int, loss: float, rate: float) -> None:
            nonlocal words, first
            first = first or step
            words += round(2 * self.spec.recipe.batch_pairs * mean_words)
            seconds = max(time.monotonic() - started, 1e-6)
            self.progress.emit(
                StepEvent,
                step=step,
                steps=steps,
                epoch=step / steps,
                loss=loss,
                learning_rate=rate,
                tokens=words,
                tokens_per_second=words / seconds,
                eta_seconds=seconds / (step - first + 1) * (steps - step),
            )

        lora = tune(
            texts,
            self.out / "contrastive",
            recipe=self.spec.recipe,
            seed=self.spec.seed,
            on_step=on_step,
            on_round=lambda step: self.progress.emit(CheckpointEvent, step=step),
            on_resume=lambda step: self.progress.emit(ResumedEvent, step=step),
        )
        return self.candidate("contrastive", encode=package.tuned_encoder(lora), lora=lora)

    def candidate(self, method: Method, *, encode: Encode, lora: Path | None) -> Candidate:
        """Fit the softmax layer on an encoder's vectors, or read what an earlier run has fitted."""
        path = self.out / "candidates" / f"{method}.safetensors"
        if not path.is_file():
            arrays = self._fit(encode, name=method)
            with replacing(path) as beside:
                shapes = {name: array.shape for name, array in arrays.items()}
                write_tensors(beside, shapes, dtype="F32", values=arrays.__getitem__)
        with TensorFile(path, max_header_bytes=_MAX_HEADER_BYTES) as file:
            read = {name: file.read(name) for name in file.tensors}
        layer = Softmax(read["weights"], read["biases"])
        return Candidate(method, layer, lora, read["validation"], read["test"])

    def _fit(self, encode: Encode, *, name: str) -> dict[str, Vectors]:
        report = evaluation_reporter(
            self.progress, name, total=sum(map(len, self.examples.values()))
        )
        vectors = {
            split: embed_all(encode, found, content=self.dataset.content, on_done=report)
            for split, found in self.examples.items()
        }
        labels = [each.label for each in self.examples["train"]]
        layer = fit(
            vectors["train"],
            labels,
            inverse_penalty=self.spec.recipe.inverse_penalty,
            classes=sorted(set(labels)),
        )
        return {
            "weights": layer.weights,
            "biases": layer.biases,
            "validation": layer.logits(vectors["validation"]),
            "test": layer.logits(vectors["test"]),
        }


def _choose(
    frozen: Candidate, tuned: Candidate, found: Comparison, *, asked: bool
) -> tuple[Candidate, str]:
    """The simpler method, unless it is worse on the validation part; and why, in words."""
    interval = (
        f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
        if found.low is not None and found.high is not None
        else "too few for an interval"
    )
    measured = (
        f"tuned against frozen: balanced accuracy {found.difference:+.2f} on {found.texts:,} "
        f"validation texts ({interval})"
    )
    if asked:
        return tuned, f"the tuned encoder, as asked; {measured}"
    if found.difference > 0:
        return tuned, f"the tuned encoder, since the frozen one is worse; {measured}"
    return frozen, f"the frozen encoder, since it is not worse; {measured}"


def _compare_with_live(
    spec: HeadSpec,
    dataset: LabelDataset,
    examples: Sequence[Example],
    *,
    truth: Numbers,
    found: Probabilities,
    encode: Encode,
) -> tuple[Comparison | None, str, str | None]:
    """The new head against the live one, on what the live one was not trained on.

    Returns:
        The comparison, what is to be said of it in words, and the live head's hash.
    """
    if spec.live is None:
        return None, "", None
    folder = Path(spec.live)
    manifest = package.read_manifest(folder)
    if manifest.labels != dataset.manifest.labels:
        note = (
            f"not compared with the live head: it has other labels ({', '.join(manifest.labels)})"
        )
        return None, note, folder.name
    try:
        package.check_encoder(manifest)
        known = datasets.load(Path(spec.dataset).parent / manifest.dataset_sha256)
    except (ArtifactError, BadInput) as exc:
        return None, f"not compared with the live head: {exc}", folder.name
    seen = [each for split in ("train", "validation") for each in known.read(split)]
    fresh = [not near for near in near_any(examples, seen, pictures=dataset.pictures)]
    if not any(fresh):
        return (
            None,
            "not compared with the live head: it was trained on all that it could be tested with",
            folder.name,
        )
    same = manifest.method == "frozen" and manifest.encoder.name == spec.encoder
    live = Head(folder, encode=encode if same else None)
    chosen = [each for each, use in zip(examples, fresh, strict=True) if use]
    said = embed_all(live.logits, chosen, content=dataset.content).argmax(axis=1)
    which = np.asarray(fresh)
    note = ""
    if len(chosen) < len(examples):
        note = (
            f"compared with the live head on {len(chosen):,} of {len(examples):,} for the test: it "
            "was trained on the others"
        )
    return compare(found.argmax(axis=1)[which], said, truth[which]), note, folder.name
