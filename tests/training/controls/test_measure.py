"""What a version is held against: models trained on as many tokens, without its data or its base."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.training.conftest import FLOAT32, loaf
from tests.training.frozen_articles import freeze_articles
from training.compute_dtype import COMPUTE_FILE, MachineChoices, machine_key, save_choices
from training.config import TrainingSpec
from training.data.dataset import Dataset
from training.errors import Interrupted
from training.events import EvaluationEvent, EventWriter, StageEvent, StepEvent, parse
from training.results import Controls
from training.retrieval.index import ExchangeIndex
from training.signals import Stopper

if TYPE_CHECKING:  # loads torch
    from training.evaluation.evaluate import ModelInputs

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(480)]


class StopAt(EventWriter):
    """Asks the run to stop when a control has taken a step."""

    def __init__(self, path: Path, subject: str, step: int, stopper: Stopper) -> None:
        super().__init__(path)
        self._at, self._stopper = (subject, step), stopper

    def emit(self, kind: type[Any], **fields: Any) -> None:
        super().emit(kind, **fields)
        if (fields.get("subject"), fields.get("done")) == self._at:
            self._stopper.requested = True


def test_controls_get_the_version_s_tokens_and_go_on_where_they_were_stopped(
    spec: TrainingSpec, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.controls import measure as module  # noqa: PLC0415 - loads torch
    from training.controls import scoring  # noqa: PLC0415
    from training.controls.scoring import Trained  # noqa: PLC0415
    from training.evaluation import evaluate  # noqa: PLC0415
    from training.finetuning.qlora import train  # noqa: PLC0415

    monkeypatch.setattr(module, "SHARES", (0.5,))
    real, with_retrieval = evaluate.retrieval_inputs, []

    def spy(plain: "ModelInputs", index: ExchangeIndex | None, *others: Any) -> "ModelInputs":
        inputs = real(plain, index, *others)
        with_retrieval.append((index, any(inputs.references)))
        return inputs

    monkeypatch.setattr(scoring, "retrieval_inputs", spy)
    recipe = msgspec.structs.replace(
        spec.recipe, max_train_tokens=4_000, checkpoint_every=1, validate_every=99
    )
    articles = freeze_articles(tmp_path, [turn.text for turn in loaf()[0].turns])
    spec = msgspec.structs.replace(spec, recipe=recipe, knowledge=str(articles))
    out, events = tmp_path / "out", tmp_path / "events.jsonl"
    out.mkdir()
    computing = MachineChoices(
        machine=machine_key(), base=Path(spec.base).name, device="", choices=FLOAT32
    )
    save_choices(tmp_path / COMPUTE_FILE, computing)
    with closing(EventWriter(tmp_path / "version.jsonl")) as progress:
        made = train(spec, tmp_path, progress, resume=False, should_stop=lambda: False)
    version = Trained(Path(made.folder), None, made.summary)

    def measure(progress: EventWriter, stopper: Stopper) -> Controls:
        with closing(progress), stopper:
            return module.measure_controls(
                spec, version, out, progress, computing=computing, stopper=stopper
            )

    stopper = Stopper()
    with pytest.raises(Interrupted):
        measure(StopAt(events, "training 50% of the data", 2, stopper), stopper)
    found = measure(EventWriter(events), Stopper())

    count = small_dataset.manifest.counts["train"]
    assert [each.conversations for each in found.curve] == [round(0.5 * count), count]
    assert found.scratch is not None
    for each in (*found.curve, found.scratch):
        assert made.summary.tokens <= each.tokens < made.summary.tokens + recipe.batch_tokens
        assert each.scores.perplexity
    half, whole = (each.epochs for each in found.curve)
    assert half > 1.5 * whole
    assert found.pretraining is not None
    assert found.last_doubling is not None
    told = list(map(parse, events.read_bytes().splitlines()))
    assert not [each for each in told if isinstance(each, StepEvent)]  # they are not the version's
    done = [
        each.done
        for each in told
        if isinstance(each, EvaluationEvent) and each.subject == "training 50% of the data"
    ]
    assert done == list(range(1, len(done) + 1))  # none was taken twice
    assert sum(isinstance(each, StageEvent) for each in told) == 2
    assert [path.name for path in out.iterdir()] == ["controls.json"]
    assert (
        with_retrieval == [(None, True)] * 3
    )  # the tenant's articles, as the version is served with
    assert measure(EventWriter(events), Stopper()) == found
