"""Turns the input of a response into items, and items into a conversation."""

from collections.abc import Mapping, Sequence

import msgspec

from server.api.body import missing
from server.api.openai.responses.schemas import InputItem, InputPart, ResponseBody
from server.chat.images import as_text
from server.chat.schemas import CalledFunction, ChatMessage, ToolCall
from server.embeddings.images import ImageInput
from server.errors import Invalid, NotFound
from server.responses.items import (
    MAX_ITEMS,
    CallItem,
    Content,
    InputText,
    Item,
    MessageItem,
    OutputRefusal,
    OutputText,
    ResultItem,
    item_id,
)
from server.retrieval.schemas import ImageLabel

MAX_CHARACTERS = 1_000_000
# what each kind of item is made of, and what each kind of part
_ITEMS = {
    "message": ("role", "content", "id", "status", "phase"),
    "function_call": ("call_id", "name", "arguments", "id", "status", "parsed_arguments"),
    "function_call_output": ("call_id", "output", "id", "status"),
    "item_reference": ("id",),
}
_PARTS = {
    "input_text": ("text",),
    "input_image": ("image_url", "detail"),
    "output_text": ("text", "annotations", "logprobs", "parsed"),
    "refusal": ("refusal",),
}


class InputConversation:
    """What a response answers: ``history`` from earlier ones, and ``items`` that are new."""

    def __init__(self, history: Sequence[Item], items: Sequence[Item]) -> None:
        self.history = history
        self.items = items

    def messages(self) -> tuple[list[str], tuple[ChatMessage, ...]]:
        """(texts for the system message, turns).

        Raises:
            Invalid: too long, nothing to answer, or a result without its call.
        """
        system: list[str] = []
        turns: list[ChatMessage] = []
        called: set[str] = set()
        everything = [*self.history, *self.items]
        _check_size(everything)
        for item in everything:
            match item:
                case MessageItem(role="system" | "developer"):
                    system.append(_text(item))
                case MessageItem(role="user"):
                    turns.append(ChatMessage(role="user", content=_text(item)))
                case MessageItem():
                    turns.append(ChatMessage(role="assistant", content=_text(item)))
                case CallItem():
                    called.add(item.call_id)
                    _add_call(turns, item)
                case ResultItem():
                    if item.call_id not in called:
                        raise Invalid(
                            f"No tool call found for function call output with call_id "
                            f"{item.call_id}.",
                            param="input",
                        )
                    turns.append(
                        ChatMessage(role="tool", content=item.output, tool_call_id=item.call_id)
                    )
        if not everything:
            raise Invalid("There must be something to answer.", param="input")
        return system, tuple(turns)


def images_in(body: ResponseBody) -> list[ImageInput]:
    """The images of the users' messages, in their order.

    Raises:
        Invalid: a part is said to be an image and has none, or has something else too.
    """
    found = []
    for place, item in enumerate(body.input if isinstance(body.input, list) else ()):
        if item.role == "user" and isinstance(item.content, list):
            for number, part in enumerate(item.content):
                if part.type == "input_image":
                    where = f"input[{place}].content[{number}]"
                    _check_fields(part, where, _PARTS[part.type])
                    param = f"{where}.image_url"
                    found.append(ImageInput(_needed(part.image_url, param), param))
    return found


def with_labels(body: ResponseBody, labels: Sequence[ImageLabel]) -> ResponseBody:
    """The body with what was said of its images (``images_in``) in their place."""
    if not labels or not isinstance(body.input, list):
        return body
    left = iter(labels)

    def read(item: InputItem) -> InputItem:
        if item.role != "user" or not isinstance(item.content, list):
            return item
        parts = [
            InputPart(type="input_text", text=as_text(next(left)))
            if part.type == "input_image"
            else part
            for part in item.content
        ]
        return msgspec.structs.replace(item, content=parts)

    return msgspec.structs.replace(body, input=[read(item) for item in body.input])


def referenced_items(body: ResponseBody) -> list[str]:
    """The ids of items that the input refers to.

    Raises:
        Invalid: a reference without an id.
    """
    if not isinstance(body.input, list):
        return []
    return [
        _needed(item.id, f"input[{place}].id")
        for place, item in enumerate(body.input)
        if item.type == "item_reference"
    ]


def items_of(body: ResponseBody, response: str, referenced: Mapping[str, Item]) -> list[Item]:
    """The input as items of a response (its 32 characters).

    Raises:
        Invalid: an item lacks something.
        NotFound: a reference to an item that is not among ``referenced``.
    """
    given = body.input or []
    if isinstance(given, str):
        given = [InputItem(role="user", content=given)]
    return [
        _item(item, f"input[{place}]", response, place, referenced)
        for place, item in enumerate(given)
    ]


def _item(
    given: InputItem, where: str, response: str, number: int, referenced: Mapping[str, Item]
) -> Item:
    _check_fields(given, where, _ITEMS[given.type])
    match given.type:
        case "message":
            return _message(given, where, item_id(MessageItem, response, number))
        case "function_call":
            return CallItem(
                id=item_id(CallItem, response, number),
                call_id=_needed(given.call_id, f"{where}.call_id"),
                name=_needed(given.name, f"{where}.name"),
                arguments=_needed(given.arguments, f"{where}.arguments"),
            )
        case "function_call_output":
            output = given.output
            if output is None:
                raise missing(f"{where}.output")
            if not isinstance(output, str):
                parts = [_part(part, f"{where}.output[{i}]") for i, part in enumerate(output)]
                output = "\n".join(map(_said, parts))
            return ResultItem(
                id=item_id(ResultItem, response, number),
                call_id=_needed(given.call_id, f"{where}.call_id"),
                output=output,
            )
        case "item_reference":
            found = referenced.get(given.id or "")
            if found is None:
                raise NotFound(
                    f"Item with id '{given.id}' not found. Items are not persisted when `store` "
                    "is set to false. Try again with `store` set to true, or remove this item "
                    "from your input.",
                    param="input",
                )
            return _renamed(found, item_id(type(found), response, number))


def _message(given: InputItem, where: str, name: str) -> MessageItem:
    role, content = given.role, given.content
    if role is None:
        raise missing(f"{where}.role")
    if content is None:
        raise missing(f"{where}.content")
    by_model = role == "assistant"
    if isinstance(content, str):
        part: Content = OutputText(text=content) if by_model else InputText(text=content)
        return MessageItem(id=name, role=role, content=[part])
    parts = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    for place, said in enumerate(parts):
        if by_model == isinstance(said, InputText):
            kinds = "'output_text' or 'refusal'" if by_model else "'input_text'"
            raise Invalid(
                f"The parts of a message from '{role}' must be of type {kinds}.",
                param=f"{where}.content[{place}].type",
            )
    return MessageItem(id=name, role=role, content=parts)


def _part(part: InputPart, where: str) -> Content:
    _check_fields(part, where, _PARTS[part.type])
    match part.type:
        case "input_image":
            raise Invalid("Images are read only in messages from 'user'.", param=f"{where}.type")
        case "input_text":
            return InputText(text=_needed(part.text, f"{where}.text"))
        case "output_text":
            return OutputText(text=_needed(part.text, f"{where}.text"))
        case "refusal":
            return OutputRefusal(refusal=_needed(part.refusal, f"{where}.refusal"))


def _check_fields(given: InputItem | InputPart, where: str, known: Sequence[str]) -> None:
    for name in given.__struct_fields__:
        if name not in ("type", *known) and getattr(given, name) not in (None, []):
            raise Invalid(
                f"'{where}.{name}' is not for the type '{given.type}'.", param=f"{where}.{name}"
            )


def _renamed(item: Item, name: str) -> Item:
    return msgspec.structs.replace(item, id=name)


def _add_call(turns: list[ChatMessage], item: CallItem) -> None:
    """Calls belong to the assistant's message before them; several are one turn."""
    call = ToolCall(id=item.call_id, function=CalledFunction(item.name, item.arguments))
    before = turns.pop() if turns and turns[-1].role == "assistant" else None
    turns.append(
        ChatMessage(
            role="assistant",
            content=before.content if before else "",
            tool_calls=((before.tool_calls if before else None) or ()) + (call,),
        )
    )


def _check_size(items: Sequence[Item]) -> None:
    if len(items) > MAX_ITEMS:
        raise Invalid(
            f"The conversation has more than {MAX_ITEMS} items.",
            param="input",
            code="context_length_exceeded",
        )
    characters = 0
    for item in items:
        match item:
            case MessageItem():
                characters += len(_text(item))
            case CallItem():
                characters += len(item.arguments)
            case ResultItem():
                characters += len(item.output)
    if characters > MAX_CHARACTERS:
        raise Invalid(
            f"The conversation has more than {MAX_CHARACTERS} characters in all.",
            param="input",
            code="context_length_exceeded",
        )


def _text(item: MessageItem) -> str:
    return "\n".join(map(_said, item.content))


def _said(part: Content) -> str:
    return part.refusal if isinstance(part, OutputRefusal) else part.text


def _needed(value: str | None, param: str) -> str:
    if value is None:
        raise missing(param)
    return value
