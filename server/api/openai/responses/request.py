"""Reads a response's body: what it asks for, or an error that names the field."""

import msgspec

from server.api.body import BodyReader, missing
from server.api.metadata import wants_retrieval
from server.api.openai.responses.input import InputConversation
from server.api.openai.responses.schemas import (
    NoReasoning,
    ResponseBody,
    ResponseObject,
    TextFormat,
)
from server.api.openai.responses.tools import decoded, shown_choice, shown_tools, to_tools
from server.api.openai.sampling import nucleus
from server.chat.schemas import ChatRequest, FieldNames, Sampling
from server.errors import Invalid
from server.retrieval.schemas import ImageLabel
from server.structured_output.limits import bounded_schema

LOGPROBS = "message.output_text.logprobs"

UNSUPPORTED = {
    "background": "responses are not made in the background; only false is accepted",
    "background_options": "responses are not made in the background",
    "conversation": "conversations are not kept; use 'previous_response_id'",
    "context_management": "contexts are not compacted; 'truncation': 'auto' drops the oldest items",
    "max_tool_calls": "there are no built-in tools whose calls it would limit",
    "moderation": "moderation is not served",
    "prompt": "prompt templates are not kept",
    "prompt_cache_options": "prompts are cached without options",
    "prompt_cache_retention": "prompts are cached in memory; only 'in_memory' is accepted",
    "reasoning": "the models served here do not reason separately; only effort 'none' is accepted",
    "service_tier": "there is one tier; only 'auto' and 'default' are accepted",
    "access_programs": "there are none",
    "image": "only text is served",
}
_ABSENT = (None, msgspec.Raw(b"null"))
_body = BodyReader(ResponseBody, unsupported=UNSUPPORTED)


def parse(data: bytes) -> ResponseBody:
    """Read a body; raises as ``BodyReader.read``."""
    body = _body.read(data)
    if body.stream_options is not None and not body.stream:
        raise Invalid("'stream_options' is only for 'stream': true.", param="stream_options")
    if body.input is None and body.previous_response_id is None:
        raise missing("input")
    return body


def to_chat(
    body: ResponseBody, conversation: InputConversation, *, images: tuple[ImageLabel, ...] = ()
) -> ChatRequest:
    """What the body asks for, in the chat service's terms; ``images`` are in its messages as text.

    Raises:
        Invalid: fields that contradict each other, or a conversation that cannot be answered.
    """
    system, messages = conversation.messages()
    parts = (body.instructions or "", *system)
    return ChatRequest(
        system="\n\n".join(part for part in parts if part),
        messages=messages,
        sampling=_sampling(body),
        tools=to_tools(body),
        drop_oldest=body.truncation == "auto",
        retrieval=wants_retrieval(body.metadata),
        images=images,
        fields=FieldNames(
            limit="max_output_tokens",
            schema="text.format.schema",
            functions={
                tool.name: f"tools[{place}].parameters"
                for place, tool in enumerate(body.tools or ())
            },
        ),
    )


def opening(body: ResponseBody, response_id: str, *, created_at: int, model: str) -> ResponseObject:
    """The response as it begins."""
    return ResponseObject(
        id=response_id,
        created_at=created_at,
        model=model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        prompt_cache_retention=body.prompt_cache_retention,
        reasoning=NoReasoning(effort=body.reasoning.effort if body.reasoning else None),
        safety_identifier=body.safety_identifier,
        store=body.store is not False,
        temperature=body.temperature,
        text={"format": _shown_format(body), "verbosity": "medium"},
        tool_choice=shown_choice(body),
        tools=shown_tools(body),
        top_logprobs=body.top_logprobs or 0,
        top_p=body.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
        metadata=body.metadata or {},
    )


def _sampling(body: ResponseBody) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=nucleus(body.top_p),
        max_tokens=body.max_output_tokens,
        logprobs=bool(body.top_logprobs) or LOGPROBS in (body.include or ()),
        top_logprobs=body.top_logprobs or 0,
        response_format=_response_format(body.text.format if body.text else None),
    )


def _response_format(wanted: TextFormat | None) -> dict[str, object] | None:
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        for name in ("name", "description", "schema", "strict"):
            if getattr(wanted, name) not in _ABSENT:
                raise Invalid(
                    f"'{name}' is not for a format of type '{wanted.type}'.",
                    param=f"text.format.{name}",
                )
        return None if wanted.type == "text" else {"type": "json_object"}
    for name in ("name", "schema"):
        if getattr(wanted, name) in _ABSENT:
            raise missing(f"text.format.{name}")
    schema = bounded_schema(wanted.schema, param="text.format.schema", strict=bool(wanted.strict))
    return {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": schema}}


def _shown_format(body: ResponseBody) -> dict[str, object]:
    wanted = body.text.format if body.text else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type if wanted else "text"}
    return {
        "type": "json_schema",
        "name": wanted.name,
        "description": wanted.description,
        "schema": decoded(wanted.schema),
        "strict": bool(wanted.strict),
    }
