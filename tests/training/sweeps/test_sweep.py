"""A sweep: trials on one base in memory, killed and gone on with, and what it leaves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.training.conftest import TINY_RECIPE
from training.config import TrainingSpec, load_recipe
from training.data.dataset import Dataset
from training.events import EXIT_BAD_INPUT, EXIT_OK, EventWriter, StepEvent, parse
from training.retrieval.index import Vectors
from training.sweeps import sweep
from training.sweeps.comparison import SweepResult
from training.sweeps.config import SearchSpace, SweepSpec
from training.sweeps.records import Records

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

TRIALS = 2
RECIPE = msgspec.structs.replace(
    TINY_RECIPE, max_train_tokens=2_600, batch_tokens=200, checkpoint_every=2
)


def parse_steps(out: Path) -> Iterator[StepEvent]:
    lines = (out / "events.jsonl").read_bytes().splitlines()
    return (event for event in map(parse, lines) if isinstance(event, StepEvent))


class Killed(BaseException):
    """As SIGKILL: nothing of ours handles it."""


def embed(texts: Sequence[str]) -> Vectors:
    found = np.array([[1.0, len(text) % 7, len(text) % 11] for text in texts], np.float32)
    unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


@pytest.fixture
def spec(tiny_base: Path, small_dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> Path:
    """Two trials, with time in plenty."""
    from training.finetuning import references  # noqa: PLC0415 - loads torch

    monkeypatch.setattr(references, "load_embedder", lambda _dtype: embed)
    monkeypatch.setattr(sweep, "MAX_TRIALS", TRIALS)
    asked = SweepSpec(
        run=TrainingSpec(
            label="loaf",
            base=str(tiny_base),
            dataset=str(small_dataset.folder),
            recipe=RECIPE,
        ),
        minutes=600.0,
        space=SearchSpace(
            learning_rate=(1e-3, 3e-2), ranks=(2, 4), references=(0, 1), min_epochs=(0.0, 3.0)
        ),
    )
    path = tmp_path / "sweep.json"
    path.write_bytes(msgspec.json.encode(asked))
    return path


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die with the given training step, counted over all trials."""
    emit, seen = EventWriter.emit, 0

    def dying(self: EventWriter, kind: type[Any], **fields: Any) -> None:
        nonlocal seen
        seen += kind is StepEvent
        if seen == step:
            raise Killed
        emit(self, kind, **fields)

    monkeypatch.setattr(EventWriter, "emit", dying)


def test_a_sweep_that_is_killed_goes_on_and_finds_the_same(spec: Path, tmp_path: Path) -> None:
    assert sweep.run(spec, tmp_path / "whole") == EXIT_OK
    whole = Records(tmp_path / "whole").trials()
    assert len(whole) == TRIALS
    assert {trial.ended for trial in whole} <= {"finished", "worse"}
    first = next(parse_steps(tmp_path / "whole"))

    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step=first.steps + 3)  # the control has ended, a checkpoint is at step 2
        with pytest.raises(Killed):
            sweep.run(spec, cut)
    assert list((cut / "work").glob("trial-001/checkpoints/step-*2"))
    assert sweep.run(spec, cut) == EXIT_OK
    again = Records(cut).trials()
    # the same to the last bit, on a base that another trial had before and on a fresh one
    assert [(t.setting, t.ended, [r.losses for r in t.rungs]) for t in again] == [
        (t.setting, t.ended, [r.losses for r in t.rungs]) for t in whole
    ]

    assert not (cut / "work").exists()
    result = msgspec.json.decode((cut / "result.json").read_bytes(), type=SweepResult)
    best = min((t for t in whole if t.ended == "finished"), key=lambda t: t.rungs[-1].mean)
    assert result.winner == best.number
    recipe = load_recipe(str(cut / "recipe.toml"))
    assert recipe.learning_rate == best.setting.learning_rate
    assert recipe.max_train_tokens == RECIPE.max_train_tokens

    other = msgspec.json.decode(spec.read_bytes(), type=SweepSpec)
    run = msgspec.structs.replace(other.run, seed=5)
    spec.write_bytes(msgspec.json.encode(msgspec.structs.replace(other, run=run)))
    assert sweep.run(spec, cut) == EXIT_BAD_INPUT
