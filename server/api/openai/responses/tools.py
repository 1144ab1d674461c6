"""Reads which tools a response may call, and repeats them in the response."""

from typing import Any

import msgspec

from server.api.body import missing
from server.api.openai.responses.schemas import FunctionTool, ResponseBody, ToolBody, ToolChoice
from server.api.openai.tools import ABSENT, to_functions, tools_needed, unknown_tool
from server.chat.schemas import Tools
from server.errors import Invalid
from server.structured_output.limits import bounded_schema


def to_tools(body: ResponseBody) -> Tools | None:
    """What may be called, if anything.

    Raises:
        Invalid: a choice of a tool that is not there, two of one name, schemas out of bounds.
    """
    choice = body.tool_choice
    if not body.tools:
        if choice not in (None, "none", "auto"):
            raise tools_needed()
        return None
    functions = to_functions(
        (f"tools[{place}]", tool, _is_strict(tool)) for place, tool in enumerate(body.tools)
    )
    parallel = body.parallel_tool_calls is not False
    if not isinstance(choice, ToolChoice):
        if choice == "none":
            return None
        return Tools(functions=functions, choice=choice or "auto", parallel=parallel)
    names = {function.name for function in functions}
    if choice.type == "function":
        if choice.name is None:
            raise missing("tool_choice.name")
        if choice.name not in names:
            raise unknown_tool("tool_choice.name")
        return Tools(functions=functions, choice="required", name=choice.name, parallel=parallel)
    if choice.mode is None or choice.tools is None:
        raise missing("tool_choice.tools" if choice.mode else "tool_choice.mode")
    wanted = {tool.name for tool in choice.tools}
    if not wanted <= names:
        raise unknown_tool("tool_choice.tools")
    allowed = tuple(function for function in functions if function.name in wanted)
    return Tools(functions=allowed, choice=choice.mode, parallel=parallel)


def shown_tools(body: ResponseBody) -> list[FunctionTool]:
    """The tools as the response repeats them."""
    return [
        FunctionTool(
            name=tool.name,
            description=tool.description,
            parameters=decoded(tool.parameters),
            strict=_is_strict(tool),
        )
        for tool in body.tools or ()
    ]


def shown_choice(body: ResponseBody) -> str | dict[str, Any]:
    """The choice as the response repeats it."""
    if not isinstance(body.tool_choice, ToolChoice):
        return body.tool_choice or "auto"
    shown: dict[str, Any] = msgspec.to_builtins(body.tool_choice)
    return {name: value for name, value in shown.items() if value is not None}


def decoded(raw: msgspec.Raw) -> Any:  # noqa: ANN401 - any JSON
    """JSON that was checked before."""
    return msgspec.json.decode(bytes(raw))


def _is_strict(tool: ToolBody) -> bool:
    """Strict unless asked for otherwise, where the schema can be followed strictly."""
    if tool.strict is not None or bytes(tool.parameters) == ABSENT:
        return bool(tool.strict)
    try:
        bounded_schema(tool.parameters, param="tools")
    except Invalid:
        return False
    return True
