"""The loss curve: read from a run's events, laid out for an HTML page."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from training.events import Event, StepEvent, ValidationEvent, parse

MAX_POINTS = 300


class CurvePoint(msgspec.Struct, frozen=True):
    """A loss, nats per assistant token, after ``step`` steps."""

    step: int
    loss: float


class Tick(msgspec.Struct, frozen=True):
    """A label on an axis; ``at`` in per cent of it."""

    at: float
    text: str


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Both curves in a box of 100 by 100, y downwards; points as SVG's ``x,y x,y``."""

    training: str
    validation: str
    dots: list[tuple[float, float, str]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str


def read_curves(path: Path) -> tuple[list[CurvePoint], list[CurvePoint]]:
    """(training, validation) losses of an ``events.jsonl``; a repeated step counts as its last.

    Long runs are thinned: each training point is then the mean of its neighbours' losses.
    """
    steps: dict[int, float] = {}
    validations: dict[int, float] = {}
    with path.open("rb") as lines:
        for line in lines:
            event: Event | None = parse(line)
            if isinstance(event, StepEvent) and math.isfinite(event.loss):
                steps[event.step] = event.loss
            elif isinstance(event, ValidationEvent) and math.isfinite(event.loss):
                validations[event.step] = event.loss
    return _thinned(steps), [CurvePoint(step, validations[step]) for step in sorted(validations)]


def _thinned(losses: dict[int, float]) -> list[CurvePoint]:
    ordered = sorted(losses.items())
    stride = -(-len(ordered) // MAX_POINTS) or 1
    groups = [ordered[i : i + stride] for i in range(0, len(ordered), stride)]
    return [
        CurvePoint(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups
    ]


def chart(training: Sequence[CurvePoint], validation: Sequence[CurvePoint]) -> Chart | None:
    """Lay the curves out; None where there is nothing to draw."""
    every = [*training, *validation]
    if not every:
        return None
    y_marks = _round_marks(max(point.loss for point in every))
    x_marks = _round_marks(max(point.step for point in every), whole=True)
    top, last = y_marks[-1], max(point.step for point in every) or 1

    def x(step: float) -> float:
        return round(100 * step / last, 2)

    def y(loss: float) -> float:
        return round(100 * (1 - loss / top), 2)

    def line(points: Sequence[CurvePoint]) -> str:
        return " ".join(f"{x(point.step)},{y(point.loss)}" for point in points)

    parts = [
        f"{name} loss from {points[0].loss:.2f} to {points[-1].loss:.2f}"
        for name, points in (("training", training), ("validation", validation))
        if points
    ]
    return Chart(
        training=line(training),
        validation=line(validation),
        dots=[(x(p.step), y(p.loss), f"step {p.step}: {p.loss:.3f}") for p in validation],
        x_ticks=[Tick(x(mark), f"{mark:g}") for mark in x_marks if mark <= last],
        y_ticks=[Tick(y(mark), f"{mark:g}") for mark in y_marks],
        summary=f"{', '.join(parts)} in {last} steps",
    )


def _round_marks(most: float, *, whole: bool = False) -> list[float]:
    """Three to six round numbers from 0 to at least ``most``."""
    most = max(most, 1e-3)
    power = 10.0 ** math.floor(math.log10(most))
    step = next(s * power for s in (0.2, 0.5, 1.0, 2.0) if math.ceil(most / (s * power)) <= 5)  # noqa: PLR2004
    if whole:
        step = max(1.0, math.ceil(step))
    return [round(step * number, 6) for number in range(math.ceil(most / step - 1e-9) + 1)]
