"""Reads the fields of an upload's form."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from server.api.body import BodyReader
from server.api.openai.files.schemas import FileForm
from server.errors import Invalid

_NESTED = re.compile(r"(\w+)\[(\w+)\]")
_reader = BodyReader(FileForm)


def read_form(fields: Mapping[str, list[str]]) -> FileForm:
    """The form's fields; ``name[key]`` is a key of ``name``, as OpenAI's clients write it.

    Raises:
        Invalid: a field is missing, unknown, repeated or out of bounds.
    """
    found: dict[str, Any] = {}
    for name, values in fields.items():
        if len(values) > 1:
            raise Invalid(f"Duplicate parameter: '{name}'.", param=name)
        if nested := _NESTED.fullmatch(name):
            inside = found.setdefault(nested[1], {})
            if not isinstance(inside, dict):
                raise Invalid(f"Duplicate parameter: '{name}'.", param=name)
            inside[nested[2]] = _number(values[0]) if nested[2] == "seconds" else values[0]
        elif name in found:
            raise Invalid(f"Duplicate parameter: '{name}'.", param=name)
        else:
            found[name] = values[0]
    return _reader.read(msgspec.json.encode(found))


def _number(text: str) -> int | str:
    match = re.fullmatch(r"([0-9]{1,18})(?:\.0*)?", text)
    return int(match[1]) if match else text
