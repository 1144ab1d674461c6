"""What the job endpoints take and give."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from training.spec import Objectives

JobState = Literal[
    "queued",
    "validating",
    "running",
    "evaluating",
    "awaiting_approval",
    "succeeded",
    "failed",
    "cancelled",
]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fine-tuning run, as asked for.

    ``recipe`` names a recipe that ships; the server's default when absent. ``objectives`` are
    the gates, declared before the run. With ``require_approval`` an adapter that passes them
    waits for a person; otherwise it is promoted at once.
    """

    recipe: Annotated[str, Meta(max_length=100)] | None = None
    objectives: Objectives = Objectives()
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] = 17
    suffix: Annotated[str, Meta(max_length=64)] = ""
    require_approval: bool = False


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its tenant sees it; every key is always present."""

    id: str
    tenant: str
    state: JobState
    stage: str
    recipe: str
    seed: int
    suffix: str
    base: str
    objectives: Objectives
    require_approval: bool
    dataset: str | None
    adapter: str | None
    progress: dict[str, Any]
    estimate: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobEventView(msgspec.Struct, frozen=True):
    """One line of a job's history; ``seq`` rises by one from 1."""

    seq: int
    kind: str
    body: dict[str, Any]
    at: datetime


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says to an adapter that awaits approval."""

    decision: Literal["approved", "rejected"]


class ScoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Token sequences that a worker asks the engine to score under one adapter."""

    tenant: str
    adapter_name: str
    sequences: list[list[int]]


class ScoreResponse(msgspec.Struct, frozen=True):
    """For each sequence the log-probability of each token (None for the first)."""

    logprobs: list[list[float | None]]
