"""The fields of an upload's form, and the file's name, read with suspicion."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from server.errors import Invalid
from server.openai.body import BodyReader
from server.openai.files.schemas import FileForm

MAX_NAME = 255
_NESTED = re.compile(r"(\w+)\[(\w+)\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
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


def plain_name(filename: str) -> str:
    """A file's name without folders and control characters, and not endless."""
    name = _CONTROL.sub("", re.split(r"[/\\]", filename)[-1])
    return name[-MAX_NAME:] or "file"  # the end: it has the extension


def _number(text: str) -> int | str:
    match = re.fullmatch(r"([0-9]{1,18})(?:\.0*)?", text)
    return int(match[1]) if match else text
