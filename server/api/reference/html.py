"""Pieces of the document as HTML: the Markdown of its descriptions, and types in words."""

import json
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

# OpenAPI's descriptions are CommonMark; ours keep a docstring's indentation, which is no code
_markdown = MarkdownIt("commonmark", {"html": False}).disable("code")
# lower, upper, what is counted
_RANGES = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
    ("minProperties", "maxProperties", " entries"),
)


def html(text: str, *, inline: bool = False) -> Markup:
    """Markdown as HTML; HTML in it is shown as text."""
    return Markup(_markdown.renderInline(text) if inline else _markdown.render(text))  # noqa: S704


def shape(schema: dict[str, Any]) -> Markup:
    """What a value looks like, in words, other schemas as links."""
    parts = [_kind(schema), *(Markup("<small>{}</small>").format(b) for b in _bounds(schema))]
    return Markup(" ").join(part for part in parts if part)


def _kind(schema: dict[str, Any]) -> Markup:
    """A type without its bounds."""
    kind, form = schema.get("type", "any JSON"), schema.get("format")
    shown = Markup("{} ({})").format(kind, form) if form else escape(kind)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        shown = Markup('<a href="#schema-{0}">{0}</a>').format(name)
    elif "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        shown = Markup(" | ").join(_code(value) for value in values)
    elif "contentSchema" in schema:
        shown = shape(schema["contentSchema"])
    elif "anyOf" in schema:
        shown = Markup(" or ").join(shape(choice) for choice in schema["anyOf"])
    elif kind == "null":
        shown = Markup("<small>null</small>")
    elif kind == "array":
        shown = Markup("list of {}").format(shape(schema.get("items", {})))
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        shown = Markup("object of {}").format(shape(schema["additionalProperties"]))
    elif form == "binary":
        shown = Markup("a file's bytes")
    return shown


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for lowest, highest, unit in _RANGES:
        low, high = schema.get(lowest), schema.get(highest)
        match (low, high):
            case (None, None):
                continue
            case (None, _):
                yield f"at most {high:,}{unit}"
            case (_, None):
                yield f"at least {low:,}{unit}"
            case _:
                yield f"{low:,} to {high:,}{unit}"
    for key, sign in (("exclusiveMinimum", "more than"), ("exclusiveMaximum", "less than")):
        if key in schema:
            yield f"{sign} {schema[key]:,}"
    if "pattern" in schema:
        yield f"matches {schema['pattern']}"
    if schema.get("default") not in (None, ""):
        yield f"default {json.dumps(schema['default'])}"


def event(schema: dict[str, Any]) -> Markup:
    """A server-sent event, by what its data holds."""
    return Markup("events, each with {} as its data").format(shape(schema["properties"]["data"]))


def _code(value: object) -> Markup:
    return Markup("<code>{}</code>").format(json.dumps(value))
