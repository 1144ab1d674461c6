"""Heads as pages and files list them: what a task is for, what was measured of a version, in words."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from server import spreadsheets
from server.db.models import Head
from server.heads.schemas import DayCount
from training.evaluation.gates import Verdict
from training.heads.config import TASKS, Task
from training.heads.scores import HeadScores

COLUMNS = (
    "task",
    "version",
    "state",
    "live",
    "file",
    "examples",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "balanced_accuracy_of_commonest_label",
    "ece",
    "verdict",
    "created_at",
    "sha256",
)


class TaskText(NamedTuple):
    """What a task is called, what its head is for, and a file to try it with; no file for images."""

    task: Task
    name: str
    purpose: str
    sample: str = ""


_TEXTS = (
    TaskText(
        "annoyance",
        "Annoyance",
        "Which messages sound annoyed, so that people can step in. Two labels: annoyed, and another "
        "such as calm.",
        "annoyance.jsonl",
    ),
    TaskText(
        "sentiment",
        "Sentiment",
        "How messages sound, day by day: negative, neutral, positive, or labels of your own.",
        "sentiment.csv",
    ),
    TaskText(
        "intent",
        "Intent",
        "What messages are about, such as cancel or where_is_my_order, counted by day.",
        "intent.csv",
    ),
    TaskText(
        "image",
        "Images",
        "What an attached image shows, such as receipt or damage, in words that the assistant reads. "
        "Without such a head images are refused.",
    ),
)
TASK_TEXTS: dict[Task, TaskText] = {each.task: each for each in _TEXTS}
SAMPLES = {each.sample for each in _TEXTS if each.sample}


class Measured(NamedTuple):
    """What was measured of a version on texts or images that it did not learn from.

    ``baseline``: the balanced accuracy of always saying the commonest label; None where no gate says.
    """

    scores: HeadScores
    verdict: Verdict
    baseline: float | None


def find_task(name: str) -> Task | None:
    """The task of this name; None where there is none."""
    return next((task for task in TASKS if task == name), None)


def measured(row: Head) -> Measured | None:
    """What was measured of a version; None where it is not ready."""
    if row.manifest is None or "scores" not in row.manifest:
        return None
    scores = msgspec.convert(row.manifest["scores"], HeadScores)
    verdict = msgspec.convert(row.manifest["verdict"], Verdict)
    gate = next((gate for gate in verdict.gates if gate.name == "majority"), None)
    better = gate.value if gate is not None else None
    baseline = None if better is None else scores.balanced_accuracy - better
    return Measured(scores, verdict, baseline)


def to_csv(rows: Sequence[Head]) -> bytes:
    """Versions with what was measured of them, a line each."""
    return spreadsheets.to_csv(COLUMNS, (_line(row) for row in rows))


def counts_to_csv(found: Sequence[DayCount]) -> bytes:
    """How many messages of a day got a label, a line each."""
    return spreadsheets.to_csv(
        ("day", "task", "label", "messages"),
        ((each.day.isoformat(), each.task, each.label, each.messages) for each in found),
    )


def _line(row: Head) -> list[spreadsheets.Cell]:
    found = measured(row)
    figures: list[spreadsheets.Cell] = [None] * 7
    if found is not None:
        scores = found.scores
        figures = [
            scores.accuracy,
            scores.accuracy_low,
            scores.accuracy_high,
            scores.balanced_accuracy,
            found.baseline,
            scores.ece,
            found.verdict.result,
        ]
    return [
        row.task,
        row.version,
        row.state,
        "yes" if row.live else "no",
        row.filename,
        row.texts,
        *figures,
        row.created_at.isoformat(),
        row.sha256,
    ]
