"""Tenants and their keys."""

import datetime
from typing import Literal

from sqlalchemy import (
    ForeignKey,
    Integer,
    false,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    Json,
    Record,
    SafeString,
    SafeText,
    StructJson,
)
from server.settings import Limits

WhenUnsupported = Literal["answer", "needs_person"]


class Tenant(Record):
    """A customer organisation.

    ``next_version`` is the next adapter's version; ``live_revision`` counts changes of
    ``live_adapter_id``, for compare-and-set; ``knowledge_revision`` counts changes of what is searched. ``custom_patterns`` maps
    a label to a regular expression that redaction replaces, ``allowlist`` holds
    words that it leaves alone: the company's own telephone number, ``masked_terms`` those that it
    always replaces. ``curation_rules``: what becomes of conversations with each flag. ``keep_upload_days``: how long a
    transcript's file is kept after it was read; 0: not at all. ``limits`` are
    null where the installation's apply. ``retrieval``: whether answers are shown what others were
    answered. ``show_sources``: whether visitors and programs are told the articles that an answer was given.
    ``when_unsupported``: whether a person is called to a conversation where nothing supports an answer.
    ``shared_heads_off``: tasks for which the tenant wants no head of the installation.
    """

    __tablename__ = "tenant"

    slug: Mapped[str] = mapped_column(SafeString(40), unique=True)
    name: Mapped[str] = mapped_column(SafeText)
    system_prompt: Mapped[str] = mapped_column(SafeText, default="")
    custom_patterns: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    allowlist: Mapped[list[str]] = mapped_column(Json, default=list, server_default="[]")
    curation_rules: Mapped[dict[str, str]] = mapped_column(Json, default=dict, server_default="{}")
    masked_terms: Mapped[list[str]] = mapped_column(Json, default=list, server_default="[]")
    keep_upload_days: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    limits: Mapped[Limits | None] = mapped_column(StructJson(Limits, where="tenant.limits"))
    retrieval: Mapped[bool] = mapped_column(default=True, server_default=true())
    show_sources: Mapped[bool] = mapped_column(default=False, server_default=false())
    when_unsupported: Mapped[WhenUnsupported] = mapped_column(
        SafeString(12), default="answer", server_default="answer"
    )
    shared_heads_off: Mapped[list[str]] = mapped_column(Json, default=list, server_default="[]")
    next_version: Mapped[int] = mapped_column(default=1)
    live_adapter_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("adapter.id", ondelete="SET NULL", use_alter=True)
    )
    live_revision: Mapped[int] = mapped_column(default=0)
    knowledge_revision: Mapped[int] = mapped_column(Integer, default=0, server_default="0")


class ApiKey(Record):
    """A key, by its hash. Without a tenant it is the operator's.

    ``replaces_id`` is the key that this one was rotated from; ``limits`` apply beside the tenant's.
    ``actor``: who made it, as records name them; of older keys nobody knows.
    """

    __tablename__ = "api_key"

    tenant_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), index=True
    )
    label: Mapped[str] = mapped_column(SafeText, default="")
    prefix: Mapped[str] = mapped_column(SafeString(24))
    sha256: Mapped[str] = mapped_column(SafeString(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(Json, default=list)
    replaces_id: Mapped[str | None] = mapped_column(SafeString(32))
    actor: Mapped[str | None] = mapped_column(SafeText)
    limits: Mapped[Limits | None] = mapped_column(StructJson(Limits, where="api_key.limits"))
    expires_at: Mapped[datetime.datetime | None]
    revoked_at: Mapped[datetime.datetime | None]
    last_used_at: Mapped[datetime.datetime | None]
