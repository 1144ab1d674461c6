"""A run from spec to adapter: its files, its exit codes, and what it says when it fails."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.conftest import loaf, write_spec
from tests.training.frozen_articles import freeze_articles
from training.adapters.package import INDEX_NAME, KnowledgeRef, verify
from training.base_models.manifest import load_base
from training.config import TrainingSpec
from training.data.dataset import create_version
from training.errors import BadInput, BaseModelError, Interrupted, TrainingError, UnsafeWeights
from training.events import (
    ErrorEvent,
    Event,
    ResultEvent,
    ResumedEvent,
    StageEvent,
    StepEvent,
    parse,
)
from training.pipeline import classify_error, run
from training.results import Evaluation, ParitySample
from training.retrieval.articles import sha256_of
from training.retrieval.index import ExchangeIndex
from training.signals import Stopper

HERE = Path(__file__).parents[2]
RUN_SECONDS = 200


def events_of(out: Path, kind: type[Event]) -> list[Any]:
    lines = (out / "events.jsonl").read_bytes().splitlines()
    return [event for event in map(parse, lines) if isinstance(event, kind)]


def start(spec: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "training", str(spec), str(out), *options]
    log = (out.parent / f"{out.name}.log").open("ab")
    with log:
        return subprocess.Popen(
            argv, cwd=HERE, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log
        )


def wait_for_step(process: "subprocess.Popen[bytes]", out: Path, step: int) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "events.jsonl").exists():
            steps = [e.step for e in events_of(out, StepEvent)]
            if steps and steps[-1] >= step:
                return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}; see {out}.log")


@pytest.mark.heavy
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_a_run_is_stopped_resumed_and_finished_once(
    spec: TrainingSpec, tiny_base: Path, tmp_path: Path
) -> None:
    recipe = msgspec.structs.replace(spec.recipe, copy_words=True, quote_replies=True)
    articles = freeze_articles(tmp_path, [turn.text for turn in loaf()[0].turns])
    spec = msgspec.structs.replace(spec, recipe=recipe, knowledge=str(articles))
    path, out = write_spec(tmp_path, spec), tmp_path / "job-1"
    with start(path, out) as process:
        wait_for_step(process, out, 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(RUN_SECONDS) == 75
    assert events_of(out, ErrorEvent)[-1].code == "interrupted"
    assert not (out / "adapter").exists()

    with start(path, out, "--resume", "--with-parent") as process:
        wait_for_step(process, out, events_of(out, StepEvent)[-1].step + 1)
        assert process.stdin is not None
        process.stdin.close()  # as when its parent dies
        assert process.wait(RUN_SECONDS) == 75

    with start(path, out, "--resume", "--with-parent") as process:  # its parent stays
        assert process.wait(RUN_SECONDS) == 0
    assert events_of(out, ResumedEvent)
    manifest = verify(out / "adapter", base=load_base(tiny_base))
    assert manifest.label == "loaf"
    assert manifest.job_id == "job-1"
    assert manifest.recipe == spec.recipe
    assert manifest.knowledge == KnowledgeRef(
        sha256=sha256_of(articles), pieces=len(loaf()[0].turns)
    )
    assert manifest.lora.rank == spec.recipe.rank
    assert manifest.training is not None
    assert manifest.training.steps == events_of(out, StepEvent)[-1].step
    assert set(manifest.scores) == {"base", "base_retrieval", "new_plain", "new", "lookup"}
    index = ExchangeIndex.load(out / "adapter" / INDEX_NAME)
    assert index.tokens is not None
    assert all(index.tokens)
    assert 0 <= index.copy_bias <= 5
    assert 0 < index.draft_weight <= 1
    msgspec.json.decode((out / "evaluation.json").read_bytes(), type=Evaluation)
    samples = msgspec.json.decode((out / "parity.json").read_bytes(), type=list[ParitySample])
    assert samples
    assert not (out / "checkpoints").exists()
    assert Path(events_of(out, ResultEvent)[-1].adapter) == out / "adapter"

    written = (out / "adapter" / "manifest.json").stat().st_mtime_ns
    assert run(path, out, resume=True) == 0  # nothing is left to do: quick, and in this process
    assert (out / "adapter" / "manifest.json").stat().st_mtime_ns == written


@pytest.mark.heavy
@pytest.mark.timeout(RUN_SECONDS)
def test_a_run_on_examples_that_are_all_alike_ends_with_an_adapter(
    spec: TrainingSpec, tiny_base: Path, tmp_path: Path
) -> None:
    same = [msgspec.structs.replace(loaf()[0], id=f"c{n}") for n in range(10)]
    dataset = create_version(same, tmp_path / "datasets", system_prompt="Be warm.", as_given=True)
    assert dataset.manifest.counts == {"train": 10, "validation": 0, "test": 0}
    recipe = msgspec.structs.replace(spec.recipe, full_evaluation=True)
    alike = msgspec.structs.replace(spec, dataset=str(dataset.folder), recipe=recipe)
    path, out = write_spec(tmp_path, alike), tmp_path / "job-1"
    with start(path, out) as process:
        assert process.wait(RUN_SECONDS) == 0, events_of(out, ErrorEvent)
    said = [event.detail for event in events_of(out, StageEvent)]
    assert "no full evaluation: no conversation was held out" in said
    manifest = verify(out / "adapter", base=load_base(tiny_base))
    assert manifest.training is not None
    assert manifest.training.validation_loss is None
    assert manifest.scores["new"].tokens == 0
    evaluation = msgspec.json.decode((out / "evaluation.json").read_bytes(), type=Evaluation)
    assert evaluation.conversations == 0
    samples = msgspec.json.decode((out / "parity.json").read_bytes(), type=list[ParitySample])
    assert sum(len(sample.positions) for sample in samples) > 100


@pytest.mark.parametrize(
    ("spec_text", "complaint"),
    [
        (None, "cannot read"),
        ("{", "spec.json"),
        ('{"label": "a", "nonsense": 1}', "nonsense"),
    ],
)
def test_a_bad_spec_ends_with_its_own_exit_code(
    tmp_path: Path, spec_text: str | None, complaint: str
) -> None:
    path, out = tmp_path / "spec.json", tmp_path / "out"
    if spec_text is not None:
        path.write_text(spec_text)
    assert run(path, out, resume=False) == 2
    (error,) = events_of(out, ErrorEvent)
    assert error.code == "bad_input"
    assert complaint in error.message


def test_a_missing_base_is_bad_input_before_anything_heavy_is_loaded(
    tmp_path: Path, recipe_spec: TrainingSpec
) -> None:
    assert run(write_spec(tmp_path, recipe_spec), tmp_path / "out", resume=False) == 2
    (error,) = events_of(tmp_path / "out", ErrorEvent)
    assert "tenantune bases add" in error.message


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"method": "dpo"}, "'dpo' learns from preferences; .* holds conversations"),
        ({"start_adapter": "/nowhere"}, "no start adapter at /nowhere"),
    ],
)
def test_what_does_not_go_together_is_bad_input(
    spec: TrainingSpec, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    changed = msgspec.structs.replace(spec, **change)
    assert run(write_spec(tmp_path, changed), tmp_path / "out", resume=False) == 2
    (error,) = events_of(tmp_path / "out", ErrorEvent)
    assert re.search(complaint, error.message)


@pytest.fixture
def recipe_spec(tmp_path: Path) -> TrainingSpec:
    from tests.training.conftest import TINY_RECIPE  # noqa: PLC0415

    nowhere = str(tmp_path / "nowhere")
    return TrainingSpec(label="loaf", base=nowhere, dataset=nowhere, recipe=TINY_RECIPE)


def test_a_full_disk_is_reported_as_such() -> None:
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_text("x", encoding="utf-8")
    assert classify_error(full.value) == ("disk_full", 1)
    assert (
        classify_error(RuntimeError("I/O error: No space left on device (os error 28)"))[0]
        == "disk_full"
    )
    assert classify_error(OSError(errno.EACCES, "Permission denied"))[0] == "internal"


@pytest.mark.heavy
@pytest.mark.timeout(60)
def test_memory_that_runs_out_is_reported_as_such() -> None:
    import torch  # noqa: PLC0415

    with pytest.raises(RuntimeError) as out_of_memory:
        torch.empty(1 << 60)
    assert classify_error(out_of_memory.value) == ("out_of_memory", 1)
    assert classify_error(torch.OutOfMemoryError("CUDA out of memory."))[0] == "out_of_memory"
    assert classify_error(MemoryError())[0] == "out_of_memory"


def test_every_error_of_the_package_has_an_exit_code() -> None:
    assert classify_error(BadInput("x")) == ("bad_input", 2)
    assert classify_error(BaseModelError("x")) == ("bad_input", 2)
    assert classify_error(Interrupted("x")) == ("interrupted", 75)
    assert classify_error(UnsafeWeights("x")) == ("internal", 1)
    assert classify_error(TrainingError("x")) == ("internal", 1)


def test_a_folder_that_cannot_be_written_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("in the way")
    assert run(tmp_path / "spec.json", tmp_path / "out", resume=False) == 2
    assert re.search(r"cannot write to .*out", capsys.readouterr().out)


def test_a_signal_waits_for_training_and_for_nothing_else() -> None:
    stopper, reached = Stopper(), []

    def training() -> None:
        with stopper.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the end of training")

    before = signal.getsignal(signal.SIGTERM)
    with stopper:
        with pytest.raises(Interrupted, match="what is done is kept"):
            training()
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
    assert reached == ["the end of training"]
    assert stopper.requested
    assert signal.getsignal(signal.SIGTERM) is before
