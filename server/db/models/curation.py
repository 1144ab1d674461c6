"""What people decided about doubtful hits of redaction and flagged conversations."""

from typing import Literal

from sqlalchemy import BigInteger, Boolean, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import JsonObject, Record, SafeString, SafeText, tenant_column

DoubtDecision = Literal["approve", "reject", "edit"]


class RedactionDecision(Record):
    """Whether a doubtful text is personal data; it holds for the tenant's every conversation.

    ``text`` in lower case, with single blanks. ``masked``: of ``edit``, the part that is replaced.
    """

    __tablename__ = "redaction_decision"
    __table_args__ = (UniqueConstraint("tenant_id", "rule", "text"),)

    tenant_id: Mapped[str] = tenant_column()
    rule: Mapped[str] = mapped_column(SafeString(40))
    text: Mapped[str] = mapped_column(SafeText)
    entity_type: Mapped[str] = mapped_column(SafeString(20))
    decision: Mapped[DoubtDecision] = mapped_column(SafeString(8))
    masked: Mapped[str] = mapped_column(SafeText, default="")
    actor: Mapped[str] = mapped_column(SafeText)


class CurationChoice(Record):
    """Whether one flagged conversation is learnt from, whatever its tenant's rules say."""

    __tablename__ = "curation_choice"
    __table_args__ = (UniqueConstraint("tenant_id", "conversation_id"),)

    tenant_id: Mapped[str] = tenant_column()
    conversation_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("conversation.id", ondelete="CASCADE")
    )
    keep: Mapped[bool] = mapped_column(Boolean)
    actor: Mapped[str] = mapped_column(SafeText)


class CurationScan(Record):
    """What was found when a tenant's conversations were last looked through.

    ``labels``: what is said of each conversation, by its id (``ConversationLabels``); thousands, and not
    read with the row.
    """

    __tablename__ = "curation_scan"

    tenant_id: Mapped[str] = tenant_column()
    conversations: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[JsonObject]
    labels: Mapped[JsonObject] = mapped_column(default=dict, server_default="{}", deferred=True)
