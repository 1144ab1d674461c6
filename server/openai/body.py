"""Reads a request's JSON into a struct, or says what is wrong with it in OpenAI's words."""

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from server.errors import Invalid

T = TypeVar("T")
_WHERE = re.compile(r"(?s)(?P<what>.*) - at (?:`key` in )?`\$\.?(?P<path>.*)`")
_FIELD = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`")


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
            return self._decoder.decode(data)
        except msgspec.ValidationError as exc:
            raise self._explain(str(exc)) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Invalid(
                f"We could not parse the JSON body of your request: {exc}.", code="invalid_json"
            ) from exc

    def _explain(self, text: str) -> Invalid:
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
