"""What a chat asks of the engine and what comes back, the same for every API.

The shapes are those that OpenAI publishes, without what only engines say: a field that is not here
cannot pass, in either direction.
"""

from typing import Any, ClassVar, Literal

import msgspec

from server.engine.backend import CHAT
from server.retrieval.schemas import ImageLabel
from server.usage.schemas import Usage

# an estimate: for limits before an answer, and for prompts that the engine has not counted
CHARACTERS_PER_TOKEN = 4

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class CalledFunction(msgspec.Struct, frozen=True):
    """What was called; ``arguments`` is JSON, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that an answer makes, or made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn, its text in one piece."""

    role: Role
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


class Function(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that answers may call. ``parameters``: the JSON schema of its arguments, bounded.

    ``strict``: every call follows the schema; without it, as far as the engine can enforce it.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer may call, at least one function.

    ``choice``: whether it must call one. ``name``: the one that it must call. Without ``parallel``
    it makes one call at most.
    """

    functions: tuple[Function, ...]
    choice: Literal["auto", "required"] = "auto"
    name: str | None = None
    parallel: bool = True


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to generate. Field names are the engine's; what is None is left to the policy."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    response_format: dict[str, Any] | None = None


class FieldNames(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the caller's body that an error of the engine may have to name.

    ``functions``: the field of each function's schema, by the function's name.
    """

    limit: str = "max_tokens"
    schema: str = "response_format.json_schema.schema"
    functions: dict[str, str] = {}


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be continued. ``system`` is the caller's own, empty when there is none.

    Without ``messages`` the model answers the system message.
    ``tools`` None: nothing may be called ("tool_choice": "none" included). With ``drop_oldest`` the
    oldest turns are left out where all of them do not fit into the model's context. ``retrieval``:
    whether it may be shown what others were answered. ``images``: what stands in messages in place of
    images, for the receipt.
    """

    path: ClassVar[str] = CHAT

    system: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling = Sampling()
    tools: Tools | None = None
    drop_oldest: bool = False
    retrieval: bool = True
    images: tuple[ImageLabel, ...] = ()
    fields: FieldNames = FieldNames()

    @property
    def choices(self) -> int:
        """How many answers come back."""
        return self.sampling.n

    @property
    def characters(self) -> int:
        """Length of all texts of the conversation."""
        return len(self.system) + sum(len(message.content) for message in self.messages)


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token that was, and what else might have been."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class Logprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of an answer's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: None = None


class FunctionDelta(msgspec.Struct, omit_defaults=True):
    """What one chunk adds to a call: its name in one piece, its arguments in several."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, omit_defaults=True):
    """What one chunk adds to the call number ``index``; ``id``, ``type`` and name come once."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None


class UrlCitation(msgspec.Struct, frozen=True, kw_only=True):
    """A page that characters ``start_index`` up to ``end_index`` of an answer may rest on."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer cites."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class Delta(msgspec.Struct, omit_defaults=True):
    """What one chunk adds to a choice. ``annotations`` come whole, with the choice's last chunk."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    annotations: list[Annotation] | None = None


class ChunkChoice(msgspec.Struct):
    """One choice's part of a chunk."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event of the engine's stream."""

    choices: list[ChunkChoice]
    usage: Usage | None = None


class AnswerMessage(msgspec.Struct):
    """An answer in one piece.

    ``tool_calls`` is absent where nothing is called, ``annotations`` where nothing is cited; neither is
    ever empty.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    annotations: list[Annotation] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct):
    """One of the ``n`` answers."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: Logprobs | None = None


class Completion(msgspec.Struct):
    """All answers in one piece; ``supported``: see `server.retrieval.schemas.Grounding`."""

    choices: list[Choice]
    usage: Usage
    supported: bool | None = None
