"""The audit log: who did what, when, to what. Rows are added and, when they are too old, removed."""

from typing import Literal

from sqlalchemy import Boolean, ForeignKey, Index, event, false
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText

ActorKind = Literal[
    "person", "key", "operator_key", "command_line", "worker", "system", "anonymous"
]


class AuditEntry(Record):
    """Something that was done. Never changed: what was written stands.

    Without a tenant it is of the installation; a tenant's entries are deleted with it. Names are what
    they were at that time, so that they stay when a person, a key or a version is gone.
    ``by_operator``: an operator acted, or asked for it; who that is, a tenant's people are not told.
    ``action`` is one of ``server/audit/actions.py``.
    """

    __tablename__ = "audit_entry"
    __table_args__ = (
        Index("ix_audit_entry_tenant_id", "tenant_id", "id"),
        Index("ix_audit_entry_created_at", "created_at"),
    )

    tenant_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    actor_kind: Mapped[ActorKind] = mapped_column(SafeString(16))
    actor_id: Mapped[str | None] = mapped_column(SafeString(64))
    actor_name: Mapped[str] = mapped_column(SafeText, default="")
    by_operator: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    action: Mapped[str] = mapped_column(SafeString(64))
    subject_kind: Mapped[str | None] = mapped_column(SafeString(16))
    subject_id: Mapped[str | None] = mapped_column(SafeString(64))
    subject_name: Mapped[str] = mapped_column(SafeText, default="")
    details: Mapped[JsonObject]
    request_id: Mapped[str] = mapped_column(SafeText, default="")
    address: Mapped[str] = mapped_column(SafeText, default="")


@event.listens_for(AuditEntry, "before_update")
def _refuse_update(_mapper: Mapper[AuditEntry], _connection: object, _entry: AuditEntry) -> None:
    raise TypeError("an entry of the audit log is never changed")
