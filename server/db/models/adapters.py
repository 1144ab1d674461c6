"""Adapter versions, their promotions, and the canary."""

import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Integer,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText, tenant_column

AdapterState = Literal["candidate", "ready", "failed_gates", "unsafe", "deleted"]
PromotionKind = Literal["promote", "rollback", "canary", "canary_end"]


class Adapter(Record):
    """An adapter version; its files are in ``adapters/<engine_name>``, which never changes.

    A ``ready`` version passed its gates. For a ``candidate`` the gates could not decide: a person may
    promote it. One in ``failed_gates`` is worse than required: only the operator may promote it. These
    three answer to all of their names. An ``unsafe`` one scores differently in the engine than in the
    trainer: it answers to ``<slug>@<version>`` alone. A ``deleted`` one keeps its row, so that its
    number is not used again. ``system_prompt`` is the one that it was trained with, and it is served
    with that, also after the tenant's has changed.
    """

    __tablename__ = "adapter"
    __table_args__ = (UniqueConstraint("tenant_id", "version"),)

    tenant_id: Mapped[str] = tenant_column()
    version: Mapped[int] = mapped_column(Integer)
    engine_name: Mapped[str] = mapped_column(SafeString(60), unique=True)
    base_name: Mapped[str] = mapped_column(SafeText)
    base_sha256: Mapped[str] = mapped_column(SafeString(64))
    system_prompt: Mapped[str] = mapped_column(SafeText, default="")
    job_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("job.id", ondelete="SET NULL"), unique=True
    )
    dataset_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("dataset_version.id", ondelete="SET NULL"), index=True
    )
    state: Mapped[AdapterState] = mapped_column(SafeString(20), default="candidate")
    scores: Mapped[JsonObject] = mapped_column(default=dict)
    report: Mapped[JsonObject | None]
    suffix: Mapped[str] = mapped_column(SafeString(64), default="")


class Promotion(Record):
    """One change of who answers a tenant's customers, in the order of ``revision``; None is the base.

    ``from_adapter_id`` and ``to_adapter_id`` are what was live before and after it: the same where
    only the canary changed. ``canary_adapter_id`` and ``canary_percent`` are of the canary that began
    or was changed (``canary``), or that ended (all other kinds). ``reason``: why it ended by itself.
    """

    __tablename__ = "promotion"
    __table_args__ = (UniqueConstraint("tenant_id", "revision"),)

    tenant_id: Mapped[str] = tenant_column()
    revision: Mapped[int] = mapped_column(Integer)
    from_adapter_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("adapter.id", ondelete="SET NULL")
    )
    to_adapter_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("adapter.id", ondelete="SET NULL")
    )
    # no foreign key: SQLite cannot add one to a table, and an adapter's row goes with its tenant alone
    canary_adapter_id: Mapped[str | None] = mapped_column(SafeString(32))
    canary_percent: Mapped[int | None] = mapped_column(Integer)
    kind: Mapped[PromotionKind] = mapped_column(SafeString(12))
    actor: Mapped[str] = mapped_column(SafeText)
    reason: Mapped[str | None] = mapped_column(SafeText)


class Canary(Record):
    """The version that answers a share of a tenant's requests at this moment; its history is in ``Promotion``.

    ``percent`` of the requests, 1 to 50. ``revision`` is the step that set it, ``since`` that step's time,
    ``actor`` who took it.
    """

    __tablename__ = "canary"
    __table_args__ = (UniqueConstraint("tenant_id"),)

    tenant_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    adapter_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("adapter.id", ondelete="CASCADE")
    )
    percent: Mapped[int] = mapped_column(Integer)
    revision: Mapped[int] = mapped_column(Integer)
    since: Mapped[datetime.datetime]
    actor: Mapped[str] = mapped_column(SafeText)


class CanaryCount(Record):
    """What the canary (``is_canary``) or the live version beside it answered since a step of ``Promotion``."""

    __tablename__ = "canary_count"
    __table_args__ = (UniqueConstraint("tenant_id", "revision", "is_canary"),)

    tenant_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    revision: Mapped[int] = mapped_column(Integer)
    is_canary: Mapped[bool] = mapped_column(Boolean)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cached_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    gpu_seconds: Mapped[float] = mapped_column(Float, default=0.0)
