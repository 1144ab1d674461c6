"""JSON Schemas of the types that handlers take and give, made by what reads and writes them.

msgspec validates with these very types, so its schemas say neither more nor less than the server
does. Litestar's own generator knows fewer of the constraints.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_origin

import msgspec
from msgspec import inspect

from server.api.body import Echoed
from server.api.reference.text import markdown

Schema = dict[str, Any]
_AT = "#/components/schemas/"
_WORDS = re.compile(r"[A-Za-z0-9.]+")
_MODULES = re.compile(r"\b(?:\w+\.)+(?=\w)")
_OMITTED = {"server", "api", "schemas", "items"}
_BINARY: Schema = {"type": "string", "format": "binary"}


class SchemaBook:
    """Collects types while the document is written, and fills their schemas in at the end."""

    def __init__(self) -> None:
        self._asked: list[tuple[Any, Schema]] = []

    def of(self, kind: Any) -> Schema:  # noqa: ANN401 - any type that msgspec knows
        """The schema of a type; empty until ``resolve_refs``."""
        schema: Schema = {}
        self._asked.append((kind, schema))
        return schema

    def resolve_refs(self) -> dict[str, Schema]:
        """Fill in every schema that was asked for; returns those that they refer to, by name."""
        kinds = [kind for kind, _ in self._asked]
        schemas, components = msgspec.json.schema_components(
            kinds, ref_template=_AT + "{name}", schema_hook=_of_unknown
        )
        names = {name: _short(name) for name in components}
        for (_, waiting), schema in zip(self._asked, schemas, strict=True):
            waiting.update(schema)
            _tidy(waiting, names)
        for component in components.values():
            _tidy(component, names)
        for cls in map(_plain, _structs(inspect.multi_type_info(kinds), set())):
            if issubclass(cls, Echoed):
                known = {cls.__name__, f"{cls.__module__}.{cls.__name__}"}
                for name in known & components.keys():  # msgspec's name of it: one of the two
                    components[name]["additionalProperties"] = {"type": "null"}
        return {names[name]: components[name] for name in sorted(components, key=names.__getitem__)}

    def sparse(self) -> frozenset[str]:
        """Titles of structs that leave fields out of an answer which hold their default."""
        infos = inspect.multi_type_info([kind for kind, _ in self._asked])
        return frozenset(
            _plain(cls).__name__
            for cls in _structs(infos, set())
            if _plain(cls).__struct_config__.omit_defaults
        )


def mark_always_present(
    components: dict[str, Schema], *, asked: Iterable[object], sparse: frozenset[str]
) -> None:
    """Mark fields as always present in structs that only responses have.

    A field with a default may be missing in a request; in a response it is there, except in
    ``sparse`` structs and where it may be unset (msgspec gives those no default).
    """
    taken = reachable(asked, components)
    for name, schema in components.items():
        if name in taken or schema.get("title") in sparse:
            continue
        required = set(schema.get("required", ()))
        fields = schema.get("properties", {})
        found = [key for key, field in fields.items() if key in required or "default" in field]
        if fields:
            schema["required"] = found
        for field in fields.values():
            field.pop("default", None)


def without_null_defaults(schema: object) -> None:
    """Drop ``default: null``: it says no more than that a field may be left out."""
    if isinstance(schema, dict):
        if schema.get("default", ...) is None:
            del schema["default"]
        for value in schema.values():
            without_null_defaults(value)
    elif isinstance(schema, list):
        for value in schema:
            without_null_defaults(value)


def as_form(form: Schema, part: str, components: dict[str, Schema]) -> None:
    """Make the schema of a form's fields that of the form: with its file, and nested fields flat.

    A form has no objects: their fields are sent as ``outer[inner]``. Again changes nothing: several
    operations may take one form.
    """
    (name,) = references(form)
    schema = components[name]
    fields: dict[str, Schema] = {part: dict(_BINARY)}
    for outer, field in schema.get("properties", {}).items():
        nested = [components[one]["properties"] for one in references(field)]
        if nested:
            fields |= {f"{outer}[{inner}]": one for inner, one in nested[0].items()}
        else:
            fields[outer] = field
    schema["properties"] = fields
    schema["required"] = list(dict.fromkeys([part, *schema.get("required", ())]))


def reachable(node: object, components: dict[str, Schema]) -> set[str]:
    """Names of the components that something refers to, directly or through others."""
    found: set[str] = set()
    waiting = list(references(node))
    while waiting:
        name = waiting.pop()
        if name not in found and name in components:
            found.add(name)
            waiting += references(components[name])
    return found


def references(node: object) -> Iterator[str]:
    """Names of the components that something refers to itself."""
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(_AT):
            yield reference.removeprefix(_AT)
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list | tuple | set):
        for value in node:
            yield from references(value)


def _tidy(schema: object, names: dict[str, str]) -> None:
    """Descriptions in Markdown, titles without module names, references to the short names."""
    if isinstance(schema, dict):
        text, reference = schema.get("description"), schema.get("$ref")
        if isinstance(title := schema.get("title"), str):
            schema["title"] = _MODULES.sub("", title)
        if isinstance(text, str):
            schema["description"] = markdown(text)
        if isinstance(reference, str):
            schema["$ref"] = _AT + names[reference.removeprefix(_AT)]
        for value in schema.values():
            _tidy(value, names)
    elif isinstance(schema, list):
        for value in schema:
            _tidy(value, names)


def _short(name: str) -> str:
    """Msgspec's name of a schema in a readable form.

    ``server.api.openai.chat.schemas.ToolBody``, which two modules have, is ``OpenaiChatToolBody``, and
    ``Page_OpenAIFile_`` is ``PageOfOpenAIFile``.
    """
    found: list[str] = _WORDS.findall(name)
    kind, *of = found
    *modules, last = kind.split(".")
    words = [word.capitalize() for word in modules if word not in _OMITTED]
    inside = "Or".join(one.rpartition(".")[2] for one in of)
    return "".join(words) + last + (f"Of{inside}" if inside else "")


def _of_unknown(kind: type) -> Schema:
    raise TypeError(f"the OpenAPI document cannot describe {kind!r}")


def _plain(cls: Any) -> Any:  # noqa: ANN401 - a class or a generic's alias
    return get_origin(cls) or cls


def _structs(node: object, seen: set[object]) -> Iterator[Any]:
    """Struct classes anywhere in msgspec's description of types."""
    if isinstance(node, inspect.StructType):
        if node.cls in seen:
            return
        seen.add(node.cls)
        yield node.cls
    if isinstance(node, inspect.Type | inspect.Field):
        for name in node.__struct_fields__:
            yield from _structs(getattr(node, name), seen)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _structs(item, seen)
