"""Which settings are tried, which trials go on, and what the time still holds.

Settings come from optuna's TPE sampler (Bergstra et al. 2011), and successive halving in its asynchronous form
stops trials early (Li et al. 2018, arXiv 1810.05934): at each rung, a trial goes on if it is among the
best third of all that have reached it. The control comes first, and so goes through all rungs.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from training.errors import BadInput
from training.sweeps.config import SearchSpace, Setting
from training.sweeps.records import Rung, Trial

if TYPE_CHECKING:
    import optuna

FACTOR = 3
"""From one rung to the next: this many times the tokens, for one in this many trials."""
MIN_STEPS = 4
"""Optimiser steps before the first rung: fewer say nothing of a rate."""
SHARE_OF_CONTROL = 0.25
"""Of the time, at most, that the control may take; the rest is for what is compared with it."""
MAX_TRIALS = 200
MARGIN = 1.15
"""Time that a rung may take over its estimate, so that it ends within the budget."""
RANDOM_TRIALS = 5  # before the sampler has seen enough to lean on


class Clock:
    """The time left, and what a number of training tokens takes of it.

    Args:
        minutes: The budget.
        spent: Seconds of it that are gone already.
        now: Seconds, from any start.
    """

    def __init__(
        self, minutes: float, *, spent: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._budget, self._spent, self._now = 60 * minutes, spent, now
        self._started = now()
        self._tokens, self._seconds = 0, 0.0

    @property
    def spent(self) -> float:
        """Seconds that are gone."""
        return self._spent + self._now() - self._started

    @property
    def left(self) -> float:
        """Seconds."""
        return self._budget - self.spent

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from work that is done."""
        self._tokens += tokens
        self._seconds += seconds

    @property
    def tokens_per_second(self) -> float:
        """Measured over everything so far, validation included."""
        return self._tokens / self._seconds if self._seconds else math.inf

    def holds(self, tokens: int) -> bool:
        """Whether so much training ends within the time left."""
        return MARGIN * tokens / self.tokens_per_second <= self.left


def plan_rungs(clock: Clock, *, whole_run: int, step_tokens: int) -> tuple[int, ...]:
    """Tokens of training at which trials are compared; the last is the whole run, or what time allows.

    Raises:
        BadInput: there is no time for even a short comparison; the message says how much is needed.
    """
    least = MIN_STEPS * step_tokens
    last = min(whole_run, int(SHARE_OF_CONTROL * clock.left * clock.tokens_per_second / MARGIN))
    if last < min(least, whole_run):
        needed = MARGIN * min(least, whole_run) / clock.tokens_per_second / SHARE_OF_CONTROL
        raise BadInput(
            f"this machine trains {clock.tokens_per_second:,.0f} tokens a second: a sweep needs at least "
            f"{math.ceil((clock.spent + needed) / 60)} minutes here"
        )
    rungs = [last]
    while rungs[0] // FACTOR >= least:
        rungs.insert(0, rungs[0] // FACTOR)
    return tuple(rungs)


class Search:
    """The trials so far, and the next setting to try.

    Args:
        space: What is tried.
        seed: The same seed and scores give the same settings.
    """

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        import optuna  # noqa: PLC0415 - 0.4 s, and only sweeps need it

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._seed = space, seed
        self._sampler = optuna.samplers.TPESampler
        self._study = optuna.create_study(
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
        )

    def next(self, known: Setting | None = None) -> "Decisions":
        """Begin a trial: of a setting that is known, or of one that the search chooses."""
        # seeded for each trial, so that what is drawn does not depend on where the sweep was stopped
        number = len(self._study.trials)
        self._study.sampler = self._sampler(
            seed=self._seed + number, n_startup_trials=RANDOM_TRIALS
        )
        if known is not None:
            self._study.enqueue_trial(msgspec.structs.asdict(known))
        trial = self._study.ask()
        low, high = self._space.learning_rate
        setting = Setting(
            learning_rate=trial.suggest_float("learning_rate", low, high, log=True),
            rank=trial.suggest_categorical("rank", self._space.ranks),
            references=trial.suggest_categorical("references", self._space.references),
            min_epochs=trial.suggest_categorical("min_epochs", self._space.min_epochs),
        )
        return Decisions(self._study, trial, setting)

    def replay(self, trials: Iterable[Trial]) -> None:
        """Learn from trials that have ended, in their order."""
        for trial in trials:
            decisions = self.next(trial.setting)
            for number, rung in enumerate(trial.rungs):
                decisions.goes_on(number, rung)
            decisions.end(finished=trial.ended == "finished")


class Decisions:
    """One trial under way, as the search sees it."""

    def __init__(
        self, study: "optuna.Study", trial: "optuna.trial.Trial", setting: Setting
    ) -> None:
        self._study, self._trial, self._last = study, trial, math.nan
        self.setting = setting

    def goes_on(self, number: int, rung: Rung) -> bool:
        """Whether the trial is good enough, at rung ``number``, to train on."""
        self._last = rung.mean
        self._trial.report(rung.mean, FACTOR**number)
        return not self._trial.should_prune()

    def end(self, *, finished: bool) -> None:
        """The trial has ended, at its last rung or before."""
        import optuna  # noqa: PLC0415

        if finished:
            self._study.tell(self._trial, self._last)
        else:
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
