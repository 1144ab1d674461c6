"""Reads a chat completion's body: what it asks for, or an error that names the field."""

from typing import Any

from server.chat.bounds import bounded_schema
from server.chat.schemas import CalledFunction, ChatMessage, ChatRequest, Sampling, ToolCall
from server.errors import Invalid
from server.openai.body import BodyReader
from server.openai.chat.schemas import CompletionBody, ContentPart, Message, ResponseFormat
from server.openai.chat.tools import to_tools
from server.openai.sampling import check_sampling, nucleus, stops

MAX_CHARACTERS = 1_000_000

UNSUPPORTED = {
    "functions": "it is deprecated; use 'tools'",
    "function_call": "it is deprecated; use 'tool_choice'",
    "audio": "only text is served",
    "modalities": "only text is served",
    "prediction": "predicted outputs are not served",
    "reasoning_effort": "the models served here do not reason separately; only 'none' is accepted",
    "verbosity": "say in a message how long the answer should be; only 'medium' is accepted",
    "prompt_cache_options": "prompts are cached without options",
    "prompt_cache_retention": "prompts are cached in memory; only 'in_memory' is accepted",
    "web_search_options": "the models served here do not search",
    "moderation": "moderation is not served",
    "service_tier": "there is one tier; only 'auto' and 'default' are accepted",
}
_body = BodyReader(CompletionBody, unsupported=UNSUPPORTED)


def parse(data: bytes) -> CompletionBody:
    """Read a body; raises as ``BodyReader.read``."""
    return _body.read(data)


def to_chat(body: CompletionBody) -> ChatRequest:
    """What the body asks for, in the chat service's terms.

    Raises:
        Invalid: fields that contradict each other, or messages that cannot be answered.
    """
    system: list[str] = []
    messages: list[ChatMessage] = []
    characters = 0
    called: set[str] = set()
    for place, message in enumerate(body.messages):
        where = f"messages[{place}]"
        text = _text(message, where)
        characters += len(text)
        characters += sum(len(call.function.arguments) for call in message.tool_calls or ())
        if characters > MAX_CHARACTERS:
            raise Invalid(
                f"The messages have more than {MAX_CHARACTERS} characters in all.",
                param="messages",
                code="context_length_exceeded",
            )
        if message.role in ("system", "developer"):
            system.append(text)
        else:
            messages.append(_message(message, text, where, called))
    return ChatRequest(
        system="\n\n".join(part for part in system if part),
        messages=tuple(messages),
        sampling=_sampling(body),
        tools=to_tools(body),
    )


def _sampling(body: CompletionBody) -> Sampling:
    n = body.n or 1
    check_sampling(n=n, temperature=body.temperature, seed=body.seed)
    if body.stream_options is not None and not body.stream:
        raise Invalid("'stream_options' is only for 'stream': true.", param="stream_options")
    if body.top_logprobs and not body.logprobs:
        raise Invalid("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if body.max_tokens not in (None, limit):
        raise Invalid(
            "'max_tokens' and 'max_completion_tokens' differ: give one.", param="max_tokens"
        )
    return Sampling(
        temperature=body.temperature,
        top_p=nucleus(body.top_p),
        max_tokens=limit,
        n=n,
        stop=stops(body.stop),
        seed=body.seed,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=body.logit_bias or None,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
        response_format=_response_format(body.response_format),
    )


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    if wanted.json_schema is None:
        raise Invalid(
            "A response_format of type 'json_schema' needs 'json_schema'.",
            param="response_format.json_schema",
            code="missing_required_parameter",
        )
    schema = bounded_schema(
        wanted.json_schema.schema,
        param="response_format.json_schema.schema",
        strict=bool(wanted.json_schema.strict),
    )
    named = {"name": wanted.json_schema.name, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _message(message: Message, text: str, where: str, called: set[str]) -> ChatMessage:
    """A message; ``called`` keeps the ids of the calls so far."""
    if message.role == "tool":
        if message.tool_call_id is None:
            raise Invalid(
                "A message from 'tool' needs the 'tool_call_id' that it answers.",
                param=f"{where}.tool_call_id",
                code="missing_required_parameter",
            )
        if message.tool_call_id not in called:
            raise Invalid(
                "A message from 'tool' must answer a call in the 'tool_calls' of an earlier one.",
                param=f"{where}.tool_call_id",
            )
    assert message.role in ("user", "assistant", "tool")  # noqa: S101 - the others are gone
    calls = message.tool_calls if message.role == "assistant" else None
    called.update(call.id for call in calls or ())
    return ChatMessage(
        role=message.role,
        content=text,
        name=message.name,
        tool_call_id=message.tool_call_id if message.role == "tool" else None,
        tool_calls=tuple(
            ToolCall(
                id=call.id,
                function=CalledFunction(call.function.name, call.function.arguments),
            )
            for call in calls
        )
        if calls
        else None,
    )


def _text(message: Message, where: str) -> str:
    """A message's text in one piece; parts are lines."""
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        if message.role == "assistant" and (message.tool_calls or message.refusal):
            return message.refusal or ""
        raise Invalid(
            f"Missing required parameter: '{where}.content'.",
            param=f"{where}.content",
            code="missing_required_parameter",
        )
    texts = []
    for place, part in enumerate(content):
        said = _said(part, message)
        if said is None:
            raise Invalid(
                f"A content part of type '{part.type[:40]}' cannot be read: only text is served.",
                param=f"{where}.content[{place}]",
            )
        texts.append(said)
    return "\n".join(texts)


def _said(part: ContentPart, message: Message) -> str | None:
    if part.type == "refusal" and message.role == "assistant":
        return part.refusal
    return part.text if part.type == "text" else None
