"""Detects in a whole file whether dates have the day first, and whether the newest turn is first."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from connectors.errors import BadMapping
from connectors.importers.base import quoted
from connectors.importers.timestamps import ParsedTimestamp, Timestamp

Dates = Literal["day-first", "month-first"]
_HALF_A_DAY = 12 * 3600
_CLEARLY = 2  # as many steps the one way as the other, at least


class DateOrderDetector:
    """Call ``observe`` and ``observe_conversation`` for all times of a file, then ``resolve``."""

    def __init__(self) -> None:
        self._only = {"day-first": 0, "month-first": 0}
        self._proof: dict[str, tuple[int, str]] = {}
        self._ambiguous: tuple[int, str] | None = None
        self._differs = False
        # for each order: rises and falls from a row to the next, in conversations and in the file
        self._steps = {"conversation": ([0, 0], [0, 0]), "file": ([0, 0], [0, 0])}
        self._last: ParsedTimestamp | None = None

    def observe(self, line: int, text: str, time: ParsedTimestamp) -> None:
        """Take the next row's time, in the order of the file."""
        if time.ambiguous:
            self._ambiguous = self._ambiguous or (line, text)
        elif time.month_first is None or time.day_first is None:
            only = "day-first" if time.month_first is None else "month-first"
            self._only[only] += 1
            self._proof.setdefault(only, (line, text))
        if self._last is not None and self._last.has_date and time.has_date:
            self._step("file", self._last, time)
        self._last = time

    def observe_conversation(self, times: Sequence[ParsedTimestamp]) -> None:
        """Take the times of one conversation, in the order of the file."""
        for earlier, later in pairwise(times):
            self._step("conversation", earlier, later)
        if not self._differs and any(time.ambiguous for time in times):
            orders = [
                sorted(
                    range(len(times)),
                    key=[time.seconds(month_first=order) for time in times].__getitem__,
                )
                for order in (False, True)
            ]
            self._differs = orders[0] != orders[1]

    def resolve(self, given: Dates | None) -> tuple[bool, str]:
        """Whether the month comes first, and a note on why; the note is empty where it is clear.

        Args:
            given: What the operator said.

        Raises:
            BadMapping: the file does not decide it, and the order of some conversation depends on it.
        """
        if self._ambiguous is None and not any(self._only.values()):
            return False, ""
        line, text = self._ambiguous or next(iter(self._proof.values()))
        if given:
            return given == "month-first", f"{given}, as told"
        proven = [order for order, count in self._only.items() if count]
        if len(proven) == 1:
            line, text = self._proof[proven[0]]
            return proven[0] == "month-first", f"{proven[0]}: {quoted(text)} in line {line}"
        for what, why in (
            ("conversation", "only so do conversations stand in order"),
            ("file", "only so does the file stand in order"),
        ):
            breaks = [min(steps) for steps in self._steps[what]]
            if (breaks[0] == 0) != (breaks[1] == 0):
                order = "day-first" if breaks[0] == 0 else "month-first"
                return order == "month-first", f"{order}: {why} (say --dates if it is not so)"
        if self._differs:
            mixed = " (there are dates that can only be the one, and others only the other)"
            raise BadMapping(
                f"line {line}: does {quoted(text)} begin with the day or with the month? The "
                f"file does not tell{mixed if proven else ''}, and the order of turns depends on "
                "it; pass --dates day-first or --dates month-first"
            )
        return (
            False,
            f"day or month first? {quoted(text)} in line {line} does not tell; no order depends on it",
        )

    def newest_first(self, *, month_first: bool) -> bool | None:
        """Whether conversations list their newest turn first; None where that differs."""
        rises, falls = self._steps["conversation"][month_first]
        if falls > _CLEARLY * rises:
            return True
        return False if rises > _CLEARLY * falls else None

    def _step(self, what: str, earlier: ParsedTimestamp, later: ParsedTimestamp) -> None:
        for order, steps in enumerate(self._steps[what]):
            step = seconds_between(
                (earlier.seconds(month_first=bool(order)), earlier.has_date),
                (later.seconds(month_first=bool(order)), later.has_date),
            )
            steps[0] += step > 0
            steps[1] += step < 0


def seconds_between(earlier: Timestamp, later: Timestamp) -> float:
    """Seconds from one to the other; between times of day, half a day or more crosses midnight."""
    step = later[0] - earlier[0]
    if not earlier[1] and not later[1] and abs(step) >= _HALF_A_DAY:
        return -step
    return step
