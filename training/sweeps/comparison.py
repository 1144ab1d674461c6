"""Which trial won, by how much, and what each parameter did: as figures, and in words."""

import math
from collections.abc import Callable, Sequence

import msgspec

from training.config import Recipe
from training.evaluation.confidence_intervals import MIN_SAMPLES, bootstrap_interval
from training.results import perplexity
from training.sweeps.config import Setting
from training.sweeps.records import Ended, Plan, Trial

FEW = 8
"""Trials of which a mean by rank or by references is mostly the luck of the other parameters."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One trial's nats a token minus another's, over the ``items`` conversations that both were scored on.

    Below 0 is better. ``low`` and ``high``: the 95 % bootstrap interval over conversations; None of too few.
    """

    against: int
    mean: float
    low: float | None
    high: float | None
    items: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and self.low * self.high > 0

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{abs(self.mean):.3f} nats a token (too few conversations for an interval)"
        ends = sorted((-self.low, -self.high)) if self.mean < 0 else (self.low, self.high)
        return (
            f"{abs(self.mean):.3f} nats a token (95 % interval {ends[0]:.3f} to {ends[1]:.3f}, "
            f"{self.items} conversations)"
        )


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """A trial in the table. ``scores``: nats a token at each rung it has reached."""

    number: int
    setting: Setting
    scores: tuple[float, ...]
    seconds: float
    ended: Ended


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep found.

    ``rungs``: tokens of training at which trials were compared. ``winner``: the number of the trial with the
    lowest validation loss at the last rung; None where none got there. ``gaps``: the winner minus other
    trials that did, the control first. ``words``: all of it in sentences.
    """

    rungs: tuple[int, ...]
    seconds: float
    trials: tuple[TrialResult, ...]
    winner: int | None
    gaps: tuple[Gap, ...]
    words: tuple[str, ...]


def compare(plan: Plan, trials: Sequence[Trial], *, recipe: Recipe, seconds: float) -> SweepResult:
    """Compare the trials of a sweep; ``seconds`` is what it has taken so far."""
    finished = sorted(
        (trial for trial in trials if trial.ended == "finished"), key=lambda t: t.rungs[-1].mean
    )
    gaps: tuple[Gap, ...] = ()
    if finished:
        others = sorted(finished[1:], key=lambda trial: trial.number != 0)
        gaps = tuple(_gap(finished[0], other) for other in others)
    found = SweepResult(
        rungs=plan.rungs,
        seconds=round(seconds, 1),
        trials=tuple(
            TrialResult(
                number=trial.number,
                setting=trial.setting,
                scores=tuple(rung.mean for rung in trial.rungs),
                seconds=round(math.fsum(rung.seconds for rung in trial.rungs), 1),
                ended=trial.ended,
            )
            for trial in trials
        ),
        winner=finished[0].number if finished else None,
        gaps=gaps,
        words=(),
    )
    return msgspec.structs.replace(found, words=_words(found, plan, recipe.name))


def _gap(one: Trial, other: Trial) -> Gap:
    """Paired by conversation."""
    mine, theirs = one.rungs[-1].losses, other.rungs[-1].losses
    names = [name for name in mine if name in theirs]
    gaps = [mine[name].nats - theirs[name].nats for name in names]
    sizes = [mine[name].tokens for name in names]
    low = high = None
    if len(names) >= MIN_SAMPLES:
        low, high = bootstrap_interval(gaps, sizes=sizes, seed=0)
    mean = math.fsum(gaps) / sum(sizes)
    return Gap(against=other.number, mean=mean, low=low, high=high, items=len(names))


def _words(found: SweepResult, plan: Plan, name: str) -> tuple[str, ...]:
    """The result in sentences, the most important first."""
    if found.winner is None:
        return (f"No trial has reached {plan.rungs[-1]:,} tokens: give the sweep more minutes.",)
    return (
        _who_won(found, name),
        *_why(found, name),
        *_parameters(found, plan),
        _how(found, plan),
        *_cautions(found, plan),
    )


def _who_won(found: SweepResult, name: str) -> str:
    best = found.trials[found.winner or 0]
    others = len(found.trials) - 1
    if best.number == 0:
        return f"The recipe {name!r} as it is won ({best.setting}): no other trial ({others}) was better."
    return (
        f"Trial {best.number} of {others} won: {best.setting}. The recipe {name!r} has "
        f"{found.trials[0].setting}."
    )


def _why(found: SweepResult, name: str) -> list[str]:
    """Against the control, and against the next best."""
    best = found.trials[found.winner or 0]
    said = []
    for gap in found.gaps[: 1 if best.number == 0 else 2]:
        other = found.trials[gap.against]
        who = f"the recipe {name!r}" if gap.against == 0 else f"trial {gap.against}"
        chance = "more than chance" if gap.certain else "so it may be chance"
        said.append(
            f"After {found.rungs[-1]:,} tokens its held-out perplexity is {_perplexity(best)}, that of {who} "
            f"{_perplexity(other)}: it is ahead by {gap}, {chance}."
        )
    return said


def _perplexity(trial: TrialResult) -> str:
    value = perplexity(trial.scores[-1])
    return f"{value:.2f}" if value is not None else "not a number"


def _parameters(found: SweepResult, plan: Plan) -> list[str]:
    """What each did at the first rung, which all trials have reached."""
    rate = plan.control.learning_rate
    views: dict[str, Callable[[Setting], str]] = {
        "Rate": lambda s: (
            "lower than the recipe's"
            if s.learning_rate < rate
            else "the recipe's"
            if s.learning_rate == rate
            else "higher"
        ),
        "Rank": lambda s: str(s.rank),
        "References": lambda s: str(s.references),
        "Epochs": lambda s: f"{s.min_epochs:g} or more",
    }
    reached = [trial for trial in found.trials if trial.scores]
    said = []
    for title, view in views.items():
        groups: dict[str, list[float]] = {}
        for trial in sorted(reached, key=lambda t: _order(t.setting, title)):
            groups.setdefault(view(trial.setting), []).append(trial.scores[0])
        if len(groups) < 2:  # noqa: PLR2004 - nothing to compare
            continue
        means = {value: math.fsum(scores) / len(scores) for value, scores in groups.items()}
        best = min(means, key=means.__getitem__)
        each = ", ".join(f"{v} {means[v]:.2f} ({len(groups[v])})" for v in groups)
        said.append(
            f"{title}, nats after {found.rungs[0]:,} tokens (trials): {each}; best: {best}."
        )
    return said


def _order(setting: Setting, title: str) -> float:
    return {
        "Rate": setting.learning_rate,
        "Rank": setting.rank,
        "References": setting.references,
        "Epochs": setting.min_epochs,
    }[title]


def _how(found: SweepResult, plan: Plan) -> str:
    counts: dict[str, int] = {}
    for trial in found.trials:
        counts[trial.ended or "under way"] = counts.get(trial.ended or "under way", 0) + 1
    ended = ", ".join(f"{count} {how}" for how, count in counts.items())
    tokens = sum(plan.rungs[len(t.scores) - 1] for t in found.trials if t.scores)
    return f"{len(found.trials)} trials in {found.seconds / 60:.1f} minutes and {tokens:,} training tokens: {ended}."


def _cautions(found: SweepResult, plan: Plan) -> list[str]:
    said = [
        "Scores are of the validation split, on which the winner was also chosen, so they flatter it; a job's "
        "report is of the test split, which no trial read."
    ]
    if plan.rungs[-1] < plan.whole_run:
        said.append(
            f"Trials end at {plan.rungs[-1]:,} of the recipe's {plan.whole_run:,} tokens, for want of time; a longer "
            "run may want a lower rate."
        )
    if len(found.trials) <= FEW:
        said.append("So few trials say little of single parameters.")
    return said
