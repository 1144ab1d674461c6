"""OpenAI's body of a (legacy) completion, as far as it is served, and its answer's object."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.api.openai.chat.schemas import CompletionUsage, LogitBias, StreamOptions
from server.chat.completions import TextChoice

MAX_PROMPTS = 32
MAX_TOKENS = 262_144  # of one prompt
MAX_LOGPROBS = 5

_Text = Annotated[str, Meta(min_length=1)]
_TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Short = Annotated[str, Meta(max_length=512)]
_Stop = Annotated[str, Meta(min_length=1, max_length=256)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
# strings, token ids, or lists of token ids: which of them is checked where they are read
_Prompts = Annotated[
    list[_Text | _TokenId | Annotated[list[_TokenId], Meta(min_length=1, max_length=MAX_TOKENS)]],
    Meta(
        min_length=1,
        max_length=MAX_TOKENS,
        extra_json_schema={
            "oneOf": [{"items": {"type": kind}} for kind in ("string", "integer", "array")]
        },
    ),
]


class TextBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/completions``. The fields of type None are known and not supported."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    prompt: _Text | _Prompts
    max_tokens: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=8)] | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=4)] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: _Short | None = None  # accepted, and of no consequence here
    suffix: None = None


class TextCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion, or a piece of a streamed one, which has ``usage`` where it was asked for."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET
