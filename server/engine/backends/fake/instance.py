"""A value that follows a JSON schema, for answers and arguments that must be JSON.

Its numbers are those in the question, so that a test can recognise them.
"""

import re
from typing import Any

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_TEXTS = {
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "date": "2026-01-31",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_WORD = "word"
_DEEPEST = 16


class SchemaError(ValueError):
    """A schema that cannot be used."""


class Instance:
    """Makes a value of ``schema`` with the numbers in ``question``."""

    def __init__(self, schema: dict[str, Any], question: str) -> None:
        self._root = schema
        self._numbers = [float(found) for found in _NUMBER.findall(question)]

    @property
    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """The value; raises SchemaError."""
        return self._make(self._root, 0)

    def _make(self, schema: Any, depth: int) -> Any:  # noqa: ANN401, PLR0911 - a line a kind
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return None
        if "$ref" in schema:
            return self._make(self._resolve(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for name in ("anyOf", "oneOf"):
            if schema.get(name):
                return self._make(schema[name][0], depth + 1)
        if schema.get("allOf"):
            return self._make({k: v for part in schema["allOf"] for k, v in part.items()}, depth)
        return self._of_kind(schema, depth)

    def _of_kind(self, schema: dict[str, Any], depth: int) -> Any:  # noqa: ANN401, PLR0911
        kind = schema.get("type", "object" if "properties" in schema else "string")
        match kind[0] if isinstance(kind, list) else kind:
            case "object":
                properties = schema.get("properties", {})
                wanted = schema.get("required", properties)
                return {name: self._make(properties.get(name), depth + 1) for name in wanted}
            case "array":
                count = min(max(schema.get("minItems", 1), 1), schema.get("maxItems", 1 << 30))
                return [self._make(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "integer":
                return int(self._number(schema))
            case "number":
                return self._number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case "string":
                text = _TEXTS.get(schema.get("format", ""), _WORD)
                text = text.ljust(schema.get("minLength", 0), "x")
                return text[: schema.get("maxLength", len(text))]
            case _:
                raise SchemaError(f'Unsupported type "{kind}"')

    def _number(self, schema: dict[str, Any]) -> float:
        number = self._numbers.pop(0) if self._numbers else 1.0
        return float(min(max(number, schema.get("minimum", number)), schema.get("maximum", number)))

    def _resolve(self, reference: str) -> Any:  # noqa: ANN401
        found: Any = self._root
        for name in reference.split("/")[1:]:
            found = found.get(name.replace("~1", "/").replace("~0", "~"), {})
        return found
