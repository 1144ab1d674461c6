"""What the key endpoints take and give."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.schemas import Moment
from server.settings import Limits

Scope = Literal["chat", "train", "admin"]
SCOPES: tuple[Scope, ...] = ("chat", "train", "admin")
SCOPE_WORDS: dict[Scope, str] = {
    "chat": "Ask models",
    "train": "Upload and train",
    "admin": "Everything of the tenant",
}
SCOPE_TEXTS: dict[Scope, str] = {
    "chat": "Chat, completions, responses and embeddings, and the list of models.",
    "train": "Transcripts and files, training jobs, versions and what is live.",
    "admin": "Both, and also keys, webhooks, usage and the settings.",
}


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new key. ``expires_at`` needs a time zone; without it the key does not expire.

    ``limits`` apply beside the tenant's; where they are null only the tenant's apply.
    """

    label: Annotated[str, Meta(max_length=200)] = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = ("chat",)
    expires_at: Moment | None = None
    limits: Limits | None = None


class RotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to replace a key: for how long both work, and when the new one expires (as the old)."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 86_400
    expires_at: Moment | msgspec.UnsetType | None = msgspec.UNSET


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret; ``prefix`` is its beginning, to tell it from others.

    ``replaces_id``: the key that this one was rotated from.
    """

    id: str
    prefix: str
    label: str
    scopes: list[str]
    replaces_id: str | None
    limits: Limits | None
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None
    created_at: Moment


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key; ``key`` is shown this once and not kept."""

    key: str
    details: KeyView
