"""``tenantune sweep``: what it asks of the trainer, what it shows, and the recipe that a job takes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.cli import sweep
from tests.server.cli.running import made, running
from tests.training.bare import make_bare_base
from training.events import EXIT_BAD_INPUT, EXIT_OK, StageEvent
from training.sweeps.comparison import compare
from training.sweeps.config import Setting, SweepSpec, to_toml, with_setting
from training.sweeps.records import Loss, Plan, Rung, Trial

SAMPLE = Path(__file__).parents[3] / "connectors" / "samples" / "loaf.jsonl"
LOW, BEST = 1.0, 0.5


async def sweep_in_no_time(argv: Sequence[str], **_: Any) -> int:
    """In place of the child: two trials, of which the second is better."""
    return write_result(argv)


def write_result(argv: Sequence[str]) -> int:
    spec = msgspec.json.decode(Path(argv[3]).read_bytes(), type=SweepSpec)
    out, recipe = Path(argv[4]), spec.run.recipe
    control = with_setting(recipe, setting_of(spec, 0))
    plan = Plan(fingerprint="", rungs=(900,), whole_run=900, control=setting_of(spec, 0))
    trials = [
        Trial(
            number=number,
            setting=setting_of(spec, number),
            rungs=[Rung(tokens=900, seconds=2.0, losses={"a": Loss(score, 1)})],
            ended="finished",
        )
        for number, score in enumerate((LOW, BEST))
    ]
    result = compare(plan, trials, recipe=recipe, seconds=4.0)
    (out / "result.json").write_bytes(msgspec.json.encode(result))
    chosen = msgspec.structs.replace(with_setting(control, trials[1].setting), name="found")
    (out / "recipe.toml").write_text(to_toml(chosen, head="won"))
    event = StageEvent(at=0.0, stage="searching", detail="trial 1: ends")
    (out / "events.jsonl").write_bytes(msgspec.json.encode(event) + b"\n")
    return EXIT_OK


def setting_of(spec: SweepSpec, number: int) -> Setting:
    own = Setting.of(spec.run.recipe)
    return msgspec.structs.replace(own, rank=spec.space.ranks[0]) if number else own


def test_a_sweep_shows_its_trials_and_a_job_takes_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run_child", sweep_in_no_time)
    frozen = tmp_path / f"knowledge-{'0' * 64}.safetensors"

    async def freeze(_database: object, _tenant: object, folder: Path) -> Path:
        assert folder.parent == home / "sweeps"
        return frozen

    monkeypatch.setattr(sweep, "freeze", freeze)
    home = tmp_path / "home"
    make_bare_base(home / "bases")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(SAMPLE.read_text().splitlines(keepends=True)[:20]))
    with running(home, {"TENANTUNE_BASE": "bare"}) as tenantune:
        made(tenantune, "tenants", "create", "acme")
        made(tenantune, "transcripts", "import", str(few), "--tenant", "acme")
        asked = ("sweep", "--tenant", "acme", "--recipe", "cpu-demo", "--minutes", "5")
        done = made(tenantune, *asked)
        assert "trial 1: ends" in done.stderr
        assert [row.split("\t")[0] for row in done.stdout.splitlines()] == ["0", "1"]
        assert done.stdout.splitlines()[1].split("\t")[2:6] == ["16", "0", "0", "0.500"]
        assert "Trial 1 of 1 won" in done.stderr
        [recipe] = (home / "sweeps").glob("*/*/recipe.toml")
        assert str(recipe) in done.stderr.replace("\n", "")
        searched = msgspec.json.decode((recipe.parent / "sweep.json").read_bytes(), type=SweepSpec)
        assert searched.run.knowledge == str(frozen)  # as a job's replies would be shown articles
        job = made(tenantune, "train", "--tenant", "acme", "--recipe", str(recipe), "--json")
        assert json.loads(job.stdout)["recipe"] == "found"
        bad = recipe.with_name("bad.toml")
        bad.write_text("rank = 0.5")
        refused = tenantune("train", "--tenant", "acme", "--recipe", str(bad))
        assert (refused.exit_code, "bad.toml" in refused.stderr) == (2, True)

        # the same command goes on in the same folder, also with other minutes
        async def fails(*_: Any, **__: Any) -> int:
            return EXIT_BAD_INPUT

        monkeypatch.setattr(sweep, "run_child", fails)
        failed = tenantune(*asked[:-1], "9", "--json")
        assert (failed.exit_code, json.loads(failed.stdout)["winner"]) == (2, 1)
        assert "trainer.log" in failed.stderr
        assert len(list((home / "sweeps").glob("*/*"))) == 1
