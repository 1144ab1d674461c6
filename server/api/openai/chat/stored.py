"""Stored chat completions as OpenAI shows them."""

from typing import Any, Literal

import msgspec

from server.api.metadata import Metadata
from server.chat.schemas import Choice, ToolCall
from server.chat.stored import PREFIX
from server.db.models import StoredCompletion


class UpdateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/chat/completions/{id}``: only the metadata can change."""

    metadata: Metadata | None


class StoredUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A completion that was kept; ``supported`` as when it was given."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: StoredUsage
    service_tier: str = "default"
    metadata: dict[str, str]
    supported: bool | msgspec.UnsetType = msgspec.UNSET


class StoredPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message's content."""

    type: Literal["text"] = "text"
    text: str


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One of the messages that a completion answers. ``content_parts``: where it came in parts."""

    id: str
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    refusal: str | None = None
    name: str | None = None
    content_parts: list[StoredPart] | None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET


class DeletedCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion that is no longer kept."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: bool = True


def stored_answer(row: StoredCompletion) -> StoredAnswer:
    """A kept completion, with the metadata of now."""
    metadata = row.client_metadata or {}
    return msgspec.convert({**row.answer, "metadata": metadata}, StoredAnswer)


def stored_messages(row: StoredCompletion) -> list[StoredMessage]:
    """The messages that it answers, in their order."""
    return [
        _message(f"{PREFIX}{row.id}-{place}", message) for place, message in enumerate(row.messages)
    ]


def _message(message_id: str, message: dict[str, Any]) -> StoredMessage:
    content = message.get("content")
    parts = None
    if isinstance(content, list):
        texts = [part.get("text") or part.get("refusal") or "" for part in content]
        parts, content = [StoredPart(text=text) for text in texts], None
    calls = message.get("tool_calls")
    return StoredMessage(
        id=message_id,
        role=message["role"],
        content=content,
        refusal=message.get("refusal"),
        name=message.get("name"),
        content_parts=parts,
        tool_calls=msgspec.convert(calls, list[ToolCall]) if calls else msgspec.UNSET,
        tool_call_id=message.get("tool_call_id") or msgspec.UNSET,
    )
