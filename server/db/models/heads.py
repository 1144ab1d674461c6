"""Heads, and what they said of customers' messages."""

import datetime
from typing import Literal

from sqlalchemy import (
    Boolean,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText, tenant_column
from training.heads.config import Task

HeadState = Literal["queued", "running", "ready", "failed"]


class Head(Record):
    """A version of a head for a task; ``version`` counts within the owner's task.

    Without a tenant it is shared: the operator's, for tenants that have none of their own live.

    A worker trains what is ``queued``. Of a ``ready`` one the files are in
    ``heads/<tenant id, or shared>/<id>/heads/<sha256>``, and ``manifest`` is what the one there says. One of a
    task is ``live``. ``replaced_at``: when a live one made way for another. ``executor`` is the worker
    that has it. ``progress``: how much of its training is done, in [0, 1]. ``texts``: how many texts or
    images it was given; ``left_out``: images that could not be used (``LeftOutView``).
    """

    __tablename__ = "head"
    __table_args__ = (
        UniqueConstraint("tenant_id", "task", "version"),
        Index(
            "uq_head_shared",
            "task",
            "version",
            unique=True,
            sqlite_where=text("tenant_id IS NULL"),
            postgresql_where=text("tenant_id IS NULL"),
        ),
    )

    tenant_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), index=True, sort_order=-9
    )
    task: Mapped[Task] = mapped_column(SafeString(12))
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[HeadState] = mapped_column(SafeString(12), default="queued", index=True)
    filename: Mapped[str] = mapped_column(SafeText, default="")
    texts: Mapped[int] = mapped_column(Integer)
    executor: Mapped[str | None] = mapped_column(SafeText)
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    sha256: Mapped[str | None] = mapped_column(SafeString(64))
    manifest: Mapped[JsonObject | None]
    left_out: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    live: Mapped[bool] = mapped_column(Boolean, default=False)
    live_since: Mapped[datetime.datetime | None]
    replaced_at: Mapped[datetime.datetime | None]


class HandoffRule(Record):
    """A label of a tenant's head that hands a conversation to a person.

    It does so where a message that was written since gets the label with a probability of ``at_least``.
    """

    __tablename__ = "handoff_rule"
    __table_args__ = (UniqueConstraint("tenant_id", "task", "label"),)

    tenant_id: Mapped[str] = tenant_column()
    task: Mapped[Task] = mapped_column(SafeString(12))
    label: Mapped[str] = mapped_column(SafeString(60))
    at_least: Mapped[float] = mapped_column(Float)


class MessageLabel(Record):
    """What a live head said of a visitor's message; ``day`` is the message's, in UTC.

    ``head_version`` and ``head_sha256`` name the head, which may be gone since; ``is_shared``: it was the
    operator's.
    """

    __tablename__ = "message_label"
    __table_args__ = (
        UniqueConstraint("message_id", "task"),
        Index(None, "tenant_id", "task", "day"),
    )

    tenant_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    conversation_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("live_conversation.id", ondelete="CASCADE"), index=True
    )
    message_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("live_message.id", ondelete="CASCADE")
    )
    task: Mapped[Task] = mapped_column(SafeString(12))
    label: Mapped[str] = mapped_column(SafeString(60))
    probability: Mapped[float] = mapped_column(Float)
    head_version: Mapped[int] = mapped_column(Integer)
    head_sha256: Mapped[str] = mapped_column(SafeString(64))
    is_shared: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    day: Mapped[datetime.date] = mapped_column(Date)
