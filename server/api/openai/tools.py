"""Tools as chats and responses both declare them: functions with the schema of their arguments."""

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from server.chat.schemas import Function
from server.errors import Invalid
from server.structured_output.limits import bounded_schema

MAX_SCHEMA_BYTES = 64 * 1024  # of all tools together
ABSENT = b"null"


class _Declared(Protocol):
    """A function as a body declares it. ``parameters``: JSON, ``null`` where there are none."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def parameters(self) -> msgspec.Raw: ...


def to_functions(declared: Iterable[tuple[str, _Declared, bool]]) -> tuple[Function, ...]:
    """The functions that may be called, from (field of the body, function, whether it is strict).

    Raises:
        Invalid: two of one name, or schemas out of bounds.
    """
    functions: dict[str, Function] = {}
    left = MAX_SCHEMA_BYTES
    for field, function, strict in declared:
        left -= len(bytes(function.parameters))
        if left < 0:
            raise Invalid(
                f"The schemas in 'tools' are larger than {MAX_SCHEMA_BYTES} bytes.", param="tools"
            )
        if function.name in functions:
            raise Invalid(f"There are two tools named '{function.name}'.", param=f"{field}.name")
        parameters: dict[str, Any] | None = None
        if bytes(function.parameters) != ABSENT:
            param = f"{field}.parameters"
            parameters = bounded_schema(function.parameters, param=param, strict=strict)
        functions[function.name] = Function(
            name=function.name,
            description=function.description,
            parameters=parameters,
            strict=strict,
        )
    return tuple(functions.values())


def unknown_tool(param: str) -> Invalid:
    """The error for a choice of a tool that is not declared."""
    return Invalid(f"'{param}' names a tool that is not in 'tools'.", param=param)


def tools_needed() -> Invalid:
    """The error for a choice where no tools are declared."""
    return Invalid("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
