"""Reads a chat completion's body: what it asks for, or an error that names the field."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.api.body import BodyReader, missing
from server.api.metadata import wants_retrieval
from server.api.openai.chat.schemas import (
    MAX_CHARACTERS,
    CompletionBody,
    ContentPart,
    Message,
    ResponseFormat,
)
from server.api.openai.chat.tools import to_tools
from server.api.openai.sampling import check_sampling, nucleus, stops
from server.chat.images import as_text
from server.chat.schemas import (
    CalledFunction,
    ChatMessage,
    ChatRequest,
    FieldNames,
    Sampling,
    ToolCall,
)
from server.embeddings.images import ImageInput
from server.errors import Invalid
from server.retrieval.schemas import ImageLabel
from server.structured_output.limits import bounded_schema

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
# what only messages from one role have
_ONLY_FROM = {
    "tool_calls": "assistant",
    "refusal": "assistant",
    "annotations": "assistant",
    "parsed": "assistant",
    "tool_call_id": "tool",
}
_IMAGE = "image_url"
_body = BodyReader(CompletionBody, unsupported=UNSUPPORTED)


def parse(data: bytes) -> CompletionBody:
    """Read a body; raises as ``BodyReader.read``."""
    return _body.read(data)


def images_in(body: CompletionBody) -> list[ImageInput]:
    """The images of the users' messages, in their order.

    Raises:
        Invalid: a part is said to be an image and has none, or has something else too.
    """
    found = []
    for place, message in enumerate(body.messages):
        if message.role == "user" and isinstance(message.content, list):
            for number, part in enumerate(message.content):
                if part.type == _IMAGE:
                    where = f"messages[{place}].content[{number}]"
                    _check_part(part, where)
                    if part.image_url is None:
                        raise missing(f"{where}.{_IMAGE}")
                    found.append(ImageInput(part.image_url.url, f"{where}.{_IMAGE}.url"))
    return found


def with_labels(body: CompletionBody, labels: Sequence[ImageLabel]) -> CompletionBody:
    """The body with what was said of its images (``images_in``) in their place."""
    if not labels:
        return body
    left = iter(labels)

    def read(message: Message) -> Message:
        if message.role != "user" or not isinstance(message.content, list):
            return message
        parts = [
            ContentPart(type="text", text=as_text(next(left))) if part.type == _IMAGE else part
            for part in message.content
        ]
        return msgspec.structs.replace(message, content=parts)

    return msgspec.structs.replace(body, messages=[read(message) for message in body.messages])


def to_chat(body: CompletionBody, *, images: tuple[ImageLabel, ...] = ()) -> ChatRequest:
    """What the body asks for, in the chat service's terms; ``images`` are in its messages as text.

    Raises:
        Invalid: fields that contradict each other, or messages that cannot be answered.
    """
    system: list[str] = []
    messages: list[ChatMessage] = []
    characters = 0
    called: set[str] = set()
    for place, message in enumerate(body.messages):
        where = f"messages[{place}]"
        _check_role(message, where)
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
        retrieval=wants_retrieval(body.metadata),
        images=images,
        fields=_fields(body),
    )


def _fields(body: CompletionBody) -> FieldNames:
    places = {tool.function.name: place for place, tool in enumerate(body.tools or ())}
    return FieldNames(
        limit="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
        functions={n: f"tools[{place}].function.parameters" for n, place in places.items()},
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
    if wanted is None:
        return None
    if wanted.type != "json_schema" and wanted.json_schema is not None:
        raise Invalid(
            f"'json_schema' is not for a response_format of type '{wanted.type}'.",
            param="response_format.json_schema",
        )
    if wanted.type == "text":
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


def _check_role(message: Message, where: str) -> None:
    for name, role in _ONLY_FROM.items():
        if message.role != role and getattr(message, name) not in (None, []):
            raise Invalid(
                f"'{where}.{name}' is only for messages from '{role}', not from '{message.role}'.",
                param=f"{where}.{name}",
            )


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
    calls = message.tool_calls
    called.update(call.id for call in calls or ())
    return ChatMessage(
        role=message.role,
        content=text,
        name=message.name,
        tool_call_id=message.tool_call_id,
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
    if not content and (message.tool_calls or message.refusal):
        return message.refusal or ""
    if content is None:
        raise missing(f"{where}.content")
    if content == []:
        raise Invalid(
            f"'{where}.content' is an empty list: there must be at least one part.",
            param=f"{where}.content",
        )
    if isinstance(content, str):
        said = content
    else:
        parts = enumerate(content)
        said = "\n".join(_said(part, message, f"{where}.content[{i}]") for i, part in parts)
    return f"{said}\n{message.refusal}" if message.refusal else said


def _said(part: ContentPart, message: Message, where: str) -> str:
    kind = part.type
    if kind == _IMAGE:
        raise Invalid("Images are read only in messages from 'user'.", param=where)
    if kind != "text" and (kind != "refusal" or message.role != "assistant"):
        raise Invalid(
            f"A content part of type '{kind[:40]}' cannot be read: only text is served, and what an "
            "image head says of images.",
            param=where,
        )
    _check_part(part, where)
    said = part.text if kind == "text" else part.refusal
    if said is None:
        raise missing(f"{where}.{kind}")
    return said


def _check_part(part: ContentPart, where: str) -> None:
    """See that a part has nothing but what its type says."""
    for name in part.__struct_fields__:
        if name not in ("type", part.type) and getattr(part, name) is not None:
            raise Invalid(
                f"'{where}.{name}' is not for a part of type '{part.type}'.",
                param=f"{where}.{name}",
            )
