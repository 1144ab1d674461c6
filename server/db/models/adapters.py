"""Adapter versions and their promotions."""

from typing import Literal

from sqlalchemy import (
    ForeignKey,
    Integer,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText, tenant_column

AdapterState = Literal["candidate", "ready", "failed_gates", "unsafe", "deleted"]
PromotionKind = Literal["promote", "rollback"]


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
    """One change of a tenant's live adapter, in the order of ``revision``; None is the base."""

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
    kind: Mapped[PromotionKind] = mapped_column(SafeString(12))
    actor: Mapped[str] = mapped_column(SafeText)
