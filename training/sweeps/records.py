"""What a sweep has measured: one JSON file a trial, so that a sweep that was killed goes on."""

import math
from pathlib import Path
from typing import Literal

import msgspec

from training.filesystem import write_atomically
from training.sweeps.config import Setting

Ended = Literal["", "finished", "worse", "out of time", "diverged"]
"""How a trial ended: with its last step; because others were better at the same rung; because what
was left of the time did not hold the next rung; because its loss became no number. '' while it runs."""


class Loss(msgspec.Struct, frozen=True, array_like=True):
    """Of one validation conversation: nats of all its assistant tokens, and how many these are."""

    nats: float
    tokens: int


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """A trial's score after ``tokens`` of training; ``seconds`` since the rung before, validation included."""

    tokens: int
    seconds: float
    losses: dict[str, Loss]

    @property
    def mean(self) -> float:
        """Nats a token."""
        nats = math.fsum(loss.nats for loss in self.losses.values())
        return nats / sum(loss.tokens for loss in self.losses.values())


class Trial(msgspec.Struct, kw_only=True):
    """One setting, and its score at each rung it has reached. Trial 0 is the control.

    ``spent``: seconds of the sweep's time that were gone when it was last written.
    """

    number: int
    setting: Setting
    rungs: list[Rung] = []
    ended: Ended = ""
    spent: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep decided at its start. ``rungs``: tokens of training at which trials are compared.

    ``whole_run``: tokens of the recipe's own run, which the last rung may be shorter than. ``fingerprint``:
    of what was asked for.
    """

    fingerprint: str
    rungs: tuple[int, ...]
    whole_run: int
    control: Setting


class Records:
    """The files of a sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plan = folder / "plan.json"

    def plan(self) -> Plan | None:
        """What was decided; None before."""
        if not self._plan.is_file():
            return None
        return msgspec.json.decode(self._plan.read_bytes(), type=Plan)

    def save_plan(self, plan: Plan) -> None:
        """Write what was decided."""
        write_atomically(self._plan, msgspec.json.encode(plan))

    def trials(self) -> list[Trial]:
        """Every trial that has reached a rung, in their order."""
        paths = sorted(self._folder.glob("trial-*.json"))
        return [msgspec.json.decode(path.read_bytes(), type=Trial) for path in paths]

    def save(self, trial: Trial) -> None:
        """Write a trial as it is now."""
        write_atomically(
            self._folder / f"trial-{trial.number:03d}.json", msgspec.json.encode(trial)
        )
