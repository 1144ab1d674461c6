"""What options say, made into what the services take, under the constraints that the API has."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from server.cli.console import EXIT_USAGE, fail

T = TypeVar("T", bound=msgspec.Struct)

NAMES = {
    "slug": "SLUG",
    "url": "URL",
    "number_patterns": "--number-pattern",
    "limits": "--limit",
    "events": "--event",
    "objectives": "--objective",
    "overlap_seconds": "--overlap",
}
"""Fields that are not called as their option is."""

RULES = {
    "description": "{}",
    "enum": "of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "exclusiveMaximum": "less than {}",
    "maximum": "at most {}",
    "maxItems": "at most {} of them",
}
"""What a JSON schema may say of a field, in words."""

MAX_SHOWN = 60


def checked(kind: type[T], values: Mapping[str, Any], *, names: Mapping[str, str] = {}) -> T:
    """A struct of these values; msgspec looks at its constraints where it converts, and only there.

    A value that does not fit ends the command with exit code 2 and the option's name, which is the
    field's, or as in ``names``.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(values), kind)
    except msgspec.ValidationError as exc:
        found = re.search(r" - at `\$\.(\w+)", str(exc))
        if found is None:
            raise
        field = found[1]
        name = names.get(field) or NAMES.get(field) or "--" + field.replace("_", "-")
        value = values[field]
        shown = repr(" ".join(value) if isinstance(value, list | tuple) else value)
        said = f" {shown}" if len(shown) <= MAX_SHOWN else ""
        rules = _rules(kind, field) or str(exc)[: found.start()]
        fail(f"{name}{said}: expected {rules}", code=EXIT_USAGE)


def _rules(kind: type[msgspec.Struct], field: str) -> str:
    """What the API's document says that a field, or each part of it, must be."""
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"][field]
    rules: dict[str, Any] = dict(schema)
    for part in (schema.get("items", {}), *schema.get("anyOf", ())):
        rules |= part
    if "enum" in rules:
        rules["enum"] = ", ".join(map(str, rules["enum"]))
    found = [words.format(rules[rule]) for rule, words in RULES.items() if rule in rules]
    if not found and "pattern" in rules:
        found = [f"what {rules['pattern']} matches"]
    return ", ".join(found)
