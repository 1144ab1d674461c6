"""What a sweep decides: rungs by the time there is, settings, which trials go on; without any training."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.conftest import TINY_RECIPE
from training.config import TrainingSpec, load_recipe
from training.errors import BadInput
from training.sweeps.config import (
    SearchSpace,
    Setting,
    SweepSpec,
    load_sweep,
    space_around,
    to_toml,
    widened,
    with_setting,
)
from training.sweeps.records import Loss, Rung, Trial
from training.sweeps.search import Clock, Search, plan_rungs

SPACE = SearchSpace(
    learning_rate=(1e-3, 1e-2), ranks=(8, 16), references=(0, 2), min_epochs=(0.0, 2.0)
)
CONTROL = Setting(learning_rate=3e-3, rank=16, references=2)


def clock(minutes: float, *, tokens_per_second: float = 100.0) -> Clock:
    made = Clock(minutes, spent=0.0, now=lambda: 0.0)
    made.observe(1000, 1000 / tokens_per_second)
    return made


def rung(score: float, tokens: int = 100) -> Rung:
    return Rung(tokens=tokens, seconds=1.0, losses={"a": Loss(score, 1)})


def test_rungs_reach_the_whole_run_where_there_is_time_and_less_where_there_is_not() -> None:
    assert plan_rungs(clock(60), whole_run=30_000, step_tokens=640) == (3_333, 10_000, 30_000)
    # a quarter of ten minutes at 100 tokens a second, less the margin
    assert plan_rungs(clock(10), whole_run=30_000, step_tokens=640) == (4_347, 13_043)
    with pytest.raises(BadInput, match="at least 2 minutes"):
        plan_rungs(clock(1), whole_run=30_000, step_tokens=640)


def test_nothing_begins_that_cannot_end_in_time() -> None:
    now = itertools.count(0, 30).__next__
    running = Clock(1, spent=0.0, now=now)  # 0 s
    running.observe(100, 1.0)
    assert running.holds(2_600)  # 29.9 of the 30 s that are left
    assert not running.holds(100)  # at 60 s
    assert not Clock(1, spent=60.0).holds(1)


def test_a_trial_goes_on_where_it_is_among_the_best_third_of_its_rung() -> None:
    search = Search(SPACE, seed=1)
    control = search.next(CONTROL)
    assert control.setting == CONTROL
    assert control.goes_on(0, rung(2.0))  # the first of all
    assert control.goes_on(1, rung(1.5))
    control.goes_on(2, rung(1.2))
    control.end(finished=True)
    worse, better = search.next(), search.next()
    assert not worse.goes_on(0, rung(2.1))
    worse.end(finished=False)
    assert better.goes_on(0, rung(1.9))
    assert not better.goes_on(1, rung(1.6))


def test_a_search_that_goes_on_draws_and_decides_as_one_that_did_not_stop() -> None:
    whole, trials = Search(SPACE, seed=1), []
    for number in range(12):
        decisions = whole.next(CONTROL if number == 0 else None)
        scored = rung(1.0 + abs(decisions.setting.learning_rate - 5e-3) * 100)
        decisions.goes_on(0, scored)
        decisions.end(finished=False)
        trials.append(Trial(number=number, setting=decisions.setting, rungs=[scored]))
    assert len({trial.setting for trial in trials}) == 12
    assert {trial.setting.min_epochs for trial in trials} == {0.0, 2.0}
    for known in (1, 7, 11):
        again = Search(SPACE, seed=1)
        again.replay(trials[:known])
        assert again.next().setting == trials[known].setting


def test_the_winners_recipe_is_a_file_that_loads(tmp_path: Path) -> None:
    chosen = with_setting(
        TINY_RECIPE, Setting(learning_rate=1.5e-5, rank=16, references=2, min_epochs=4.0)
    )
    assert (chosen.alpha, chosen.min_distinct_replies, chosen.min_epochs) == (32, 0.0, 4.0)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(chosen, head='it won\nby "much"'))
    assert load_recipe(str(path)) == chosen
    assert path.read_text().startswith('# it won\n# by "much"\nname = "tiny"\n')


def test_the_space_is_around_the_recipe_and_within_what_the_engine_serves() -> None:
    space = space_around(load_recipe("cpu-small"), max_rank=64)
    assert space.ranks == (16, 32, 64)
    assert space.learning_rate == (0.0005, 0.008)
    assert space.references == (0, 1, 2, 4)
    assert space.min_epochs == (0.0, 2.0, 4.0)
    wider = widened(space, Setting(learning_rate=0.1, rank=3, references=5, min_epochs=3.0))
    assert (wider.learning_rate[1], wider.ranks[0], wider.references[-1]) == (0.1, 3, 5)
    assert wider.min_epochs == (0.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minutes": 0.0}, "minutes above 0"),
        ({"space": msgspec.structs.replace(SPACE, ranks=(0,))}, "ranks begin at 1"),
        ({"space": msgspec.structs.replace(SPACE, min_epochs=(-1.0,))}, "epochs at 0"),
        ({"space": msgspec.structs.replace(SPACE, min_epochs=())}, "one of epochs"),
        ({"method": "dpo"}, "supervised"),
    ],
    ids=["no time", "no rank", "fewer than none", "no epochs", "preferences"],
)
def test_what_cannot_be_searched_is_refused_in_words(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    run = TrainingSpec(label="a", base="/b", dataset="/d", recipe=TINY_RECIPE)
    if "method" in change:
        run, change = msgspec.structs.replace(run, **change), {}
    spec = msgspec.structs.replace(SweepSpec(run=run, minutes=1.0, space=SPACE), **change)
    path = tmp_path / "sweep.json"
    path.write_bytes(msgspec.json.encode(spec))
    with pytest.raises(BadInput, match=said):
        load_sweep(path)
