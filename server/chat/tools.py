"""Tools in the engine's request.

Where the base's chat template renders tools, it gets them as they are. Where it does not, they are
written here as text in the Hermes format, from which the engine reads calls: descriptions at the
end of the system message, earlier calls in the assistant's turns, their results in the user's. A
conversation without tools is left exactly as it is: that is what adapters are trained on.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from connectors.control_tokens import without_control_tokens
from server.chat.schemas import ChatMessage, ChatRequest, Function, ToolCall, Tools

_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
_SIGNATURES = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def tool_fields(tools: Tools) -> dict[str, Any]:
    """The fields of the engine's request that say what may be called."""
    choice: Any = tools.choice
    if tools.name is not None:
        choice = {"type": "function", "function": {"name": tools.name}}
    return {
        "tools": [_described(function) for function in tools.functions],
        "tool_choice": choice,
        "parallel_tool_calls": tools.parallel,
    }


def as_text(request: ChatRequest) -> ChatRequest:
    """The same conversation for a template that does not render tools."""
    if request.tools is None and not any(_is_about_tools(m) for m in request.messages):
        return request
    system = request.system
    if request.tools is not None:
        lines = (msgspec.json.encode(_described(f)).decode() for f in request.tools.functions)
        described = _SIGNATURES.format(signatures="\n".join(lines))
        system = f"{system}\n\n{described}" if system else described
    return msgspec.structs.replace(
        request, system=system, messages=tuple(_as_text(request.messages))
    )


def as_calls(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """The same turns for a template that renders tools.

    Ids are numbered anew, nine characters each, because some templates require that form.
    """
    numbers: dict[str, str] = {}
    turns = []
    for message in messages:
        calls = tuple(
            msgspec.structs.replace(call, id=numbers.setdefault(call.id, f"{len(numbers):09d}"))
            for call in message.tool_calls or ()
        )
        answers = message.tool_call_id
        if calls or answers is not None:
            message = msgspec.structs.replace(  # noqa: PLW2901
                message,
                tool_calls=calls or None,
                tool_call_id=None if answers is None else numbers.get(answers, answers),
            )
        turns.append(message)
    return turns


def _is_about_tools(message: ChatMessage) -> bool:
    return message.role == "tool" or bool(message.tool_calls)


def _as_text(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    turns: list[ChatMessage] = []
    answering = False  # the last turn is a tool's: the next result is added to it
    for message in messages:
        if message.role == "tool":
            text = f"<tool_response>\n{message.content}\n</tool_response>"
            if answering:
                text = f"{turns.pop().content}\n{text}"
            turns.append(ChatMessage(role="user", content=text))
        elif message.tool_calls:
            text = "\n".join((message.content, *map(_as_call, message.tool_calls)))
            turns.append(ChatMessage(role=message.role, content=text.lstrip("\n")))
        else:
            turns.append(message)
        answering = message.role == "tool"
    return turns


def _described(function: Function) -> dict[str, Any]:
    described: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        described["description"] = function.description
    described["parameters"] = function.parameters or _NO_PARAMETERS
    if function.strict:
        described["strict"] = True
    return {"type": "function", "function": _without_control_tokens(described)}


def _without_control_tokens(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same without control tokens, in every string and key."""
    match value:
        case str():
            return without_control_tokens(value)
        case dict():
            return {
                without_control_tokens(name): _without_control_tokens(item)
                for name, item in value.items()
            }
        case list():
            return [_without_control_tokens(item) for item in value]
        case _:
            return value


def _as_call(call: ToolCall) -> str:
    """A call as the model writes it; arguments that are not JSON are written as a string."""
    name = msgspec.json.encode(call.function.name).decode()
    arguments = call.function.arguments
    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = msgspec.json.encode(arguments).decode()
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
