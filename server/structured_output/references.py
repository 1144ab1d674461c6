"""Checks that the references in a JSON schema lead somewhere, and that a finite value follows it.

The engine has no good error for a schema that no finite value follows: it fails, or writes for
ever. What it never reads, such as definitions that nothing refers to, is not read here either.

References are resolved as the engine resolves them, which is less than the ``referencing`` package
does: that reads escapes (``~1``), which the engine would then look for in vain.
"""

from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from server.errors import Invalid

TYPES = ("string", "number", "integer", "boolean", "null", "object", "array")
_Schema = dict[str, Any]
_CHOICES = ("anyOf", "oneOf")
_INSIDE = ("additionalProperties", "unevaluatedProperties", "items", "unevaluatedItems")


def check_references(schema: _Schema, *, param: str) -> None:
    """Check a schema and all that it refers to.

    Raises:
        Invalid: an unknown type, a reference to nothing, one that leads back to itself, or a part
            that no finite value follows.
    """
    parts: dict[int, _Schema] = {}
    same_value: dict[int, list[int]] = {}
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if id(part) in parts:
            continue
        parts[id(part)] = part
        _check_type(part, param)
        same = list(_of_same_value(part, schema, param))
        same_value[id(part)] = [id(each) for each in same]
        waiting += [*same, *_inside(part)]
    try:
        TopologicalSorter(same_value).prepare()
    except CycleError:
        raise _invalid(
            f"A '$ref' in '{param}' leads back to itself: a property of an object or an item of an "
            "array must lie in between.",
            param,
        ) from None
    if not _all_finite(parts, same_value):
        raise _invalid(
            f"The schema in '{param}' requires itself without end: make what refers back optional, "
            "nullable or an array.",
            param,
        )


def _check_type(part: _Schema, param: str) -> None:
    if "type" not in part:
        return
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    for kind in kinds:
        if kind not in TYPES:
            raise _invalid(f"'type' in '{param}' must be one of {', '.join(TYPES)}.", param)


def _of_same_value(part: _Schema, root: _Schema, param: str) -> Iterator[_Schema]:
    """Schemas that the same value follows."""
    if "$ref" in part:
        yield from _only_schemas([_target(part["$ref"], root, param)])
        return
    for name in (*_CHOICES, "allOf"):
        yield from _only_schemas(part.get(name))


def _inside(part: _Schema) -> Iterator[_Schema]:
    """Schemas of the values inside."""
    properties = part.get("properties")
    if isinstance(properties, dict):
        yield from _only_schemas(list(properties.values()))
    yield from _only_schemas(part.get("prefixItems"))
    yield from _only_schemas([part.get(name) for name in _INSIDE])


def _only_schemas(values: Any) -> Iterator[_Schema]:  # noqa: ANN401 - any JSON
    """The objects in a list: ``true`` allows anything, and the engine names other mistakes."""
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, dict))


def _target(reference: Any, root: _Schema, param: str) -> Any:  # noqa: ANN401 - any JSON
    """What a reference names, resolved as the engine does: no escapes, and no indices of lists."""
    found: Any = None
    if reference == "#":
        found = root
    elif isinstance(reference, str) and reference.startswith("#/"):
        found = root
        for name in reference.removeprefix("#/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict | bool):
        raise _invalid(
            f"A '$ref' in '{param}' names nothing in the schema. It is '#', or a path of names as "
            "they are written: '#/$defs/name'.",
            param,
        )
    return found


def _all_finite(parts: dict[int, _Schema], same_value: dict[int, list[int]]) -> bool:
    """Whether a finite value follows each part, beginning with those that need no other part."""
    needs = {part_id: _needed(part, same_value[part_id]) for part_id, part in parts.items()}
    users: defaultdict[int, list[int]] = defaultdict(list)
    for part_id, choices in needs.items():
        for needed in {each for choice in choices for each in choice}:
            users[needed].append(part_id)
    finite: set[int] = set()
    waiting = list(parts)
    while waiting:
        part_id = waiting.pop()
        if part_id not in finite and any(finite.issuperset(choice) for choice in needs[part_id]):
            finite.add(part_id)
            waiting += users[part_id]
    return len(finite) == len(parts)


def _needed(part: _Schema, same_value: list[int]) -> list[list[int]]:
    """What must be finite for a part to be: all of one of these lists.

    As the engine reads it: beside ``$ref`` nothing counts, nor beside ``enum`` or ``anyOf``.
    """
    needed: list[Any] = []
    choices = next((part[name] for name in _CHOICES if part.get(name)), None)
    kind = part.get("type")
    if isinstance(kind, list) and len(kind) == 1:
        (kind,) = kind
    if "$ref" in part:
        return [same_value]
    if "const" in part or "enum" in part:
        pass
    elif isinstance(choices, list):
        return [[id(each)] if isinstance(each, dict) else [] for each in choices]
    elif "allOf" in part:
        return [same_value]
    elif kind == "object" or (kind is None and "properties" in part):
        needed = _required(part)
    elif kind == "array" or (kind is None and "items" in part):
        needed = _first_items(part)
    return [[id(each) for each in _only_schemas(needed)]]


def _required(part: _Schema) -> list[Any]:
    names, properties = part.get("required"), part.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    others = part.get("additionalProperties")
    names = names if isinstance(names, list) else []
    return [properties.get(name, others) for name in names if isinstance(name, str)]


def _first_items(part: _Schema) -> list[Any]:
    least, first = part.get("minItems"), part.get("prefixItems")
    first = first if isinstance(first, list) else []
    if not isinstance(least, int) or least <= 0:
        return []
    return first[:least] if len(first) >= least else [*first, part.get("items")]


def _invalid(message: str, param: str) -> Invalid:
    return Invalid(message, param=param, code="invalid_value")
