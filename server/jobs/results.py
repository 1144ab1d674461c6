"""What is told of a job's points to OpenAI's clients: a step's figures, and the result file."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import DatasetVersion, Job
from server.db.scope import of_tenant
from server.jobs.curve import Point
from training.config import Recipe

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


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


def to_csv(points: Sequence[Point]) -> bytes:
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
