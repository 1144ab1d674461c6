"""What a run's history says: its stages and how long each took, the time left, and its log in words.

Pauses and waits in the queue belong to no stage but "Queued": a stage's time is what was worked on it.
"""

import datetime
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Job, JobEvent
from server.db.scope import of_tenant
from server.jobs.curve import gib
from server.jobs.schemas import FINAL_STATES, JobEventView

StageKey = Literal["queued", "checked", "training", "evaluation", "gates", "approval"]
Progress = Literal["done", "now", "later", "failed"]
Level = Literal["info", "warning", "error"]

LOG_KINDS = (
    "state",
    "stage",
    "estimate",
    "resumed",
    "warning",
    "verdict",
    "error",
    "request",
)
"""What a log shows: not each step, not each reply that is evaluated, and of checkpoints the newest."""
MAX_LOG = 500
CHECKPOINTS = 3
_ORDER: tuple[StageKey, ...] = (
    "queued",
    "checked",
    "training",
    "evaluation",
    "gates",
    "approval",
)
_STAGE_OF_STATE: dict[str, StageKey] = {
    "queued": "queued",
    "validating": "checked",
    "running": "training",
    "evaluating": "evaluation",
    "awaiting_approval": "approval",
}


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a run. ``seconds``: worked on it so far; ``part``: of it that is done, in [0, 1]."""

    key: StageKey
    name: str
    progress: Progress
    seconds: float | None = None
    note: str = ""
    part: float | None = None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. ``advice`` says what to do about it; ``actor`` who asked for it."""

    seq: int
    at: datetime.datetime
    level: Level
    text: str
    advice: str = ""
    actor: str | None = None


async def read_history(session: AsyncSession, job: Job) -> list[JobEventView]:
    """The newest ``MAX_LOG`` events of the kinds in ``LOG_KINDS`` and the newest checkpoints, oldest first."""
    query = (
        of_tenant(job.tenant_id)
        .select(JobEvent)
        .where(JobEvent.job_id == job.id)
        .order_by(JobEvent.seq.desc())
    )
    told = query.where(JobEvent.kind.in_(LOG_KINDS)).limit(MAX_LOG)
    kept = query.where(JobEvent.kind == "checkpoint").limit(CHECKPOINTS)
    rows = [*await session.scalars(told), *await session.scalars(kept)]
    return [
        JobEventView(seq=row.seq, kind=row.kind, body=row.body, at=row.created_at)
        for row in sorted(rows, key=lambda row: row.seq)
    ]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided about a run's version, and when. ``actor`` as records name callers."""

    approved: bool
    actor: str | None
    at: datetime.datetime


async def read_decision(
    session: AsyncSession, tenant_id: str, job_id: str | None
) -> Decided | None:
    """The decision about a run's version; None before there is one, and where nobody was asked."""
    query = (
        of_tenant(tenant_id)
        .select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.kind == "request")
        .order_by(JobEvent.seq.desc())
    )
    for event in await session.scalars(query):
        if event.body["what"] in ("approved", "rejected"):
            return Decided(
                approved=event.body["what"] == "approved",
                actor=event.body.get("actor"),
                at=event.created_at,
            )
    return None


def stepped_since_resumption(history: Sequence[JobEventView], step_seq: int) -> bool:
    """Whether a step was taken since the job last began to train: since its last pause, if there was one.

    ``step_seq``: the number of the newest event about a step.
    """
    began = [event.seq for event in history if event.kind in ("state", "resumed")]
    return step_seq > max(began, default=0)


def seconds_left(
    job: Job, *, stepped: bool, last_at: float, now: datetime.datetime
) -> float | None:
    """How long training goes on; None while that is unknown.

    The trainer reckons it from the steps since it was started or resumed. So what it said before a pause
    does not count: then a new step must come first.

    Args:
        job: the run.
        stepped: what ``stepped_since_resumption`` says.
        last_at: when the last step ended, in seconds since the epoch.
        now: the time.
    """
    eta = job.progress.get("eta_seconds")
    if job.state != "running" or not stepped or eta is None:
        return None
    return max(0.0, float(eta) - max(0.0, now.timestamp() - last_at))


def read_stages(
    job: Job, history: Sequence[JobEventView], *, declared: int, now: datetime.datetime
) -> list[Stage]:
    """The six stages of a run. ``declared``: how many gates it has."""
    spent, current = _times(job, history, now=now)
    ended = job.state in FINAL_STATES
    badly = job.state in {"failed", "cancelled"}
    at = _ORDER.index(current)
    stages = []
    for index, key in enumerate(_ORDER):
        progress: Progress = "later"
        if index < at or (ended and not badly):
            progress = "done"
        elif index == at:
            progress = "failed" if badly else "now"
        stages.append(
            Stage(
                key=key,
                name=_name(key, job, progress),
                progress=progress,
                seconds=spent.get(key),
                note=_note(key, job, progress, declared=declared),
                part=_part(key, job) if progress == "now" else None,
            )
        )
    return stages


def _times(
    job: Job, history: Sequence[JobEventView], *, now: datetime.datetime
) -> tuple[dict[StageKey, float], StageKey]:
    """How long each stage was worked on, and which one the run is in or ended in."""
    spent: dict[StageKey, float] = {}
    current: StageKey = "queued"
    running, since = True, job.created_at

    def add(until: datetime.datetime) -> None:
        if running:
            spent[current] = spent.get(current, 0.0) + (until - since).total_seconds()

    for event in history:
        if event.kind == "verdict":
            add(event.at)
            since, current, running = event.at, "gates", True
        if event.kind != "state":
            continue
        state = event.body["state"]
        if state == "evaluating" and current == "gates":
            continue
        add(event.at)
        since = event.at
        running = state not in {"paused", *FINAL_STATES}
        # a run that waits again after a pause is still in the stage that it was paused in
        if state == "queued" and current != "queued":
            running = False
        elif state in _STAGE_OF_STATE:
            stage = _STAGE_OF_STATE[state]
            # resumed runs pass through the check again in a moment
            if stage != "checked" or _ORDER.index(current) <= _ORDER.index("checked"):
                current = stage
    if job.state not in FINAL_STATES:
        add(now)
    return spent, current


def _name(key: StageKey, job: Job, progress: Progress) -> str:
    match key:
        case "queued":
            return "Queued"
        case "checked":
            return "Data checked" if progress == "done" else "Checking data"
        case "training":
            return "Training"
        case "evaluation":
            return "Evaluation"
        case "gates":
            return "Gates"
        case "approval":
            asked = job.require_approval or progress == "now" or job.decision is not None
            return "Approval" if asked else "Release"


def _note(  # noqa: PLR0911 - one line each
    key: StageKey, job: Job, progress: Progress, *, declared: int
) -> str:
    """What stands under a stage beside its time; empty where its time says enough."""
    steps, step = job.progress.get("steps"), job.progress.get("step")
    match key:
        case "training" if progress == "now" and steps:
            return f"step {step} of {steps}"
        case "training" if progress == "now":
            return "loading the model" if job.stage == "loading" else "measuring the speed"
        case "training" if progress == "failed" and steps:
            return f"until step {step} of {steps}"
        case "evaluation" if progress == "now" and job.progress.get("total"):
            subject = str(job.progress["subject"])
            # of a full evaluation the subject says it all
            return f"{_SUBJECTS[subject]} model" if subject in _SUBJECTS else subject
        case "gates" if progress == "later":
            return f"{declared} declared"
        case "approval" if progress == "now":
            return "a person decides"
        case "approval" if progress == "later":
            return "a person decides" if job.require_approval else "by the gates"
        case "approval" if progress == "done":
            return _ending(job)
        case _:
            return ""


_SUBJECTS = {
    "base": "the base",
    "base_retrieval": "with retrieval, the base",
    "new_plain": "without retrieval, the new",
    "new": "the new",
    "live": "the live",
    "lookup": "no",
}


def _ending(job: Job) -> str:
    if job.decision == "rejected":
        return "rejected"
    promoted = (job.outcome or {}).get("promoted", True)
    return "made live" if promoted else "not made live"


def _part(key: StageKey, job: Job) -> float | None:
    if key == "training" and job.progress.get("steps"):
        return min(1.0, float(job.progress["step"]) / float(job.progress["steps"]))
    if key == "evaluation" and job.progress.get("total"):
        return min(1.0, float(job.progress["done"]) / float(job.progress["total"]))
    return None


def read_log(history: Sequence[JobEventView]) -> list[LogLine]:
    """The history in words, newest first."""
    lines = map(_line, reversed(history))
    return [line for line in lines if line is not None]


_STATES = {
    "queued": "Put into the queue",
    "validating": "A worker began: it reads what to learn from",
    "running": "The trainer started",
    "evaluating": "Training ended; the new model is evaluated",
    "awaiting_approval": "Waits for a person to approve it",
    "succeeded": "The run is done",
    "failed": "The run failed",
    "cancelled": "The run was cancelled",
    "paused": "The run is paused; its state is saved",
}
_STAGES = {
    "indexing": "Indexing what was answered before",
    "loading": "Loading the base model",
    "estimating": "Measuring the speed of a first batch",
    "training": "Training",
    "evaluating": "Evaluating on conversations that were held out",
    "writing": "Writing the adapter",
    "searching": "Looking for a better recipe",
    "done": "The trainer is done",
}
_REQUESTS = {
    "cancel": "Asked to cancel the run",
    "pause": "Asked to pause the run",
    "resume": "Asked to go on",
    "approved": "Approved the new version",
    "rejected": "Rejected the new version",
}
_ADVICE = {
    "bad_input": "Upload more conversations, then start a new run.",
    "invalid_training_file": "Mend the file, upload it again, and start a new run.",
    "invalid_validation_file": "Mend the file, upload it again, and start a new run.",
    "model_not_found": "Start a new run from another version.",
    "base_changed": "Start a new run from the base.",
    "out_of_memory": "Start a new run with a recipe that needs less memory.",
    "disk_full": "Make room on the worker's disk, then start a new run.",
    "killed": "Look into the worker's log: something ends the trainer, often a lack of memory.",
    "unsafe_adapter": "Nothing of this run is served. Start a new one; if it happens again, tell who runs "
    "this installation.",
    "adapter_refused": "The engine would not load it: its largest rank may be below the recipe's.",
    "internal": "Tell who runs this installation; the worker's log has the details.",
}


def _line(event: JobEventView) -> LogLine | None:
    body = event.body
    level, text, advice = _words(event.kind, body)
    if not text:
        return None
    return LogLine(
        seq=event.seq,
        at=event.at,
        level=level,
        text=text,
        advice=advice,
        actor=body.get("actor") if event.kind == "request" else None,
    )


def _words(  # noqa: PLR0911 - one line each
    kind: str, body: dict[str, Any]
) -> tuple[Level, str, str]:
    match kind:
        case "state" if error := body.get("error"):
            code = str(error.get("code", ""))
            return "error", f"{_STATES['failed']}: {error.get('message', '')}", advice_for(code)
        case "state":
            return "info", _STATES.get(body["state"], body["state"]), ""
        case "stage":
            name, detail = _STAGES.get(body["stage"], body["stage"]), body.get("detail") or ""
            return "info", f"{name}: {detail}" if detail else name, ""
        case "estimate":
            return "info", _estimate(body), ""
        case "checkpoint":
            return "info", f"Kept a checkpoint at step {body['step']}", ""
        case "resumed":
            return "info", f"Went on from the checkpoint at step {body['step']}", ""
        case "verdict":
            level: Level = "info" if body.get("passed") else "warning"
            return level, f"{body['adapter']} {body['summary']}", ""
        case "warning":
            return "warning", str(body["message"]), ""
        case "error":
            return "error", str(body["message"]), advice_for(str(body.get("code", "")))
        case "request":
            return "info", _REQUESTS.get(body["what"], str(body["what"])), ""
        case _:
            return "info", "", ""


def _estimate(body: dict[str, Any]) -> str:
    minutes = body["seconds"] / 60
    return (
        f"Estimate: {minutes:.1f} min, {gib(body['memory_bytes'])}, {body['train_tokens']:,} tokens "
        f"in {body['steps']} steps ({body['basis']})"
    )


def advice_for(code: str) -> str:
    """What to do about a run that failed with this code; empty where its message says it."""
    return _ADVICE.get(code, "")
