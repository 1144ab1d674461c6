"""OpenAI's objects that a chat is answered with, as the OpenAPI document describes them.

Answers are written piece by piece as they are generated (``answer.py``), not from these.
"""

from typing import Literal

import msgspec

from server.chat.schemas import Choice, ChunkChoice
from server.usage.schemas import PromptDetails


class CompletionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in one piece."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: Literal["default"] | msgspec.UnsetType = msgspec.UNSET


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. ``usage`` is there only where it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET
    service_tier: Literal["default"] | msgspec.UnsetType = msgspec.UNSET
