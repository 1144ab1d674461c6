"""What an account used in recent minutes and days, and the arithmetic of limits.

Minutes slide: of the previous minute's use counts the share that lies within the last 60 seconds, as if
it had been used evenly. Days are UTC days and start at zero.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["requests", "tokens"]
MINUTE = 60
DAY = 86_400
GRAIN = 1e-6  # of a request or token; smaller differences are rounding of floats


@dataclass(slots=True)
class Bucket:
    """Requests and tokens of one minute or day, as this copy of the server knows them.

    The ``new`` ones are included, and are not in the database yet, which other copies write too.
    """

    requests: int = 0
    tokens: int = 0
    new_requests: int = 0
    new_tokens: int = 0

    def add(self, requests: int, tokens: int) -> None:
        """Add to the counts; negative numbers take back what was counted too much."""
        self.requests += requests
        self.tokens += tokens
        self.new_requests += requests
        self.new_tokens += tokens

    def take(self) -> tuple[int, int]:
        """Return the new (requests, tokens), which the caller writes, and count none as new."""
        taken = self.new_requests, self.new_tokens
        self.new_requests = self.new_tokens = 0
        return taken

    def put_back(self, taken: tuple[int, int]) -> None:
        """Count as new again what could not be written."""
        self.new_requests += taken[0]
        self.new_tokens += taken[1]

    def reconcile(self, requests: int, tokens: int) -> None:
        """Take over the counts of all copies from the database."""
        self.requests = requests + self.new_requests
        self.tokens = tokens + self.new_tokens


@dataclass(slots=True)
class Account:
    """One tenant, or one of its keys: buckets by number of the minute, and of the day.

    ``in_flight`` requests with ``reserved`` tokens are under way in this process. They count in their
    minute's bucket, but in the day's only when they have ended, as in the database.
    """

    minutes: dict[int, Bucket] = field(default_factory=dict)
    days: dict[int, Bucket] = field(default_factory=dict)
    in_flight: int = 0
    reserved: int = 0

    def minute(self, number: int) -> Bucket:
        """A minute's bucket."""
        return self.minutes.get(number) or self.minutes.setdefault(number, Bucket())

    def day(self, number: int) -> Bucket:
        """A day's bucket."""
        return self.days.get(number) or self.days.setdefault(number, Bucket())

    def forget_before(self, minute: int, day: int) -> None:
        """Remove the buckets before these numbers."""
        self.minutes = {number: b for number, b in self.minutes.items() if number >= minute}
        self.days = {number: b for number, b in self.days.items() if number >= day}


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit and what is used of it at a moment.

    ``before`` was used in the previous period, ``current`` in this one, of which ``elapsed`` seconds
    have passed. For days ``before`` is 0.
    """

    kind: Kind
    name: str
    limit: int
    before: int
    current: int
    elapsed: float
    period: int

    @property
    def used(self) -> float:
        """What counts against the limit now."""
        return self.current + self.before * (1 - self.elapsed / self.period)

    @property
    def remaining(self) -> int:
        """How many more are possible now."""
        return max(0, math.floor(self.limit - self.used + GRAIN))

    @property
    def left(self) -> float:
        """Seconds until this period ends."""
        return self.period - self.elapsed

    def wait(self, need: int) -> float:
        """Seconds until ``need`` more fit, if no other request comes; infinite where they never do."""
        room = self.limit - need
        if room < 0:
            return math.inf
        if self.used <= room + GRAIN:
            return 0.0
        if self.period == DAY:
            return self.left
        if self.current <= room:  # when enough of the previous period no longer counts
            return self.period * (1 - (room - self.current) / self.before) - self.elapsed
        return self.left + self.period * (1 - room / self.current)

    def reset(self) -> float:
        """Seconds until no use counts any more."""
        if self.period == DAY or not self.current:
            return self.left if self.before or self.current else 0.0
        return self.left + self.period


def duration(seconds: float) -> str:
    """A time in the form of OpenAI's headers: ``120ms``, ``1.5s``, ``6m0s``, ``2h0m3s``."""
    milliseconds = math.ceil(seconds * 1000 - GRAIN)
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    if milliseconds < 1000 * MINUTE:
        return f"{milliseconds / 1000:g}s"
    minutes, left = divmod(math.ceil(milliseconds / 1000), MINUTE)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{left}s"
