"""A sweep from spec to recipe: measure, train trials while there is time, compare, explain.

The sweep's folder:

    plan.json                what was decided at the start: rungs, control
    trial-000.json ...       each trial's setting, and its scores at the rungs it has reached
    work/                    checkpoints of the trial under way, and the index; gone at the end
    result.json              `training.sweeps.comparison.SweepResult`
    recipe.toml              the winner's recipe, for a training job

Run again in the same folder, it goes on with what is left of its time.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from training.base_models.manifest import load_base
from training.config import Recipe
from training.data.dataset import load as load_dataset
from training.errors import BadInput, Diverged
from training.events import EventWriter, StageEvent
from training.filesystem import write_atomically
from training.pipeline import run_guarded, validate
from training.signals import Stopper
from training.sweeps.comparison import compare
from training.sweeps.config import Setting, SweepSpec, load_sweep, to_toml, widened, with_setting
from training.sweeps.records import Ended, Plan, Records, Rung, Trial
from training.sweeps.search import MAX_TRIALS, Clock, Decisions, Search, plan_rungs

if TYPE_CHECKING:
    from training.sweeps.trial import Workbench

RESULT_FILE = "result.json"
RECIPE_FILE = "recipe.toml"
WORK = "work"


def run(spec_path: Path, out: Path, *, stopper: Stopper | None = None) -> int:
    """Run a sweep, or go on with it, and return the exit code of `training.events`.

    Progress and errors are events, on standard output and in ``out/events.jsonl``.

        status = run(Path("sweep.json"), Path("out"))
        if status == EXIT_OK:
            recipe = load_recipe("out/recipe.toml")

    Args:
        spec_path: A `SweepSpec` as JSON.
        out: The sweep's folder; made where it is missing, and owned by this sweep.
        stopper: Watches for signals; by default one without a time limit. Must not be entered yet.
    """

    def work(progress: EventWriter, stopper: Stopper) -> Path:
        _Sweep(load_sweep(spec_path), out, progress, stopper).run()
        return out / RECIPE_FILE

    return run_guarded(work, out, stopper=stopper)


class _Sweep:
    """One sweep in this process."""

    def __init__(self, spec: SweepSpec, out: Path, progress: EventWriter, stopper: Stopper) -> None:
        validate(spec.run)
        self._spec, self._out, self._progress, self._stopper = spec, out, progress, stopper
        self._records = Records(out)
        self._trials = self._records.trials()
        self._clock = Clock(spec.minutes, spent=max((t.spent for t in self._trials), default=0.0))

    def run(self) -> None:
        """Train trials while there is time, and write what came of them."""
        known = self._records.plan()
        if known is not None and known.fingerprint != self._fingerprint():
            raise BadInput(
                f"{self._out} holds a sweep of another recipe, base, dataset, seed or space; give an "
                "empty folder"
            )
        try:
            if known is None or self._may_go_on(known):
                self._train_all(known)
        finally:  # what is done is worth something also where it was stopped
            self._write()
        shutil.rmtree(self._out / WORK, ignore_errors=True)

    def _may_go_on(self, plan: Plan) -> bool:
        """Whether the time left holds another rung, by what was measured."""
        for trial in self._trials:
            if trial.rungs:
                seconds = math.fsum(rung.seconds for rung in trial.rungs)
                self._clock.observe(_trained(trial), seconds)
        last = self._trials[-1] if self._trials else None
        if last is None or last.ended:
            return self._clock.holds(plan.rungs[0])
        if self._fits(last, plan):
            return True
        last.ended = "out of time"
        self._save(last)
        return self._clock.holds(plan.rungs[0])

    def _fits(self, trial: Trial, plan: Plan) -> bool:
        """Whether the time left holds the next rung of a trial that was under way."""
        return self._clock.holds(plan.rungs[len(trial.rungs)] - _trained(trial))

    def _train_all(self, plan: Plan | None) -> None:
        # after the checks: a mistake in the spec is then reported without ten seconds of imports
        from training.finetuning.references import settle_references  # noqa: PLC0415 - loads torch
        from training.sweeps.trial import Workbench  # noqa: PLC0415 - loads torch

        work = self._out / WORK
        work.mkdir(exist_ok=True)
        run = settle_references(self._spec.run, self._progress)
        space = widened(self._spec.space, Setting.of(run.recipe))
        bench = Workbench(
            run,
            space.references,
            out=work,
            progress=self._progress,
            should_stop=lambda: self._stopper.requested,
        )
        plan = plan or self._decide(bench, run.recipe)
        if absent := set(space.references).difference(bench.references):
            few = ", ".join(map(str, sorted(absent)))
            self._say(
                f"not tried: {few} references, for max_length {run.recipe.max_length} is too short"
            )
        passes = plan.rungs[-1] / bench.longest_pass
        space = msgspec.structs.replace(
            space,
            references=bench.references,
            min_epochs=tuple(
                least
                for least in space.min_epochs
                if least > passes or least == run.recipe.min_epochs
            ),
        )
        search = Search(space, seed=run.seed)
        search.replay(trial for trial in self._trials if trial.ended)
        with self._stopper.deferred():
            while (trial := self._next_trial(search, plan)) is not None:
                self._train(trial, plan, bench)

    def _decide(self, bench: "Workbench", recipe: Recipe) -> Plan:
        """Measure a first batch, and choose the rungs."""
        positions, seconds = bench.measure(self._out / WORK)
        self._clock.observe(positions, seconds)
        whole = bench.whole_run
        plan = Plan(
            fingerprint=self._fingerprint(),
            rungs=plan_rungs(self._clock, whole_run=whole, step_tokens=recipe.batch_tokens),
            whole_run=whole,
            control=Setting.of(recipe),
        )
        self._records.save_plan(plan)
        return plan

    def _next_trial(self, search: Search, plan: Plan) -> "_Running | None":
        """The trial that was under way, or a new one if the time left holds its first rung."""
        if self._trials and not self._trials[-1].ended:
            trial = self._trials[-1]
            decisions = search.next(trial.setting)
            if self._fits(trial, plan):  # loading has taken its time since it was asked first
                return _Running(trial, decisions)
            trial.ended = "out of time"
            self._save(trial)
            decisions.end(finished=False)
        number = len(self._trials)
        if number == MAX_TRIALS or (number and not self._clock.holds(plan.rungs[0])):
            return None
        decisions = search.next(plan.control if not number else None)
        trial = Trial(number=number, setting=decisions.setting, spent=self._clock.spent)
        self._trials.append(trial)
        self._records.save(trial)
        return _Running(trial, decisions)

    def _train(self, running: "_Running", plan: Plan, bench: "Workbench") -> None:
        """Train a trial to its end."""
        trial, decisions = running
        started, before = time.monotonic(), _trained(trial)
        for number, rung in enumerate(trial.rungs):
            decisions.goes_on(number, rung)
        self._say(f"trial {trial.number}: {trial.setting}")

        def at_rung(number: int, rung: Rung) -> bool:
            trial.rungs.append(rung)
            goes_on = decisions.goes_on(number, rung)
            trial.ended = self._end_at(number, plan.rungs, goes_on=goes_on)
            self._save(trial)
            self._say(
                f"trial {trial.number}: {rung.mean:.3f} nats a token after {rung.tokens:,} tokens, "
                f"{trial.ended or 'goes on'}"
            )
            return not trial.ended

        try:
            bench.train(
                trial.setting,
                trial.rungs[:],
                plan.rungs,
                at_rung,
                out=self._out / WORK / f"trial-{trial.number:03d}",
                progress=self._progress,
                should_stop=lambda: self._stopper.requested,
            )
        except Diverged as exc:
            trial.ended = "diverged"
            self._say(f"trial {trial.number}: {exc}")
        finally:
            self._save(trial)  # with the time that is gone
        if _trained(trial) > before:  # all that a trial takes, what is between its rungs included
            self._clock.observe(_trained(trial) - before, time.monotonic() - started)
        decisions.end(finished=trial.ended == "finished")

    def _end_at(self, number: int, rungs: Sequence[int], *, goes_on: bool) -> Ended:
        if number == len(rungs) - 1:
            return "finished"
        if not goes_on:
            return "worse"
        return "" if self._clock.holds(rungs[number + 1] - rungs[number]) else "out of time"

    def _save(self, trial: Trial) -> None:
        trial.spent = self._clock.spent
        self._records.save(trial)

    def _say(self, detail: str) -> None:
        self._progress.emit(StageEvent, stage="searching", detail=detail)

    def _fingerprint(self) -> str:
        run = self._spec.run
        facts = (
            run.recipe,
            run.seed,
            load_base(Path(run.base)).serving_sha256,
            load_dataset(Path(run.dataset)).sha256,
            self._spec.space,
        )
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    def _write(self) -> None:
        """What came of the trials so far."""
        plan = self._records.plan()
        if plan is None:
            return
        result = compare(
            plan, self._trials, recipe=self._spec.run.recipe, seconds=self._clock.spent
        )
        write_atomically(
            self._out / RESULT_FILE, msgspec.json.format(msgspec.json.encode(result), indent=2)
        )
        if result.winner is not None:
            best = self._trials[result.winner].setting
            recipe = with_setting(self._spec.run.recipe, best)
            named = msgspec.structs.replace(recipe, name=f"{recipe.name}-swept")
            head = "\n".join(result.words)
            write_atomically(self._out / RECIPE_FILE, to_toml(named, head=head).encode())


def _trained(trial: Trial) -> int:
    """Tokens up to the last rung that a trial has reached."""
    return trial.rungs[-1].tokens if trial.rungs else 0


class _Running(NamedTuple):
    """A trial, and what the search makes of it."""

    trial: Trial
    decisions: Decisions
