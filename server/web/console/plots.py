"""Curves as SVG that the server draws: what a page shows first, and all it shows without a script.

The area is a box of 1000 by 1000 that the page stretches; texts are placed by per cent of it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

SIZE = 1000
_INTERVALS = 5
_EDGE = 10  # per cent: a text there would leave the area


class Series(NamedTuple):
    """One line. ``kind`` is its class: how it is drawn. ``dots``: also mark each point."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


class Level(NamedTuple):
    """A horizontal line to compare with."""

    name: str
    kind: str
    value: float


class Tag(NamedTuple):
    """A text in the area, at per cent of it from the left and from the top, moved by pixels from there."""

    text: str
    kind: str
    x: float
    y: float
    dx: int
    dy: int
    at_end: bool


class Tick(NamedTuple):
    """A label of an axis, at per cent of it. ``spare``: it is left out where there is little room."""

    at: float
    text: str
    spare: bool = False


class DrawnLine(NamedTuple):
    """A line as SVG's points, and its marks as points in per cent."""

    kind: str
    points: str
    dots: list[tuple[float, float]]


class Plot(NamedTuple):
    """All that a template draws. ``y_ticks`` go from the top down; ``now``: where the last point is."""

    lines: list[DrawnLine]
    levels: list[tuple[str, float]]
    tags: list[Tag]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    now: float | None


def draw(
    series: Sequence[Series],
    *,
    last: float,
    levels: Sequence[Level] = (),
    now: float | None = None,
    now_text: str = "",
    label: Callable[[float], str] = "{:g}".format,
    level_label: Callable[[float], str] = "{:.2f}".format,
) -> Plot | None:
    """Lay lines out; None where there is no point.

    Args:
        series: the lines.
        last: where the x axis ends.
        levels: horizontal lines.
        now: the x of the newest point, where more will come.
        now_text: what stands there.
        label: how the y axis writes a number.
        level_label: how a level's tag writes its number.
    """
    values = [y for line in series for _, y in line.points] + [level.value for level in levels]
    if not any(line.points for line in series):
        return None
    marks = round_marks(min(0.0, *values), max(values))
    bottom, top = marks[0], marks[-1]

    def x(value: float) -> float:
        return round(SIZE * value / last, 1)

    def y(value: float) -> float:
        return round(SIZE * (top - value) / (top - bottom), 1)

    tags = []
    for level in levels:
        text, at = f"{level.name}: {level_label(level.value)}", y(level.value) / 10
        tags.append(Tag(text, level.kind, 100, at, 0, 16 if at < _EDGE else -7, at_end=True))
    if now is not None and now_text and series[0].points:
        at, high = x(now) / 10, y(series[0].points[-1][1]) / 10
        at_end = at > 100 - 2 * _EDGE
        tags.append(Tag(now_text, series[0].kind, at, high, -8 if at_end else 8, 16, at_end=at_end))
    steps = [mark for mark in round_marks(0, last, whole=True) if mark <= last * 0.9]
    return Plot(
        lines=[
            DrawnLine(
                line.kind,
                " ".join(f"{x(step)},{y(value)}" for step, value in line.points),
                [(x(step) / 10, y(value) / 10) for step, value in line.points] if line.dots else [],
            )
            for line in series
            if line.points
        ],
        levels=[(level.kind, y(level.value)) for level in levels],
        tags=tags,
        x_ticks=[*(Tick(x(step) / 10, f"{step:g}") for step in steps), Tick(100, f"step {last:g}")],
        y_ticks=[Tick(y(mark) / 10, label(mark)) for mark in reversed(marks)],
        now=None if now is None else x(now),
    )


def round_marks(least: float, most: float, *, whole: bool = False) -> list[float]:
    """Three to six round numbers, evenly apart, that ``least`` and ``most`` lie between."""
    span = max(most - least, 1e-3)
    power = 10.0 ** math.floor(math.log10(span))
    apart = next(
        size * power
        for size in (0.2, 0.25, 0.5, 1.0, 2.0, 5.0)
        if math.ceil(most / (size * power) - 1e-9) - math.floor(least / (size * power) + 1e-9)
        <= _INTERVALS
    )
    if whole:
        apart = max(1.0, math.ceil(apart))
    first = math.floor(least / apart + 1e-9)
    last = max(math.ceil(most / apart - 1e-9), first + 1)
    return [round(apart * count, 9) for count in range(first, last + 1)]


class Part(NamedTuple):
    """One part of a column, in the area's units from the top."""

    kind: str
    y: float
    height: float


class Column(NamedTuple):
    """A stack of parts over one place of the x axis; ``x`` and ``width`` are those of all its room."""

    x: float
    width: float
    title: str
    parts: list[Part]


class Columns(NamedTuple):
    """All that a template draws of stacked columns. ``y_ticks`` go from the top down."""

    columns: list[Column]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def draw_columns(
    stacks: Sequence[tuple[str, Sequence[float]]],
    kinds: Sequence[str],
    *,
    x_labels: Sequence[str],
    label: Callable[[float], str] = "{:,g}".format,
) -> Columns | None:
    """Lay out stacked columns; None where all of them are empty.

    Args:
        stacks: (what it is in words, its parts from the bottom up) of each column.
        kinds: the class of each part.
        x_labels: what stands under each column; an empty text is nothing.
        label: how the y axis writes a number.
    """
    most = max((sum(parts) for _, parts in stacks), default=0)
    if not most:
        return None
    marks = round_marks(0, most)
    top = marks[-1]
    width = SIZE / len(stacks)
    labelled = [number for number, text in enumerate(x_labels) if text]
    columns = []
    for number, (title, parts) in enumerate(stacks):
        below, drawn = 0.0, []
        for kind, value in zip(kinds, parts, strict=True):
            if value:
                below += value
                y = SIZE * (top - below) / top
                drawn.append(Part(kind, round(y, 1), round(SIZE * value / top, 1)))
        columns.append(Column(round(number * width, 1), round(width, 1), title, drawn))
    return Columns(
        columns=columns,
        x_ticks=[
            Tick(round((number + 0.5) * 100 / len(stacks), 2), x_labels[number], bool(place % 2))
            for place, number in enumerate(reversed(labelled))
        ],
        y_ticks=[Tick(100 * (top - mark) / top, label(mark)) for mark in reversed(marks)],
    )
