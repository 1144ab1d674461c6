"""Limits on JSON schemas that answers must follow.

The engine compiles a schema into a grammar before it generates. Counted repetitions multiply when
they are nested and patterns are programs of their own, so a few bytes can keep it busy for minutes
while every tenant waits.

What the engine should not compile is refused where the schema must be followed strictly, and
otherwise left out: such a schema is a wish.
"""

from typing import Any

import msgspec

from server.errors import Invalid

MAX_BYTES = 32 * 1024
MAX_DEPTH = 24
MAX_PARTS = 2_000
MAX_REPEATS = 10_000  # the product of the counts along a path
REFUSED = ("pattern", "patternProperties")
# those that OpenAI publishes; the engine has a small grammar for each
FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
)
LENGTHS = ("minLength", "maxLength")
DATA = frozenset(("enum", "const", "default", "examples"))  # their values are no schemas
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def bounded_schema(raw: msgspec.Raw, *, param: str, strict: bool = True) -> dict[str, Any]:
    """Decode a schema that the engine can compile in good time.

    Without ``strict``, keywords that it should not compile are left out.

    Raises:
        Invalid: too large, too deep, or with parts that may take unbounded time.
    """
    data = bytes(raw)
    if len(data) > MAX_BYTES:
        raise _refusal(f"larger than {MAX_BYTES} bytes", param)
    try:
        schema: Any = msgspec.json.decode(data)
    except RecursionError:
        raise _refusal(f"nested more than {MAX_DEPTH} levels deep", param) from None
    if not isinstance(schema, dict):
        raise Invalid(f"'{param}' must be an object.", param=param, code="invalid_type")
    waiting: list[tuple[Any, int, int]] = [(schema, 1, 1)]
    parts = 0
    while waiting:
        part, depth, repeats = waiting.pop()
        parts += 1
        if depth > MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} levels deep", param)
        if parts > MAX_PARTS:
            raise _refusal(f"made of more than {MAX_PARTS} parts", param)
        if isinstance(part, dict):
            repeats *= _count(part)
            if repeats > MAX_REPEATS:
                raise _refusal(f"asking for more than {MAX_REPEATS} counted repetitions", param)
            _check_reference(part, param)
            if strict:
                _check_keywords(part, param)
            waiting += [(value, depth + 1, repeats) for value in part.values()]
        elif isinstance(part, list):
            waiting += [(value, depth + 1, repeats) for value in part]
    return schema if strict else _relaxed(schema)


def _count(part: dict[str, Any]) -> int:
    counts = [part[name] for name in COUNTS if isinstance(part.get(name), int | float)]
    return max(1, *(int(min(count, MAX_REPEATS + 1)) for count in counts)) if counts else 1


def _check_reference(part: dict[str, Any], param: str) -> None:
    reference = part.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise Invalid(
            f"'$ref' in '{param}' must stay inside the schema ('#/...').",
            param=param,
            code="invalid_value",
        )


def _check_keywords(part: dict[str, Any], param: str) -> None:
    for name in (*REFUSED, "format"):
        if _is_unwanted(part, name):
            hint = f"; formats served are {', '.join(sorted(FORMATS))}, without a length"
            raise Invalid(
                f"'{name}' in '{param}' is not supported: remove it"
                f"{hint if name == 'format' else ''}.",
                param=param,
                code="unsupported_value",
            )


def _is_unwanted(part: dict[str, Any], name: str) -> bool:
    """Whether a keyword is there that the engine should not compile.

    A property may have such a name; its value is then a schema, not a keyword's value.
    """
    if name == "patternProperties":
        return name in part
    value = part.get(name)
    if not isinstance(value, str):
        return False
    return name != "format" or value not in FORMATS or any(size in part for size in LENGTHS)


def _relaxed(part: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same without the keywords that the engine should not compile."""
    if isinstance(part, list):
        return [_relaxed(value) for value in part]
    if not isinstance(part, dict):
        return part
    unwanted = {name for name in (*REFUSED, "format") if _is_unwanted(part, name)}
    return {
        name: value if name in DATA else _relaxed(value)
        for name, value in part.items()
        if name not in unwanted
    }


def _refusal(why: str, param: str) -> Invalid:
    return Invalid(f"The schema in '{param}' is {why}.", param=param, code="invalid_value")
