"""How usage looks: a chart of days with its sentence, limits as meters."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NamedTuple

from server.limits.limiter import LIMITS, NEAR, WORDS, LimitName, LimitNow
from server.settings import Limits
from server.usage.overview import Overview, Use
from server.web.console.figures import duration, number
from server.web.console.plots import Columns, draw_columns

DAYS = (7, 30, 90)
DEFAULT_DAYS = 30
_LABELS = 6  # under the chart, at most


class Series(NamedTuple):
    """One part of each column: its class and its name."""

    kind: str
    name: str
    value: Callable[[Use], float]


class Measure(NamedTuple):
    """What a chart shows."""

    name: str
    heading: str
    series: tuple[Series, ...]
    label: Callable[[float], str]


def _seconds(value: float) -> str:
    return duration(value) if value else "0"


def _short(value: float) -> str:
    """``12``, ``3.5 k``, ``2 M``: for an axis."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


MEASURES: dict[str, Measure] = {
    "tokens": Measure(
        "Tokens",
        "Tokens by day",
        (
            Series("first", "in", lambda use: use.prompt_tokens),
            Series("second", "out", lambda use: use.completion_tokens),
        ),
        _short,
    ),
    "requests": Measure(
        "Requests",
        "Requests by day",
        (
            Series("first", "answered", lambda use: use.requests - use.errors),
            Series("failed", "failed", lambda use: use.errors),
            Series("refused", "refused by a limit", lambda use: use.refused),
        ),
        _short,
    ),
    "seconds": Measure(
        "Seconds",
        "Seconds by day",
        (
            Series("first", "engine", lambda use: use.engine_seconds),
            Series("second", "trainer", lambda use: use.trainer_seconds),
        ),
        _seconds,
    ),
}


class Meter(NamedTuple):
    """A limit, and how near it is. ``tone``: nothing, warn or bad; ``when``: until nothing counts."""

    name: str
    limit: int
    used: int
    tone: str
    word: str
    when: str


def draw(seen: Overview, measure: str) -> Columns | None:
    """The chart of a measure; None where there is nothing to show."""
    shown = MEASURES[measure]
    labels = day_labels([each.day for each in seen.days])
    return draw_columns(
        [
            (
                _column_text(each.day, each.use, shown),
                [series.value(each.use) for series in shown.series],
            )
            for each in seen.days
        ],
        [series.kind for series in shown.series],
        x_labels=labels,
        label=shown.label,
    )


def sentence(seen: Overview, measure: str) -> str:
    """What a chart shows, in words."""
    total, days = seen.total, len(seen.days)
    figures = {
        "tokens": lambda use: f"{number(use.tokens)} tokens",
        "requests": lambda use: f"{number(use.requests)} requests",
        "seconds": lambda use: duration(use.engine_seconds + use.trainer_seconds),
    }
    sums: dict[str, Callable[[Use], float]] = {
        "tokens": lambda use: use.tokens,
        "requests": lambda use: use.requests,
        "seconds": lambda use: use.engine_seconds + use.trainer_seconds,
    }
    whole = {
        "tokens": f"{number(total.prompt_tokens)} tokens in and {number(total.completion_tokens)} out",
        "requests": f"{_requests(total.requests)}, of which {number(total.errors)} failed; "
        f"{number(total.refused)} more were refused by a limit",
        "seconds": f"{duration(total.engine_seconds)} of the engine and "
        f"{duration(total.trainer_seconds)} of training",
    }[measure]
    busiest = max(seen.days, key=lambda each: sums[measure](each.use))
    return (
        f"In {days} days: {whole}. The busiest was {day_text(busiest.day)} with "
        f"{figures[measure](busiest.use)}; today so far {figures[measure](seen.days[-1].use)}."
    )


def _requests(count: int) -> str:
    return f"{number(count)} request" + ("" if count == 1 else "s")


def meters(limits: Sequence[LimitNow]) -> list[Meter]:
    """Limits that are set as meters."""
    return [
        Meter(
            WORDS[each.name],
            each.limit,
            each.used,
            *_standing(each),
            _when(each),
        )
        for each in limits
    ]


def nearest(limits: Sequence[LimitNow]) -> Meter | None:
    """The limit of which the largest share is used; None where none is set."""
    if not limits:
        return None
    return meters([max(limits, key=lambda each: each.share)])[0]


def limit_rows(limits: Limits) -> list[tuple[str, str]]:
    """(name, value) of every limit, in words where it is not set."""
    return [(WORDS[name], _value(limits, name)) for name in LIMITS]


def unlimited(limits: Limits) -> str:
    """What is not limited, in a line; empty where all is."""
    found = [WORDS[name].lower() for name in LIMITS if getattr(limits, name) is None]
    return ", ".join(found)


def in_words(limits: Limits) -> str:
    """The limits that are set, in a line: ``60 requests a minute``."""
    found = [
        f"{number(getattr(limits, name))} {WORDS[name].lower()}"
        for name in LIMITS
        if getattr(limits, name) is not None
    ]
    return ", ".join(found) or "none"


def day_links(days: int, rest: str = "") -> list[dict[str, Any]]:
    """The choice of how many days, for ``seg``; ``rest`` is what else the address says."""
    return [
        {"name": f"{each} days", "href": f"?days={each}{rest}", "current": each == days}
        for each in DAYS
    ]


def measure_links(measure: str, days: int) -> list[dict[str, Any]]:
    """The choice of what the chart shows, for ``seg``."""
    return [
        {
            "name": each.name,
            "href": f"?days={days}&measure={name}#chart",
            "current": name == measure,
        }
        for name, each in MEASURES.items()
    ]


def _value(limits: Limits, name: LimitName) -> str:
    value: int | None = getattr(limits, name)
    return "no limit" if value is None else number(value)


def _standing(limit: LimitNow) -> tuple[str, str]:
    if limit.share >= 1:
        return "bad", "Reached"
    return ("warn", "Near") if limit.share >= NEAR else ("", "")


def _when(limit: LimitNow) -> str:
    if limit.name == "concurrent_streams":
        return "under way here now"
    if limit.name.endswith("_per_day"):
        return f"begins again in {duration(limit.resets_seconds)}, at midnight UTC"
    return "of the last 60 seconds"


def _column_text(day: date, use: Use, measure: Measure) -> str:
    write = duration if measure.label is _seconds else number
    parts = [f"{write(series.value(use))} {series.name}" for series in measure.series]
    return f"{day_text(day)}: {', '.join(parts)}"


def day_labels(days: Sequence[date]) -> list[str]:
    """A text under some of the columns, evenly apart, the last of them always."""
    apart = -(-len(days) // _LABELS)
    last = len(days) - 1
    return [day_text(day) if (last - place) % apart == 0 else "" for place, day in enumerate(days)]


def day_text(day: date) -> str:
    """A day in a chart: ``3 Nov``."""
    return f"{day.day} {day:%b}"
