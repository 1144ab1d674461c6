"""OpenAI's object of a completion, as the OpenAPI document describes it."""

from typing import Literal

import msgspec

from server.api.openai.chat.objects import CompletionUsage
from server.chat.completions import TextChoice


class TextCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion, or a piece of a streamed one, which has ``usage`` where it was asked for."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET
