"""The OpenAPI document as one page for people: no script, no request to anywhere."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from server.api.reference.document import EVENT_STREAM
from server.api.reference.example import curl
from server.api.reference.html import event, html, shape
from server.api.reference.schemas import reachable

_templates = Environment(
    loader=PackageLoader("server.api.reference", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Field(NamedTuple):
    """A parameter, or a field of an object. ``note``: where it is, or whether it must be there."""

    name: str
    shape: Markup
    text: Markup
    where: str = ""
    note: str = ""


class Content(NamedTuple):
    """What a request or a response holds in one media type."""

    media_type: str
    shape: Markup
    fields: list[Field]


class ResponseView(NamedTuple):
    """One status that an operation answers with."""

    status: str
    text: Markup
    contents: list[Content]


class OperationView(NamedTuple):
    """An operation as it is shown."""

    id: str
    method: str
    path: Markup
    summary: Markup
    text: Markup
    parameters: list[Field]
    request: list[Content]
    good: list[ResponseView]
    errors: list[ResponseView]
    curl: str


class TagSection(NamedTuple):
    """Operations that belong together."""

    anchor: str
    name: str
    text: str
    operations: list[OperationView]


class Definition(NamedTuple):
    """A schema that others refer to."""

    name: str
    text: Markup
    shape: Markup
    fields: list[Field]


def render(document: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """(HTML, headers): the headers let the page use its own style sheet and nothing else."""
    style, _, _ = _templates.loader.get_source(_templates, "style.css")  # type: ignore[union-attr]
    page = _templates.get_template("docs.html.j2").render(
        info=document["info"],
        introduction=html(document["info"]["description"]),
        style=Markup(style),  # noqa: S704 - our own file
        chapters=list(_sections(document)),
        definitions=list(_definitions(document)),
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return page, {
        "content-security-policy": f"{policy}; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
    }


def _sections(document: dict[str, Any]) -> Iterator[TagSection]:
    for tag in document["tags"]:
        name = tag["name"]
        shown = [
            _operation(document, path, method, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if name in operation["tags"]
        ]
        anchor = name.lower().replace(" ", "-")
        yield TagSection(f"chapter-{anchor}", name, tag["description"], shown)


def _operation(
    document: dict[str, Any], path: str, method: str, operation: dict[str, Any]
) -> OperationView:
    responses = [
        _response(document, status, response) for status, response in operation["responses"].items()
    ]
    return OperationView(
        id=operation["operationId"],
        method=method.upper(),
        path=_breakable(path),
        summary=html(operation["summary"], inline=True),
        text=html(operation["description"]),
        parameters=[_parameter(parameter) for parameter in operation.get("parameters", ())],
        request=_contents(
            document, operation.get("requestBody", {}).get("content", {}), asked=True
        ),
        good=[response for response in responses if response.status < "4"],
        errors=[response for response in responses if response.status >= "4"],
        curl=curl(document, path, method, operation),
    )


def _response(document: dict[str, Any], status: str, response: dict[str, Any]) -> ResponseView:
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    contents = _contents(document, response.get("content", {}), asked=False)
    return ResponseView(status, html(response["description"], inline=True), contents)


def _contents(document: dict[str, Any], content: dict[str, Any], *, asked: bool) -> list[Content]:
    found = []
    for media_type, body in content.items():
        schema, fields = body["schema"], []
        named = _resolve(document, _inner(schema))
        if "properties" in named:
            fields = _fields(named, asked=asked)
        shown = event(schema) if media_type == EVENT_STREAM else shape(schema)
        found.append(Content(media_type, shown, fields))
    return found


def _inner(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a list its items, of an event its data: what there is to show of a schema."""
    data = schema.get("properties", {}).get("data", {}).get("anyOf", [{}])[0]
    event: dict[str, Any] | None = data.get("contentSchema")
    items: dict[str, Any] | None = schema.get("items")
    return event or items or schema


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _fields(schema: dict[str, Any], *, asked: bool) -> list[Field]:
    """``asked``: a client sends it and wants to know what must be there; else what may not be."""
    required = schema.get("required", ())
    found = []
    for name, field in schema["properties"].items():
        note = "required" if asked else "may be absent"
        found.append(
            Field(
                name=name,
                shape=shape(field),
                text=html(field.get("description", ""), inline=True),
                note=note if asked == (name in required) else "",
            )
        )
    return found


def _parameter(parameter: dict[str, Any]) -> Field:
    return Field(
        name=parameter["name"],
        shape=shape(parameter["schema"]),
        text=html(parameter.get("description", ""), inline=True),
        where=parameter["in"],
        note="required" if parameter.get("required") else "",
    )


def _definitions(document: dict[str, Any]) -> Iterator[Definition]:
    schemas = document["components"]["schemas"]
    bodies = [
        operation.get("requestBody")
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    asked = reachable(bodies, schemas)
    for name, schema in schemas.items():
        fields = _fields(schema, asked=name in asked) if "properties" in schema else []
        yield Definition(name, html(schema.get("description", "")), shape(schema), fields)


def _breakable(path: str) -> Markup:
    """A path that may wrap before each slash, its parameters marked."""
    parts = []
    for part in path.split("/")[1:]:
        text = Markup("<i>{}</i>").format(part) if part.startswith("{") else escape(part)
        parts.append(Markup("<wbr>/{}").format(text))
    return Markup("").join(parts)
