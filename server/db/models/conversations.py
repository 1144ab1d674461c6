"""The widget, its visitors, and what they and the assistant say.

What visitors write is personal data: it goes with the tenant, and after ``Widget.keep_days`` without a
new message (``server/conversations/retention.py``).
"""

import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    ForeignKey,
    Index,
    Integer,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    DateTimeUTC,
    Json,
    Record,
    SafeString,
    SafeText,
    StructJson,
    tenant_column,
)
from server.schemas import WidgetBudgets

LiveState = Literal["open", "handed_over"]
SpeakerRole = Literal["visitor", "assistant", "person"]
MessageState = Literal["writing", "complete", "stopped", "failed"]
Vote = Literal["up", "down"]
HandoffState = Literal["open", "given_back"]
CONTEXT_MESSAGES = 40
"""Messages that the model is given, if they fit into its context; and that a better answer is learnt with."""


class Widget(Record):
    """A tenant's chat widget: what sites show, where it may be shown, and its secrets.

    Secrets are encrypted (``server/webhooks/vault.py``). ``session_secret`` signs nonces and sessions;
    with ``identity_secret`` the tenant's own server signs who a visitor is, and until
    ``previous_identity_secret_until`` with the previous one too. ``next_handoff_number`` counts
    hand-offs, whose numbers people are told. ``budgets`` are null where the defaults apply. With
    ``offer_when_annoyed`` people are offered to take over a conversation that sounds annoyed.
    """

    __tablename__ = "widget"
    __table_args__ = (UniqueConstraint("tenant_id"),)

    tenant_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    public_key: Mapped[str] = mapped_column(SafeString(31), unique=True)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    display_name: Mapped[str] = mapped_column(SafeText, default="")
    greeting: Mapped[str] = mapped_column(SafeText, default="")
    suggestions: Mapped[list[str]] = mapped_column(Json, default=list)
    teaser: Mapped[str] = mapped_column(SafeText, default="")
    accent: Mapped[str] = mapped_column(SafeString(7))
    language: Mapped[str] = mapped_column(SafeString(8), default="")
    origins: Mapped[list[str]] = mapped_column(Json, default=list)
    allow_localhost: Mapped[bool] = mapped_column(Boolean, default=True)
    handoff_hours: Mapped[str] = mapped_column(SafeText, default="")
    handoff_expected: Mapped[str] = mapped_column(SafeText, default="")
    offer_when_annoyed: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    keep_days: Mapped[int] = mapped_column(Integer, default=180)
    budgets: Mapped[WidgetBudgets | None] = mapped_column(
        StructJson(WidgetBudgets, where="widget.budgets")
    )
    session_secret: Mapped[str | None] = mapped_column(SafeText)
    identity_secret: Mapped[str | None] = mapped_column(SafeText)
    identity_secret_hint: Mapped[str | None] = mapped_column(SafeString(4))
    previous_identity_secret: Mapped[str | None] = mapped_column(SafeText)
    previous_identity_secret_until: Mapped[datetime.datetime | None]
    next_handoff_number: Mapped[int] = mapped_column(Integer, default=1)


class Visitor(Record):
    """Somebody who wrote in the widget: anonymous with a token's hash, or identified by ``subject``.

    ``said_name`` and ``said_email`` came unsigned: a note, and nothing is found by them. ``name`` and
    ``email`` are from the signed token of ``verified_at``.
    """

    __tablename__ = "visitor"
    __table_args__ = (UniqueConstraint("tenant_id", "subject"),)

    tenant_id: Mapped[str] = tenant_column()
    token_sha256: Mapped[str | None] = mapped_column(SafeString(64), unique=True)
    subject: Mapped[str | None] = mapped_column(SafeString(255))
    name: Mapped[str | None] = mapped_column(SafeText)
    email: Mapped[str | None] = mapped_column(SafeText)
    said_name: Mapped[str | None] = mapped_column(SafeText)
    said_email: Mapped[str | None] = mapped_column(SafeText)
    verified_at: Mapped[datetime.datetime | None]
    signed_out_at: Mapped[datetime.datetime | None]


class LiveConversation(Record):
    """What a visitor and the assistant say; there is one row in every queue of the console.

    ``topic`` is the beginning of the first message. While it is ``handed_over`` the assistant is
    silent. ``thumbs_down`` counts the answers that the visitor marked so, ``annoyed_messages`` the
    messages that a head took for annoyed. ``unsupported_since``: when nothing supported an answer, and the
    tenant wants a person to look; null until then, and once one has looked. ``look_reason``: that it was
    a rule of the tenant that asked for a person (``HandoffRule``), in words; empty where it was not.
    """

    __tablename__ = "live_conversation"
    __table_args__ = (
        Index(None, "tenant_id", "last_at", "id"),
        Index(
            "ix_live_conversation_unsupported",
            "tenant_id",
            sqlite_where=text("unsupported_since IS NOT NULL"),
            postgresql_where=text("unsupported_since IS NOT NULL"),
        ),
    )

    tenant_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    visitor_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("visitor.id", ondelete="CASCADE"), index=True
    )
    state: Mapped[LiveState] = mapped_column(SafeString(12), default="open")
    topic: Mapped[str] = mapped_column(SafeText, default="")
    message_count: Mapped[int] = mapped_column(Integer, default=0)
    thumbs_down: Mapped[int] = mapped_column(Integer, default=0)
    annoyed_messages: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    unsupported_since: Mapped[datetime.datetime | None]
    look_reason: Mapped[str] = mapped_column(SafeText, default="", server_default=text("''"))
    last_at: Mapped[datetime.datetime]


class LiveMessage(Record):
    """One message. An answer carries its receipt: which model wrote it, how long it took.

    ``client_id`` is the visitor's own id of a message, so that one sent twice is stored once.
    ``reply_to`` is the message that an answer answers; ``attempt`` counts how often that was tried, so
    that a try that was given up does not overwrite the next. ``author`` is who wrote for the
    company. ``correction`` is what the answer should have said, to be learnt from.
    """

    __tablename__ = "live_message"
    __table_args__ = (
        UniqueConstraint("conversation_id", "seq"),
        UniqueConstraint("conversation_id", "client_id", name="uq_live_message_client_id"),
    )

    tenant_id: Mapped[str] = tenant_column()
    conversation_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("live_conversation.id", ondelete="CASCADE")
    )
    seq: Mapped[int] = mapped_column(Integer)
    role: Mapped[SpeakerRole] = mapped_column(SafeString(12))
    text: Mapped[str] = mapped_column(SafeText, default="")
    state: Mapped[MessageState] = mapped_column(SafeString(12), default="complete")
    client_id: Mapped[str | None] = mapped_column(SafeString(36))
    reply_to: Mapped[str | None] = mapped_column(SafeString(32), index=True)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    author: Mapped[str | None] = mapped_column(SafeText)
    vote: Mapped[Vote | None] = mapped_column(SafeString(4))
    vote_reasons: Mapped[list[str]] = mapped_column(Json, default=list)
    vote_text: Mapped[str | None] = mapped_column(SafeText)
    correction: Mapped[str | None] = mapped_column(SafeText)
    corrected_by: Mapped[str | None] = mapped_column(SafeText)
    corrected_at: Mapped[datetime.datetime | None]
    model: Mapped[str | None] = mapped_column(SafeText)
    adapter_version: Mapped[int | None] = mapped_column(Integer)
    first_token_ms: Mapped[int | None] = mapped_column(Integer)
    total_ms: Mapped[int | None] = mapped_column(Integer)
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)


class Handoff(Record):
    """A conversation passed on to a person. A conversation has at most one that is open.

    ``reason``: the rule that did so, in words; empty where a person did.
    """

    __tablename__ = "handoff"
    __table_args__ = (
        UniqueConstraint("tenant_id", "number"),
        Index(
            "uq_handoff_open",
            "conversation_id",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
    )

    tenant_id: Mapped[str] = tenant_column()
    conversation_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("live_conversation.id", ondelete="CASCADE"), index=True
    )
    number: Mapped[int] = mapped_column(Integer)
    email: Mapped[str] = mapped_column(SafeText)
    note: Mapped[str] = mapped_column(SafeText, default="")
    reason: Mapped[str] = mapped_column(SafeText, default="", server_default=text("''"))
    wants_copy: Mapped[bool] = mapped_column(Boolean, default=False)
    expected: Mapped[str] = mapped_column(SafeText, default="")
    state: Mapped[HandoffState] = mapped_column(SafeString(12), default="open")
    given_back_at: Mapped[datetime.datetime | None]
    given_back_by: Mapped[str | None] = mapped_column(SafeText)


class RefusedOrigin(Record):
    """A site that asked for the widget and is not allowed to show it, by UTC day."""

    __tablename__ = "refused_origin"
    __table_args__ = (UniqueConstraint("tenant_id", "day", "origin"),)

    tenant_id: Mapped[str] = tenant_column()
    day: Mapped[datetime.date] = mapped_column(Date)
    origin: Mapped[str] = mapped_column(SafeString(300))
    count: Mapped[int] = mapped_column(BigInteger, default=1)


class UsedNonce(Record):
    """A nonce that a session was made with; kept until it would have expired."""

    __tablename__ = "used_nonce"
    __table_args__ = (UniqueConstraint("tenant_id", "nonce"),)

    tenant_id: Mapped[str] = tenant_column()
    nonce: Mapped[str] = mapped_column(SafeString(32))
    expires_at: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)


class WidgetUse(Record):
    """How often something was done by one visitor or from one address in a minute or day.

    ``who`` cannot be turned back into an address.
    """

    __tablename__ = "widget_use"
    __table_args__ = (UniqueConstraint("tenant_id", "kind", "who", "number"),)

    tenant_id: Mapped[str] = tenant_column()
    kind: Mapped[str] = mapped_column(SafeString(40))
    who: Mapped[str] = mapped_column(SafeString(64))
    number: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)
