"""OpenAI's body of a chat completion, as far as it is served, and the objects it is answered with.

``CompletionBody`` is an allow-list: a field that is not in it is refused by name, so that no
unexpected field reaches the engine. Everything that a client can make large has a bound.

``ChatCompletion`` and ``ChatCompletionChunk`` are for the OpenAPI document: answers are written
piece by piece as they are generated (``streaming.py``), not from these.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.body import Echoed
from server.api.metadata import Metadata
from server.chat.schemas import Choice, ChunkChoice
from server.embeddings.images import MAX_URL
from server.usage.schemas import PromptDetails

MAX_MESSAGES = 1_000
MAX_PARTS = 256
MAX_ARGUMENTS = 32 * 1024
MAX_TOOLS = 128
MAX_CHARACTERS = 1_000_000  # of all messages

_Short = Annotated[str, Meta(max_length=512)]
_Speaker = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="Accepted, and not shown to the model by the usual chat templates: "
        "say in `content` who speaks where that matters.",
    ),
]
_Stop = Annotated[str, Meta(min_length=1, max_length=256)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Limit = Annotated[int, Meta(ge=1, le=1_000_000)]
_TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Bias = Annotated[float, Meta(ge=-100, le=100)]
LogitBias = Annotated[
    dict[_TokenId, _Bias],
    Meta(max_length=300, extra_json_schema={"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,9})$"}}),
]
_FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class ImageUrl(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image, as a ``data:`` URL; addresses are not fetched. ``detail`` means nothing here."""

    url: Annotated[str, Meta(max_length=MAX_URL)]
    detail: Literal["auto", "low", "high"] | None = None


class ContentPart(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message's content.

    Of a user's image the tenant's image head says what it is, and that is what the model reads.
    """

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None
    # of other types, which are refused as a whole
    input_audio: Any = None
    file: Any = None


class FunctionCall(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an earlier answer called. ``parsed_arguments`` are a client's own, and not read."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    arguments: Annotated[str, Meta(max_length=MAX_ARGUMENTS)]
    parsed_arguments: Any = None


class ToolCall(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call that an earlier answer made. ``index``, of a streamed one, means nothing here."""

    id: _Short
    function: FunctionCall
    type: Literal["function"] = "function"
    index: int | None = None


class Message(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message of the conversation so far.

    What messages from ``system`` and ``developer`` say is read before all others, in one system
    message, wherever they stand in the conversation.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Meta(max_length=MAX_PARTS)] | None = None
    name: _Speaker | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=64)] | None = None
    tool_call_id: _Short | None = None
    # an answer's own keys, for clients that send answers back as they got them
    refusal: Annotated[str, Meta(max_length=MAX_CHARACTERS)] | None = None
    annotations: Annotated[list[Any], Meta(max_length=MAX_PARTS)] | None = None
    parsed: Any = None
    audio: None = None
    function_call: None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to stream. ``include_obfuscation`` is accepted and has nothing to do here."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schema that the answer must follow."""

    name: _FunctionName
    description: _Short | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class FunctionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that the answer may call. ``parameters`` is the JSON schema of its arguments."""

    name: _FunctionName
    description: Annotated[str, Meta(max_length=4096)] | None = None
    parameters: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    strict: bool | None = None


class ToolBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool: only functions are served."""

    type: Literal["function"]
    function: FunctionBody


class FunctionName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function by its name."""

    name: _FunctionName


class AllowedTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool by its name."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of the tools that may be called this time."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(min_length=1, max_length=MAX_TOOLS)]


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The function that must be called, or those that may be."""

    type: Literal["function", "allowed_tools"]
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class CompletionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/chat/completions``. The fields of type None are known and not supported."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=4)] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolBody], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default"] | None = None
    # accepted, and of no consequence here
    user: _Short | None = None
    safety_identifier: _Short | None = None
    prompt_cache_key: _Short | None = None
    modalities: Annotated[list[Literal["text"]], Meta(max_length=1)] | None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    prediction: None = None
    prompt_cache_options: None = None
    web_search_options: None = None
    moderation: None = None


class CompletionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in one piece.

    ``supported`` is not OpenAI's: whether something that was looked up supports the answer; absent where
    nothing was.
    """

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: Literal["default"] | msgspec.UnsetType = msgspec.UNSET
    supported: bool | msgspec.UnsetType = msgspec.UNSET


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. ``usage`` is there only where it was asked for.

    ``supported``: as in a completion, in every chunk.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET
    service_tier: Literal["default"] | msgspec.UnsetType = msgspec.UNSET
    supported: bool | msgspec.UnsetType = msgspec.UNSET
