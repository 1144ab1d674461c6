"""The figures in a job's history: a point for each step, the best one, and the result file."""

import csv
import io
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import DatasetVersion, Job, JobEvent
from server.db.scope import of_tenant
from training.config import Recipe

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
ROWS_AT_ONCE = 1_000


class Point(msgspec.Struct, kw_only=True):
    """One step. None where it is not known: most steps are not followed by a validation."""

    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    valid_loss: float | None = None
    valid_accuracy: float | None = None
    best: bool = False


async def curve(session: AsyncSession, job: Job) -> list[Point]:
    """The job's steps in order. Of a step that was repeated after a resumption, the last counts.

    Events are ordered by the trainer's time: some come into the history late.
    """
    query = (
        of_tenant(job.tenant_id)
        .select(JobEvent.kind, JobEvent.body)
        .where(JobEvent.job_id == job.id, JobEvent.kind.in_(("step", "validation")))
        .order_by(JobEvent.seq)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    events = [(kind, body) async for kind, body in await session.stream(query)]
    points: dict[int, Point] = {}
    for kind, body in sorted(events, key=lambda each: each[1].get("at", 0.0)):
        step = body["step"]
        if kind == "step":
            points[step] = Point(
                step=step, train_loss=body["loss"], train_accuracy=body.get("accuracy")
            )
        else:
            point = points.setdefault(step, Point(step=step))
            point.valid_loss, point.valid_accuracy = body["loss"], body.get("accuracy")
            point.best = body["best"]
    return [points[step] for step in sorted(points)]


def chosen(points: list[Point]) -> Point | None:
    """The step whose weights became the adapter: the best validated one, else the last."""
    best = [point for point in points if point.best] or points
    return best[-1] if best else None


async def metrics(session: AsyncSession, job: Job, point: Point) -> dict[str, Any]:
    """The figures of a step, under OpenAI's names; those that are not known are absent.

    The ``full_`` figures are there where a validation reads the whole validation split.
    """
    found = {
        "step": point.step,
        "train_loss": point.train_loss,
        "train_mean_token_accuracy": point.train_accuracy,
        "valid_loss": point.valid_loss,
        "valid_mean_token_accuracy": point.valid_accuracy,
    }
    dataset = await of_tenant(job.tenant_id).get(session, DatasetVersion, job.dataset_id)
    recipe = msgspec.convert(job.recipe, Recipe)
    if dataset and dataset.counts.get("validation", 0) <= recipe.validation_conversations:
        found["full_valid_loss"] = point.valid_loss
        found["full_valid_mean_token_accuracy"] = point.valid_accuracy
    return {name: value for name, value in found.items() if value is not None}


def to_csv(points: list[Point]) -> bytes:
    """OpenAI's result file: a header, and a line for each step; what is not known is empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for point in points:
        figures = (
            point.train_loss,
            point.train_accuracy,
            point.valid_loss,
            point.valid_accuracy,
        )
        rows.writerow([point.step, *("" if n is None else f"{n:.5f}" for n in figures)])
    return text.getvalue().encode()
