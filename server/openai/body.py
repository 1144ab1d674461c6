"""Reads a request's JSON into a struct, or says what is wrong with it in OpenAI's words."""

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from server.errors import Invalid
from server.openai.metadata import wrong_key

T = TypeVar("T")
_SOME_KEY = "[...]"
_WHERE = re.compile(r"(?s)(?P<what>.*) - at (?:`key` in )?`\$\.?(?P<path>.*)`")
_FIELD = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`")


class WrittenBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients send back as they got it: keys of their own are left out where they are null."""


class BodyReader(Generic[T]):
    """Decodes one kind of body.

    ``kind`` is an allow-list: give it ``forbid_unknown_fields=True``, so that a field that nobody
    thought about is refused by name. ``unsupported``: fields that are known and not served (of
    type None in ``kind``), with the reason.
    """

    def __init__(self, kind: type[T], *, unsupported: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._unsupported = unsupported or {}
        self._decoder = msgspec.json.Decoder(kind)

    def read(self, data: bytes) -> T:
        """The body.

        Raises:
            Invalid: it is not JSON, or a field is missing, unknown, unsupported or out of bounds.
        """
        try:
            try:
                return self._decoder.decode(data)
            except msgspec.ValidationError as exc:
                if (without := self._without_nulls(data, str(exc))) is None:
                    raise
            return self._decoder.decode(without)
        except msgspec.ValidationError as exc:
            raise self._explain(str(exc), data) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Invalid(
                f"We could not parse the JSON body of your request: {exc}.", code="invalid_json"
            ) from exc

    def _without_nulls(self, data: bytes, text: str) -> bytes | None:
        """The body without unknown keys that mean nothing, or None where there are none of them."""
        if "unknown field" not in text:
            return None
        body = msgspec.json.decode(data)
        pruned = _pruned(body, inspect.type_info(self.kind))
        return None if pruned == body else msgspec.json.encode(pruned)

    def _explain(self, text: str, data: bytes) -> Invalid:
        """A complaint of msgspec's in OpenAI's words: a message, the field, a code."""
        match = _WHERE.fullmatch(text)
        what, path = (match["what"], match["path"]) if match else (text, "")
        if field := _FIELD.fullmatch(what):
            name = f"{path}.{field['name']}" if path else field["name"]
            if field["how"] == "missing required":
                return Invalid(
                    f"Missing required parameter: '{name}'.",
                    param=name,
                    code="missing_required_parameter",
                )
            return Invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if path == f"metadata{_SOME_KEY}":  # msgspec does not say of which key the value is
            path = f"metadata.{wrong_key(msgspec.json.decode(data)['metadata'])}"
        root = re.split(r"[.\[]", path, maxsplit=1)[0]
        if root in self._unsupported:
            return Invalid(
                f"Unsupported parameter: '{root}': {self._unsupported[root]}.",
                param=root,
                code="unsupported_parameter",
            )
        code = "invalid_type" if ", got `" in what else "invalid_value"
        where = f" for '{path}'" if path else ""
        return Invalid(f"Invalid value{where}: {what}.", param=path or None, code=code)


def _pruned(value: Any, kind: inspect.Type) -> Any:  # noqa: ANN401 - any JSON
    """The same without the unknown keys that are null of whatever is ``WrittenBack``."""
    match kind:
        case inspect.Metadata():
            return _pruned(value, kind.type)
        case inspect.UnionType():
            for one in kind.types:
                value = _pruned(value, one)
        case inspect.ListType() if isinstance(value, list):
            return [_pruned(item, kind.item_type) for item in value]
        case inspect.StructType() if isinstance(value, dict):
            fields = {field.encode_name: field.type for field in kind.fields}
            droppable = issubclass(kind.cls, WrittenBack)
            return {
                name: _pruned(item, fields[name]) if name in fields else item
                for name, item in value.items()
                if name in fields or item is not None or not droppable
            }
        case _:
            pass
    return value
