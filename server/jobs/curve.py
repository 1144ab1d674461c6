"""A run's curve: its points, what was measured at each, and what the whole shows, in a sentence.

Points come from a job's history, whatever process reads it and whenever. ``Curve.seq`` is the number of
the last event that they hold: what comes later is read from there, so that none is missed.
"""

import csv
import io
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Adapter, Job, JobEvent
from server.db.scope import of_tenant
from server.jobs.schemas import JobEventView

MAX_POINTS = 1_000
"""Steps that a page gets at most; the CSV has them all."""
ROWS_AT_ONCE = 1_000
MAX_KEPT = 32  # curves; one of 10,000 steps takes about 10 MB
CURVE_KINDS = ("step", "validation")
CSV_COLUMNS = (
    "step",
    "training_loss",
    "validation_loss",
    "best",
    "tokens",
    "tokens_per_second",
    "memory_bytes",
    "at",
)

Mark = tuple[str, float, int, float, float | None, float | None, int | None]
"""A measurement as scripts get it: ("step" or "validation", at, step, loss, tokens/s, memory, tokens).

Of a validation the last three are: 1 where it was the best so far, else 0; null; null.
"""


class Point(msgspec.Struct, kw_only=True):
    """One step. None where it is not known: most steps are not followed by a validation.

    ``at``: when the step ended, ``valid_at`` its validation, in seconds since the epoch.
    """

    step: int
    at: float = 0.0
    train_loss: float | None = None
    train_accuracy: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    valid_at: float = 0.0
    valid_loss: float | None = None
    valid_accuracy: float | None = None
    best: bool = False


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A run's points in the order of their steps, as of the event numbered ``seq``.

    ``step_seq``: the number of the newest event about a step, 0 where there is none.
    """

    points: tuple[Point, ...]
    seq: int
    step_seq: int

    @property
    def trained(self) -> list[Point]:
        """The points with a training loss."""
        return [point for point in self.points if point.train_loss is not None]

    @property
    def validated(self) -> list[Point]:
        """The points with a validation loss."""
        return [point for point in self.points if point.valid_loss is not None]

    @property
    def last(self) -> Point | None:
        """The last step that was taken."""
        return next(reversed(self.trained), None)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory that any step told; None where none told it."""
        return max((p.memory_bytes for p in self.points if p.memory_bytes), default=None)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a curve is compared with: the validation loss of the live version's weights."""

    name: str
    loss: float


async def read_curve(session: AsyncSession, job: Job) -> Curve:
    """The curve of a job as far as its history goes.

    Of a step that was repeated after a resumption the last counts. Events are ordered by the trainer's
    time: some come into the history late.
    """
    return (await _read_on(session, job, _Read())).curve


class CurveReader:
    """Reads curves, and of one that it read before only what came since: events never change.

    Keeps the ``MAX_KEPT`` that were last asked for. Use on one event loop.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Read] = OrderedDict()

    async def read(self, session: AsyncSession, job: Job) -> Curve:
        """As ``read_curve``."""
        found = await _read_on(session, job, self._kept.get(job.id) or _Read())
        before = self._kept.get(job.id)
        if before is None or before.curve.seq <= found.curve.seq:  # else another was faster
            self._kept[job.id] = found
        self._kept.move_to_end(job.id)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found.curve


class _Read(msgspec.Struct, frozen=True):
    """The events about steps that were read, and the curve that they make."""

    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    curve: Curve = Curve(points=(), seq=0, step_seq=0)


async def _read_on(session: AsyncSession, job: Job, before: _Read) -> _Read:
    mine, known = of_tenant(job.tenant_id), before.curve
    # first, so that an event which is added meanwhile comes after it
    seq = await session.scalar(mine.select(func.max(JobEvent.seq)).where(JobEvent.job_id == job.id))
    if not seq or seq <= known.seq:
        return before
    query = (
        mine.select(JobEvent.seq, JobEvent.kind, JobEvent.body)
        .where(
            JobEvent.job_id == job.id,
            JobEvent.kind.in_(CURVE_KINDS),
            JobEvent.seq > known.seq,
            JobEvent.seq <= seq,
        )
        .order_by(JobEvent.seq)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    found: list[tuple[str, dict[str, Any]]] = []
    step_seq = known.step_seq
    async for number, kind, body in await session.stream(query):
        found.append((kind, body))
        if kind == "step":
            step_seq = number
    events = (*before.events, *found)
    points = tuple(_merged(events)) if found else known.points
    return _Read(events, Curve(points=points, seq=seq, step_seq=step_seq))


def _merged(events: Iterable[tuple[str, dict[str, Any]]]) -> list[Point]:
    points: dict[int, Point] = {}
    for kind, body in sorted(events, key=lambda each: each[1].get("at", 0.0)):
        step = body["step"]
        if kind == "step":
            points[step] = Point(
                step=step,
                at=body.get("at", 0.0),
                train_loss=body["loss"],
                train_accuracy=body.get("accuracy"),
                tokens=body.get("tokens"),
                tokens_per_second=body.get("tokens_per_second"),
                memory_bytes=body.get("memory_bytes"),
            )
        else:
            point = points.setdefault(step, Point(step=step))
            point.valid_at = body.get("at", 0.0)
            point.valid_loss, point.valid_accuracy = body["loss"], body.get("accuracy")
            point.best = body["best"]
    return [points[step] for step in sorted(points)]


def chosen(points: Sequence[Point]) -> Point | None:
    """The step whose weights became the adapter: the best validated one, else the last."""
    best = [point for point in points if point.best] or points
    return best[-1] if best else None


async def live_reference(session: AsyncSession, job: Job, live: Adapter | None) -> Reference | None:
    """The validation loss of the live version's weights, to draw the curve of a job of its tenant against.

    None where nothing is live, where that is this job's own adapter, where it was made of another base or
    trained in another way (its losses are then of another kind), and where it has no validation.
    """
    mine = of_tenant(job.tenant_id)
    if live is None or live.job_id is None or live.job_id == job.id:
        return None
    before = await mine.get(session, Job, live.job_id)
    if before is None or before.base != job.base or _kind(before) != _kind(job):
        return None
    query = mine.select(JobEvent.kind, JobEvent.body).where(
        JobEvent.job_id == before.id, JobEvent.kind == "validation"
    )
    events = [(kind, body) for kind, body in await session.execute(query.order_by(JobEvent.seq))]
    point = chosen(_merged(events))
    if point is None or point.valid_loss is None:
        return None
    return Reference(name=f"@{live.version}", loss=point.valid_loss)


def _kind(job: Job) -> str:
    return str((job.method or {}).get("type", "supervised"))


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about ``MAX_POINTS`` of them: each n-th, the last one, and all that were validated."""
    stride = -(-len(points) // MAX_POINTS) or 1
    last = len(points) - 1
    return [
        point
        for index, point in enumerate(points)
        if index % stride == 0 or index == last or point.valid_loss is not None
    ]


def marks_of(points: Sequence[Point]) -> list[Mark]:
    """Points as measurements for scripts, each with its time."""
    marks: list[Mark] = []
    for p in points:
        if p.train_loss is not None:
            marks.append(
                ("step", p.at, p.step, p.train_loss, p.tokens_per_second, p.memory_bytes, p.tokens)
            )
        if p.valid_loss is not None:
            best = float(p.best)
            marks.append(("validation", p.valid_at, p.step, p.valid_loss, best, None, None))
    return marks


def mark_of(event: JobEventView) -> Mark | None:
    """One event as a measurement for scripts; None where it is of another kind."""
    if event.kind not in CURVE_KINDS:
        return None
    (mark,) = marks_of(_merged([(event.kind, event.body)]))
    return mark


def to_csv(curve: Curve) -> bytes:
    """Every point, a line each; what is not known is empty. ``at`` is in seconds since the epoch."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    for p in curve.points:
        best = "" if p.valid_loss is None else str(p.best).lower()
        figures = (p.tokens, p.tokens_per_second, p.memory_bytes, p.at or p.valid_at)
        rows.writerow(
            [p.step, *map(_figure, (p.train_loss, p.valid_loss)), best, *map(_figure, figures)]
        )
    return text.getvalue().encode()


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5f}"


def loss_sentence(curve: Curve, reference: Reference | None) -> tuple[str, str]:
    """What the losses show: a short claim, and the figures that it rests on; both empty without a point."""
    trained, validated = curve.trained, curve.validated
    if not trained:
        return "", ""
    first, last = trained[0], trained[-1]
    figures = f"Training loss {_went(first.train_loss, last.train_loss)} at step {last.step}."
    if not validated:
        return "No validation yet.", figures
    best = min(validated, key=lambda point: (point.valid_loss or 0.0, point.step))
    newest = validated[-1]
    figures += f" Best validation so far: {best.valid_loss:.2f} at step {best.step}."
    if reference is not None and best.valid_loss is not None:
        if best.valid_loss < reference.loss:
            claim = "Validation is already below what is live."
        else:
            claim = "Validation is not below what is live yet."
        return claim, f"{figures} Each was validated on its own run's conversations."
    if newest is best:
        return "Validation is still falling." if len(
            validated
        ) > 1 else "One validation so far.", figures
    return "Validation rises again: the best weights are kept.", figures


def _went(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return ""
    return f"{'fell' if last < first else 'went'} from {first:.2f} to {last:.2f}"


def speed_sentence(curve: Curve) -> tuple[str, str]:
    """What the speeds show, as ``loss_sentence``."""
    speeds = [point.tokens_per_second for point in curve.trained if point.tokens_per_second]
    if not speeds:
        return "", ""
    mean = sum(speeds) / len(speeds)
    return (
        f"{speeds[-1]:,.0f} tokens a second since training began or went on.",
        f"Each point is the mean since then; over all points {mean:,.0f}. Validations are left out.",
    )


def memory_sentence(curve: Curve, *, expected_bytes: int | None) -> tuple[str, str]:
    """What the memory shows, as ``loss_sentence``."""
    peak = curve.peak_memory_bytes
    if peak is None:
        return "", "" if not curve.trained else "This run's trainer did not tell its memory."
    claim = f"{gib(peak)} at most so far."
    if expected_bytes is None:
        return claim, ""
    more = "more" if peak > expected_bytes else "less"
    return claim, f"That is {more} than the {gib(expected_bytes)} that was estimated."


def gib(size: float) -> str:
    """Bytes in GiB, with one digit behind the point."""
    return f"{size / 2**30:.1f} GiB"
