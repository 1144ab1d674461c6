"""A sweep whose time is over when it goes on: no torch is loaded."""

from contextlib import closing
from pathlib import Path

import msgspec

from tests.training.bare import make_bare_base
from tests.training.conftest import TINY_RECIPE, loaf
from training.config import TrainingSpec
from training.data.dataset import create_version
from training.events import EXIT_OK, EventWriter
from training.signals import Stopper
from training.sweeps import sweep
from training.sweeps.comparison import SweepResult
from training.sweeps.config import Setting, SweepSpec, space_around
from training.sweeps.records import Ended, Loss, Plan, Records, Rung, Trial


def test_a_sweep_without_time_gives_up_what_does_not_fit_and_says_what_is_done(
    tmp_path: Path,
) -> None:
    base = make_bare_base(tmp_path / "bases")
    dataset = create_version(loaf()[:15], tmp_path / "datasets", system_prompt="You answer.")
    run = TrainingSpec(label="a", base=str(base), dataset=str(dataset.folder), recipe=TINY_RECIPE)
    spec = SweepSpec(run=run, minutes=1.0, space=space_around(TINY_RECIPE, max_rank=8))
    path, out = tmp_path / "sweep.json", tmp_path / "out"
    path.write_bytes(msgspec.json.encode(spec))
    out.mkdir()
    with closing(EventWriter(out / "events.jsonl")) as events:
        fingerprint = sweep._Sweep(spec, out, events, Stopper())._fingerprint()
    control, records = Setting.of(TINY_RECIPE), Records(out)
    records.save_plan(
        Plan(fingerprint=fingerprint, rungs=(300, 900), whole_run=900, control=control)
    )

    def save(number: int, *scores: float, ended: Ended) -> None:
        rungs = [
            Rung(tokens=tokens, seconds=10.0, losses={"a": Loss(score, 1)})
            for tokens, score in zip((300, 900), scores, strict=False)
        ]
        records.save(
            Trial(number=number, setting=control, rungs=rungs, ended=ended, spent=30.0 + number)
        )

    save(0, 2.0, 1.5, ended="finished")
    save(1, 1.0, ended="")  # 600 tokens more would take 20 s, of the 29 that are left
    with closing(EventWriter(out / "events.jsonl")) as events:
        going = sweep._Sweep(spec, out, events, Stopper())
        plan = records.plan()
        assert plan is not None
        assert going._may_go_on(plan)
    late = msgspec.structs.replace(spec, minutes=0.55)
    path.write_bytes(msgspec.json.encode(late))
    assert sweep.run(path, out) == EXIT_OK
    assert [trial.ended for trial in records.trials()] == ["finished", "out of time"]
    result = msgspec.json.decode((out / "result.json").read_bytes(), type=SweepResult)
    assert result.winner == 0
    assert (out / "recipe.toml").is_file()
