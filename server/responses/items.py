"""The items of a response's input and output, as they are kept and as clients see them."""

from typing import Any, Literal

import msgspec

MAX_ITEMS = 1_000  # of a conversation, and of one input

Status = Literal["in_progress", "completed", "incomplete"]
Role = Literal["user", "assistant", "system", "developer"]


class TopToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that might have been."""

    token: str
    bytes: list[int]
    logprob: float


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token of the text, and what else might have been."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopToken]


class InputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    """A part of what was said to the model."""

    text: str


class OutputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """A part of what the model said."""

    annotations: list[dict[str, Any]] = []
    logprobs: list[Token] = []
    text: str


class OutputRefusal(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="refusal"):
    """What a model said instead of an answer; ours never do, but a client may bring one."""

    refusal: str


Content = InputText | OutputText | OutputRefusal


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """One message."""

    id: str
    status: Status = "completed"
    role: Role
    content: list[Content]


class CallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call that the model made. ``arguments`` is JSON, as the model wrote it."""

    id: str
    status: Status = "completed"
    call_id: str
    name: str
    arguments: str


class ResultItem(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"
):
    """What a call came to."""

    id: str
    status: Status = "completed"
    call_id: str
    output: str


Item = MessageItem | CallItem | ResultItem

_PREFIXES: dict[type[Item], str] = {MessageItem: "msg_", CallItem: "fc_", ResultItem: "fco_"}


def item_id(kind: type[Item], response: str, number: int) -> str:
    """The id of the item ``number`` of a response (its 32 characters), input first: so it is found."""
    return f"{_PREFIXES[kind]}{response}{number:04x}"


def response_of(item: str) -> str | None:
    """Which response an item's id belongs to, or None where the id is none of ours."""
    _, _, rest = item.partition("_")
    return rest[:32] if len(rest) == 36 and set(rest) <= set("0123456789abcdef") else None  # noqa: PLR2004


def read_items(kept: list[Any]) -> list[Item]:
    """Items as they were kept."""
    return msgspec.convert(kept, list[Item])
