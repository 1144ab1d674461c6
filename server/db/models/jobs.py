"""Fine-tuning jobs and what happened in them."""

import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    JsonObject,
    Record,
    SafeString,
    SafeText,
    tenant_column,
)

JobState = Literal[
    "queued",
    "validating",
    "running",
    "evaluating",
    "awaiting_approval",
    "succeeded",
    "failed",
    "cancelled",
    "paused",
]
FINISHED_JOB_STATES: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")
Decision = Literal["approved", "rejected"]


class Job(Record):
    """One fine-tuning run.

    It trains on all conversations of its tenant or, with ``training_file_id``, on that file alone.
    Files' ids are no foreign keys: a job keeps the id of a file that was deleted. Training starts from
    the weights of ``start_adapter_id``, where that is set. ``method`` and ``client_metadata`` are kept
    as the client gave them. ``attempts`` counts how often the job was put back into the queue.
    ``gpu_seconds``: how long the trainer had its device. ``outcome``: a ``server.jobs.schemas.Outcome``
    of a job that succeeded; null where the job is older than the column, and its adapter was promoted.
    ``actor``: who started it, as ``Principal.actor`` names callers; null in older jobs.
    """

    __tablename__ = "job"
    __table_args__ = (Index(None, "tenant_id", "created_at"), Index(None, "state", "created_at"))

    tenant_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    state: Mapped[JobState] = mapped_column(SafeString(20), default="queued")
    stage: Mapped[str] = mapped_column(SafeString(40), default="")
    base: Mapped[str] = mapped_column(SafeText)
    recipe_name: Mapped[str] = mapped_column(SafeText)
    recipe: Mapped[JsonObject] = mapped_column(default=dict)
    seed: Mapped[int] = mapped_column(BigInteger, default=17)
    objectives: Mapped[JsonObject] = mapped_column(default=dict)
    suffix: Mapped[str | None] = mapped_column(SafeString(64))
    require_approval: Mapped[bool] = mapped_column(Boolean, default=False)
    actor: Mapped[str | None] = mapped_column(SafeText)
    decision: Mapped[Decision | None] = mapped_column(SafeString(12))
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    pause_requested: Mapped[bool] = mapped_column(Boolean, default=False, server_default="0")
    training_file_id: Mapped[str | None] = mapped_column(SafeString(32))
    validation_file_id: Mapped[str | None] = mapped_column(SafeString(32))
    result_file_id: Mapped[str | None] = mapped_column(SafeString(32))
    start_adapter_id: Mapped[str | None] = mapped_column(SafeString(32))
    method: Mapped[JsonObject | None]
    client_metadata: Mapped[JsonObject | None]
    gpu_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    dataset_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("dataset_version.id", ondelete="SET NULL"), index=True
    )
    adapter_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("adapter.id", ondelete="SET NULL", use_alter=True)
    )
    progress: Mapped[JsonObject] = mapped_column(default=dict)
    estimate: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    outcome: Mapped[JsonObject | None]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class JobEvent(Record):
    """One thing that happened in a job; ``seq`` counts from 1 within the job."""

    __tablename__ = "job_event"
    __table_args__ = (UniqueConstraint("job_id", "seq"),)

    tenant_id: Mapped[str] = tenant_column()
    job_id: Mapped[str] = mapped_column(SafeString(32), ForeignKey("job.id", ondelete="CASCADE"))
    seq: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(SafeString(40))
    body: Mapped[JsonObject] = mapped_column(default=dict)
