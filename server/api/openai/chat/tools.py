"""Reads what a chat completion may call."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.api.openai.chat.schemas import CompletionBody, FunctionBody, ToolBody, ToolChoice
from server.chat.schemas import Function, Tools
from server.errors import Invalid
from server.structured_output.limits import bounded_schema

MAX_SCHEMA_BYTES = 64 * 1024  # of all tools together
_ABSENT = b"null"


def to_tools(body: CompletionBody) -> Tools | None:
    """What may be called, if anything.

    Raises:
        Invalid: a choice of a tool that is not there, two of one name, schemas out of bounds.
    """
    choice = body.tool_choice
    if body.tools is None:
        if choice not in (None, "none", "auto"):
            raise Invalid(
                "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice"
            )
        return None
    functions = _functions(body.tools)
    if choice == "none":
        return None
    parallel = body.parallel_tool_calls is not False
    if not isinstance(choice, ToolChoice):
        return Tools(functions=functions, choice=choice or "auto", parallel=parallel)
    if choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise _missing("tool_choice.allowed_tools")
        wanted = {tool.function.name for tool in choice.allowed_tools.tools}
        allowed = tuple(function for function in functions if function.name in wanted)
        if len(allowed) < len(wanted):
            raise _unknown("tool_choice.allowed_tools")
        return Tools(functions=allowed, choice=choice.allowed_tools.mode, parallel=parallel)
    if choice.function is None:
        raise _missing("tool_choice.function")
    name = choice.function.name
    if all(function.name != name for function in functions):
        raise _unknown("tool_choice.function.name")
    return Tools(functions=functions, choice="required", name=name, parallel=parallel)


def _functions(tools: Sequence[ToolBody]) -> tuple[Function, ...]:
    functions: dict[str, Function] = {}
    left = MAX_SCHEMA_BYTES
    for place, tool in enumerate(tools):
        wanted = tool.function
        where = f"tools[{place}].function"
        left -= len(bytes(wanted.parameters))
        if left < 0:
            raise Invalid(
                f"The schemas in 'tools' are larger than {MAX_SCHEMA_BYTES} bytes.", param="tools"
            )
        if wanted.name in functions:
            raise Invalid(f"There are two tools named '{wanted.name}'.", param=f"{where}.name")
        functions[wanted.name] = Function(
            name=wanted.name,
            description=wanted.description,
            parameters=_parameters(wanted, f"{where}.parameters"),
            strict=bool(wanted.strict),
        )
    return tuple(functions.values())


def _parameters(wanted: FunctionBody, where: str) -> dict[str, Any] | None:
    raw: msgspec.Raw = wanted.parameters
    if bytes(raw) == _ABSENT:
        return None
    return bounded_schema(raw, param=where, strict=bool(wanted.strict))


def _missing(param: str) -> Invalid:
    return Invalid(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def _unknown(param: str) -> Invalid:
    return Invalid(f"'{param}' names a tool that is not in 'tools'.", param=param)
