"""OpenAI's bodies of ``/v1/responses``, as far as they are served.

``ResponseBody`` is an allow-list, like that of chat completions; fields of type None are known and
not supported. ``ResponseObject`` has every published key, null where there is nothing to say.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.body import Echoed
from server.api.metadata import Metadata
from server.embeddings.images import MAX_URL
from server.responses.items import MAX_ITEMS, CallItem, MessageItem, Status

MAX_PARTS = 256
MAX_TOOLS = 128
MAX_ARGUMENTS = 32 * 1024

_Short = Annotated[str, Meta(max_length=512)]
_Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class InputPart(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of an input message.

    Of a user's image (a ``data:`` URL; ``detail`` means nothing here) the tenant's image head says what it
    is, and that is what the model reads and what is kept.
    """

    type: Literal["input_text", "input_image", "output_text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    image_url: Annotated[str, Meta(max_length=MAX_URL)] | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    file_id: None = None
    # an answer's own keys, for clients that send answers back as they got them
    annotations: Annotated[list[Any], Meta(max_length=MAX_PARTS)] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = None


class InputItem(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input item: a message (the type may be left out), a call, its result, or a reference.

    What messages from ``system`` and ``developer`` say is read before all others, in one system
    message after the ``instructions``, wherever they stand in the conversation.
    """

    type: Literal["message", "function_call", "function_call_output", "item_reference"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Annotated[list[InputPart], Meta(max_length=MAX_PARTS)] | None = None
    call_id: _Short | None = None
    name: _Short | None = None
    arguments: Annotated[str, Meta(max_length=MAX_ARGUMENTS)] | None = None
    output: str | Annotated[list[InputPart], Meta(max_length=MAX_PARTS)] | None = None
    id: _Short | None = None
    # an answer's own keys, of no consequence here
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    parsed_arguments: Any = None


class ToolBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool: only functions are served. ``parameters`` is the JSON schema of its arguments."""

    type: Literal["function"]
    name: _Name
    description: Annotated[str, Meta(max_length=4096)] | None = None
    parameters: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    strict: bool | None = None
    defer_loading: None = None
    allowed_callers: None = None
    output_schema: None = None


class AllowedTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool by its name."""

    type: Literal["function"]
    name: _Name


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The function that must be called, or those that may be."""

    type: Literal["function", "allowed_tools"]
    name: _Name | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[AllowedTool], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None


class TextFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of the text."""

    type: Literal["text", "json_object", "json_schema"]
    name: _Name | None = None
    description: Annotated[str, Meta(max_length=4096)] | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    strict: bool | None = None


class TextBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the text should be like."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Echoed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The models served here do not reason separately: nothing else can be asked of them."""

    effort: Literal["none"] | None = None
    summary: None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to stream. ``include_obfuscation`` is accepted and has nothing to do here."""

    include_obfuscation: bool | None = None


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/responses``."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[InputItem], Meta(max_length=MAX_ITEMS)] | None = None
    instructions: Annotated[str, Meta(max_length=1_000_000)] | None = None
    previous_response_id: _Short | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: (
        Annotated[
            list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]],
            Meta(max_length=16),
        ]
        | None
    ) = None
    text: TextBody | None = None
    tools: Annotated[list[ToolBody], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled", "auto"] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default"] | None = None
    # accepted, and of no consequence here
    user: _Short | None = None
    safety_identifier: _Short | None = None
    prompt_cache_key: _Short | None = None
    background: Literal[False] | None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    reasoning: Reasoning | None = None
    background_options: None = None
    conversation: None = None
    context_management: None = None
    max_tool_calls: None = None
    moderation: None = None
    prompt: None = None
    prompt_cache_options: None = None
    access_programs: None = None
    image: None = None


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that may be called, as it was given."""

    type: Literal["function"] = "function"
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a response, zero where nothing is known."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no whole answer."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class Incomplete(msgspec.Struct, frozen=True, kw_only=True):
    """Why the answer ends where it does."""

    reason: Literal["max_output_tokens", "content_filter"]


class NoReasoning(msgspec.Struct, frozen=True, kw_only=True):
    """The models served here do not reason separately."""

    effort: Literal["none"] | None = None
    summary: None = None


class ResponseObject(msgspec.Struct, frozen=True, kw_only=True):
    """A response.

    ``supported`` is not OpenAI's: whether something that was looked up supports the answer; absent where
    nothing was.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    background: bool = False
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: None = None
    model: str
    output: list[MessageItem | CallItem] = []
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt: None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: NoReasoning = NoReasoning()
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float | None = None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[FunctionTool] = []
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: Literal["disabled", "auto"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, str] = {}
    access_programs: None = None
    conversation: None = None
    image: None = None
    input_transformations: None = None
    moderation: None = None
    prompt_cache_diagnostics: None = None
    prompt_cache_options: None = None
    tool_usage: None = None
    supported: bool | msgspec.UnsetType = msgspec.UNSET


class ResponseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a streamed response: what it holds beside these follows from its ``type``."""

    type: str
    sequence_number: int
    response: ResponseObject | msgspec.UnsetType = msgspec.UNSET


class DeletedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is no longer kept."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True
