"""Reads which tools a chat completion may call."""

from server.api.body import missing
from server.api.openai.chat.schemas import CompletionBody, ToolChoice
from server.api.openai.tools import to_functions, tools_needed, unknown_tool
from server.chat.schemas import Tools


def to_tools(body: CompletionBody) -> Tools | None:
    """What may be called, if anything.

    Raises:
        Invalid: a choice of a tool that is not there, two of one name, schemas out of bounds.
    """
    choice = body.tool_choice
    if body.tools is None:
        if choice not in (None, "none", "auto"):
            raise tools_needed()
        return None
    functions = to_functions(
        (f"tools[{place}].function", tool.function, bool(tool.function.strict))
        for place, tool in enumerate(body.tools)
    )
    if choice == "none":
        return None
    parallel = body.parallel_tool_calls is not False
    if not isinstance(choice, ToolChoice):
        return Tools(functions=functions, choice=choice or "auto", parallel=parallel)
    if choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise missing("tool_choice.allowed_tools")
        wanted = {tool.function.name for tool in choice.allowed_tools.tools}
        allowed = tuple(function for function in functions if function.name in wanted)
        if len(allowed) < len(wanted):
            raise unknown_tool("tool_choice.allowed_tools")
        return Tools(functions=allowed, choice=choice.allowed_tools.mode, parallel=parallel)
    if choice.function is None:
        raise missing("tool_choice.function")
    name = choice.function.name
    if all(function.name != name for function in functions):
        raise unknown_tool("tool_choice.function.name")
    return Tools(functions=functions, choice="required", name=name, parallel=parallel)
