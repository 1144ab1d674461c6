"""Jobs, events and checkpoints as OpenAI's clients see them.

Some states of ours have no word in OpenAI's API: a paused job has the status ``queued``, one that
awaits a person's approval ``running``, and one that was asked to stop ``cancelled`` at once, since
it can no longer succeed. A job of the admin API, which learns from all transcripts, has an empty
``training_file``.
"""

import datetime
import math
from typing import Any

from server.adapters.service import fine_tuned_name
from server.api.openai.fine_tuning.schemas import (
    Checkpoint,
    FineTuningJob,
    JobError,
    Status,
)
from server.api.openai.fine_tuning.schemas import JobEvent as EventObject
from server.db.models import Adapter, Job, JobEvent, now
from server.jobs.curve import Point
from server.jobs.schemas import FINAL_STATES, public_id
from server.jobs.service import hyperparameters_of, method_of

EVENT = "ftevent-"
CHECKPOINT = "ftckpt_"
SHOWN_EVENTS = frozenset(
    [
        "state",
        "stage",
        "estimate",
        "step",
        "validation",
        "checkpoint",
        "resumed",
        "warning",
        "verdict",
        "error",
    ]
)
"""The events that are shown: all but those that count evaluated replies, of which there are many."""

STATUS: dict[str, Status] = {
    "queued": "queued",
    "paused": "queued",
    "validating": "validating_files",
    "running": "running",
    "evaluating": "running",
    "awaiting_approval": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
_STATES = {
    "queued": "The job is in the queue",
    "paused": "The job is paused",
    "validating": "Reading what to learn from",
    "running": "Fine-tuning job started",
    "evaluating": "Evaluating the new model",
    "awaiting_approval": "The new model awaits a person's approval",
    "succeeded": "The job has successfully completed",
    "cancelled": "The job was cancelled",
}


def job_view(
    job: Job, *, slug: str, adapter: Adapter | None = None, start: Adapter | None = None
) -> FineTuningJob:
    """A job; ``adapter`` is what came of it, ``start`` what it began with."""
    ended = job.state in FINAL_STATES
    stopping = job.cancel_requested and not ended
    succeeded = job.state == "succeeded" and adapter is not None
    used = _hyperparameters(job)
    method = method_of(job)
    beta = {} if method == "supervised" else {"beta": _beta(job)}
    return FineTuningJob(
        id=public_id(job.id),
        created_at=_seconds(job.created_at),
        error=_error(job),
        fine_tuned_model=fine_tuned_name(slug, adapter) if succeeded and adapter else None,
        finished_at=_seconds(job.finished_at) if job.finished_at else None,
        hyperparameters=used,
        model=fine_tuned_name(slug, start) if start else job.base,
        organization_id=slug,
        result_files=[f"file-{job.result_file_id}"] if job.result_file_id else [],
        status="cancelled" if stopping else STATUS[job.state],
        trained_tokens=job.progress.get("tokens") if ended else None,
        training_file=f"file-{job.training_file_id}" if job.training_file_id else "",
        validation_file=f"file-{job.validation_file_id}" if job.validation_file_id else None,
        seed=job.seed,
        estimated_finish=None if stopping else _estimated_finish(job),
        integrations=None,
        metadata=job.client_metadata,
        method={"type": method, method: {"hyperparameters": {**used, **beta}}},
    )


def event_view(row: JobEvent) -> EventObject:
    """One event in words, with the figures where it is about a step."""
    message, level, data = _describe(row.kind, row.body)
    return EventObject(
        id=EVENT + row.id,
        created_at=_seconds(row.created_at),
        level=level,
        message=message,
        type="metrics" if data else "message",
        data=data,
    )


def checkpoint_view(
    job: Job, adapter: Adapter, *, slug: str, point: Point, metrics: dict[str, Any]
) -> Checkpoint:
    """The step whose weights became the model."""
    return Checkpoint(
        id=CHECKPOINT + adapter.id,
        created_at=_seconds(adapter.created_at),
        fine_tuned_model_checkpoint=fine_tuned_name(slug, adapter),
        fine_tuning_job_id=public_id(job.id),
        metrics=metrics,
        step_number=point.step,
    )


def _hyperparameters(job: Job) -> dict[str, int | float | str]:
    """Those used; where the recipe decides, its own once the first step has shown them.

    ``n_epochs`` is rounded up: a recipe may stop within an epoch. ``batch_size`` is a mean, since
    batches are made of tokens.
    """
    asked, recipe, progress = hyperparameters_of(job), job.recipe, job.progress
    epochs = batch = None
    if progress.get("epoch"):
        an_epoch = progress["tokens"] / progress["epoch"]
        bound = recipe["max_train_tokens"] or math.inf
        planned = min(recipe["epochs"], bound / an_epoch)
        epochs = min(50, max(1, math.ceil(planned - 0.01)))
        batch = min(256, max(1, round(progress.get("examples", 0) * planned / progress["steps"])))
    rate = None if job.started_at is None else 1.0
    return {
        "n_epochs": asked.n_epochs or epochs or "auto",
        "batch_size": asked.batch_size or batch or "auto",
        "learning_rate_multiplier": asked.learning_rate_multiplier or rate or "auto",
    }


def _beta(job: Job) -> float | str:
    used = job.recipe.get("beta") if job.started_at else None
    return hyperparameters_of(job).beta or used or "auto"


def _error(job: Job) -> JobError | None:
    if job.state != "failed" or job.error is None:
        return None
    code = str(job.error.get("code") or "error")
    is_file = code in {"invalid_training_file", "invalid_validation_file"}
    return JobError(
        code=code,
        message=str(job.error.get("message", "")),
        param=code.removeprefix("invalid_") if is_file else None,
    )


def _estimated_finish(job: Job) -> int | None:
    """When training ends, as it was last estimated; None where that time has passed."""
    if job.state != "running":
        return None
    progress, estimate = job.progress, job.estimate or {}
    if "eta_seconds" in progress:
        at = progress["at"] + progress["eta_seconds"]
    elif "seconds" in estimate:
        at = estimate["at"] + estimate["seconds"]
    else:
        return None
    return int(at) if at > now().timestamp() else None


def _describe(kind: str, body: dict[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """(message, level, figures) of an event."""
    data: dict[str, Any] = {}
    level = "info"
    match kind:
        case "state" if body["state"] == "failed":
            level = "error"
            message = f"The job failed: {(body.get('error') or {}).get('message', '')}"
        case "state":
            level = "warn" if body["state"] == "cancelled" else "info"
            message = _STATES[body["state"]]
        case "step":
            message = f"Step {body['step']}/{body['steps']}: training loss={body['loss']:.2f}"
            data = _figures(body, prefix="train")
        case "validation":
            message = f"Step {body['step']}: validation loss={body['loss']:.2f}"
            data = _figures(body, prefix="valid")
        case "stage":
            message = f"Stage: {body['stage']} {body.get('detail', '')}".rstrip()
        case "estimate":
            message = (
                f"{body['train_tokens']:,} tokens in {body['steps']} steps will take about "
                f"{body['seconds'] / 60:.0f} minutes"
            )
        case "checkpoint":
            message = f"State saved at step {body['step']}"
        case "resumed":
            message = f"Going on from step {body['step']}"
        case "verdict":
            level = "info" if body["passed"] else "warn"
            message = f"The new model {body['summary']}"
        case "error" if body.get("code") == "interrupted":
            message = "Training was interrupted; what is done is saved"
        case _:
            level = "error" if kind == "error" else "warn"
            message = str(body.get("message", kind))
    return message, level, data


def _figures(body: dict[str, Any], *, prefix: str) -> dict[str, Any]:
    figures = {
        "step": body["step"],
        "total_steps": body.get("steps"),
        f"{prefix}_loss": body["loss"],
        f"{prefix}_mean_token_accuracy": body.get("accuracy"),
        f"{prefix}_reward_margin": body.get("reward_margin"),
        f"{prefix}_reward_accuracy": body.get("reward_accuracy"),
    }
    return {name: value for name, value in figures.items() if value is not None}


def _seconds(moment: datetime.datetime) -> int:
    return int(moment.timestamp())
