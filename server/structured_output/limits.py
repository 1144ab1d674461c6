"""Limits on JSON schemas that answers must follow.

The engine compiles a schema into a grammar before it generates. Counted repetitions multiply when
they are nested and patterns are programs of their own, so a few bytes can keep it busy for minutes
while every tenant waits.

Keywords that it should not compile, or cannot, are refused where the schema must be followed
strictly, and left out otherwise.

The bounds are ours, of what the engine's grammar compiler does with a schema. Its shape is not
checked against the metaschema: with ``jsonschema`` that takes 74 ms for a schema of 100 properties,
during which no other request is served, where all checks here take 1 ms.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from server.errors import Invalid
from server.structured_output.references import check_references

MAX_BYTES = 32 * 1024
MAX_DEPTH = 24
MAX_PARTS = 2_000
MAX_REPETITIONS = 10_000  # the product of the counts along a path
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
LENGTHS = ("minLength", "maxLength")
# the formats that OpenAI publishes; the engine has a small grammar for each
FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
)
UNSUPPORTED = frozenset(
    (
        "pattern",
        "patternProperties",
        "propertyNames",
        "multipleOf",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
    )
)
# What a value is: a schema, schemas by name, or plain data, in which nothing is a keyword.
_Kind = Literal["schema", "names", "data"]
_NAMES = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))
_DATA = frozenset(("enum", "const", "default", "examples"))


def bounded_schema(raw: msgspec.Raw, *, param: str, strict: bool = True) -> dict[str, Any]:
    """Decode a schema that the engine can compile in good time.

    Args:
        raw: the schema's JSON.
        param: the field of the caller's body that it is in, for errors.
        strict: refuse keywords that are not served; otherwise they are left out.

    Raises:
        Invalid: too large, too deep, with parts that may take unbounded time, or with types or
            references that mean nothing.
    """
    data = bytes(raw)
    if len(data) > MAX_BYTES:
        raise _out_of_bounds(f"larger than {MAX_BYTES} bytes", param)
    try:
        schema: Any = msgspec.json.decode(data)
    except RecursionError:
        raise _out_of_bounds(f"nested more than {MAX_DEPTH} levels deep", param) from None
    if not isinstance(schema, dict):
        raise Invalid(f"'{param}' must be an object.", param=param, code="invalid_type")
    waiting: list[tuple[Any, _Kind, int, int]] = [(schema, "schema", 1, 1)]
    parts = 0
    while waiting:
        part, kind, depth, repetitions = waiting.pop()
        parts += 1
        if depth > MAX_DEPTH:
            raise _out_of_bounds(f"nested more than {MAX_DEPTH} levels deep", param)
        if parts > MAX_PARTS:
            raise _out_of_bounds(f"made of more than {MAX_PARTS} parts", param)
        if kind == "schema" and isinstance(part, dict):
            repetitions *= _count(part)
            if repetitions > MAX_REPETITIONS:
                raise _out_of_bounds(
                    f"asking for more than {MAX_REPETITIONS} counted repetitions", param
                )
            _check_reference(part, param)
            if strict:
                _check_keywords(part, param)
        waiting += [(value, its, depth + 1, repetitions) for _, value, its in _inside(part, kind)]
    served: dict[str, Any] = schema if strict else _relaxed(schema, "schema")
    check_references(served, param=param)
    return served


def _inside(part: Any, kind: _Kind) -> Iterator[tuple[str, Any, _Kind]]:  # noqa: ANN401
    """Names, values and kinds of what is inside a part."""
    if isinstance(part, list):
        for value in part:
            yield "", value, kind
    elif isinstance(part, dict):
        for name, value in part.items():
            yield name, value, _kind_of(name, kind)


def _kind_of(name: str, kind: _Kind) -> _Kind:
    if kind == "names":
        return "schema"
    if kind == "schema" and name in _NAMES:
        return "names"
    return "data" if name in _DATA else kind


def _count(part: dict[str, Any]) -> int:
    counts = [part[name] for name in COUNTS if isinstance(part.get(name), int | float)]
    return max(1, *(int(min(count, MAX_REPETITIONS + 1)) for count in counts)) if counts else 1


def _check_reference(part: dict[str, Any], param: str) -> None:
    reference = part.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise Invalid(
            f"'$ref' in '{param}' must stay inside the schema ('#/...').",
            param=param,
            code="invalid_value",
        )


def _check_keywords(part: dict[str, Any], param: str) -> None:
    for name in part:
        if _is_unsupported(part, name):
            served = f"{', '.join(sorted(FORMATS))}, without a length"
            hint = f"; formats served are {served}" if name == "format" else ""
            raise Invalid(
                f"'{name}' in '{param}' is not supported with 'strict': true{hint}.",
                param=param,
                code="unsupported_value",
            )


def _is_unsupported(part: dict[str, Any], name: str) -> bool:
    """Whether a schema's keyword is one that the engine should not compile, or cannot."""
    value = part[name]
    if name == "format":
        return value not in FORMATS or any(size in part for size in LENGTHS)
    if name == "allOf":  # the engine takes several for anything at all
        return isinstance(value, list) and len(value) > 1
    return name in UNSUPPORTED


def _relaxed(part: Any, kind: _Kind) -> Any:  # noqa: ANN401 - any JSON
    """The same without unsupported keywords."""
    if isinstance(part, list):
        return [_relaxed(value, kind) for value in part]
    if not isinstance(part, dict):
        return part
    return {
        name: _relaxed(value, its)
        for name, value, its in _inside(part, kind)
        if kind != "schema" or not _is_unsupported(part, name)
    }


def _out_of_bounds(why: str, param: str) -> Invalid:
    return Invalid(f"The schema in '{param}' is {why}.", param=param, code="invalid_value")
