"""The OpenAPI document, made from the application's own routes.

What a handler declares beyond its signature, in ``opt``:

- ``body``: the struct of a JSON body that it reads from the raw request;
- ``form``: the struct of a multipart form, and ``file``: the name of the part that is a file;
- ``raw``: True where the body may also be any bytes;
- ``responses``: by media type, what a good response holds, where the return type cannot say it
  (``bytes`` is a file, ``str`` text; under ``text/event-stream`` the struct of one event's data);
- ``parameters``: OpenAPI parameter objects of what it reads from the query by itself.

Statuses with a body of their own are ``responses={503: ResponseSpec(...)}``.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from importlib import metadata
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from litestar import Litestar, MediaType, Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, PathParameter, QueryParameter
from litestar.response import File, Stream
from litestar.routes import HTTPRoute

from server.api.reference import responses, schemas
from server.api.reference.tags import TAGS, Tag, tag_of
from server.api.reference.text import markdown, summary_and_description

METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE")
EVENT_STREAM = "text/event-stream"
INTRODUCTION = """\
One server, two doors. `/v1` speaks OpenAI's API: set the base URL and the key in any OpenAI client
and it works unchanged. `/admin` does what the command line does.

**Keys.** Send `Authorization: Bearer tt_...`. A key belongs to one tenant and has scopes; the \
operator's key (`tt_admin_...`) belongs to none and may act for all under `/admin`. What belongs to \
another tenant is answered exactly like what does not exist.

**Errors** have real statuses. Under `/v1` the body is OpenAI's error object, elsewhere problem \
details (RFC 9457); `code` is a stable word for programs and `param` the field at fault. A field of a \
body that is not described here is refused by name.

**Ids.** Every answer carries `x-request-id`.
"""
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of this server: `tt_...` of a tenant, `tt_admin_...` of the operator.",
}
_LOCATIONS = {PathParameter: "path", QueryParameter: "query", HeaderParameter: "header"}


class Operation(NamedTuple):
    """One method of one path, and what handles it."""

    method: str
    path: str
    handler: HTTPRouteHandler

    @property
    def scope(self) -> str | None:
        """What the caller's key must be allowed; None where no key is needed."""
        for guard in self.handler.resolve_guards():
            scope = getattr(guard, "scope", None)
            if isinstance(scope, str):
                return scope
        return None

    @property
    def open_nearby(self) -> bool:
        """Whether that key is only needed from public addresses."""
        guards = self.handler.resolve_guards()
        return any(getattr(guard, "open_nearby", False) for guard in guards)

    @property
    def id(self) -> str:
        """A name for generated clients: the handler's own under ``/v1``, as OpenAI's are."""
        given = self.handler.operation_id
        if isinstance(given, str):
            return given
        name = self.handler.handler_name.strip("_")
        if responses.is_openai(self.path) and "_" in name:
            return name
        owner = self.handler.fn.__qualname__.partition(".")[0]
        return f"{owner.removesuffix('Controller').lower()}_{name}"


def operations(app: Litestar) -> list[Operation]:
    """Everything that is public, in the order in which it is shown."""
    order = {tag.name: place for place, tag in enumerate(TAGS)}
    found = [
        Operation(method, route.path_format, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if method in METHODS and handler.resolve_include_in_schema()
    ]
    return sorted(
        found,
        key=lambda one: (
            order.get(tag_of(one.path).name, len(order)),
            one.path,
            METHODS.index(one.method),
        ),
    )


def build(app: Litestar) -> dict[str, Any]:
    """The document.

    Raises:
        ValueError: two operations would have the same id.
        TypeError: a handler takes or gives a type that cannot be described.
    """
    book = schemas.SchemaBook()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, Tag] = {}
    forms: list[tuple[dict[str, Any], str]] = []
    envelope, problem = book.of(responses.ErrorEnvelope), book.of(responses.Problem)
    found = operations(app)
    _check_ids(found)
    for operation in found:
        tag = tag_of(operation.path)
        tags.setdefault(tag.name, tag)
        described = _describe(operation, book, forms)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    components = book.resolve_refs()
    for form, part in forms:
        schemas.as_form(form, part, components)
    every = [one for path in paths.values() for one in path.values()]
    taken = [one.get(part) for one in every for part in ("parameters", "requestBody")]
    schemas.mark_always_present(components, asked=taken, sparse=book.sparse())
    document = {
        "openapi": "3.1.1",
        "info": {
            "title": "Tenantune",
            "version": metadata.version("tenantune"),
            "summary": "Fine-tuned assistants for many tenants over one base model.",
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "this server"}],
        "tags": [{"name": tag.name, "description": tag.text} for tag in tags.values()],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": responses.error_components(envelope, problem),
            "headers": responses.HEADERS,
            "securitySchemes": {"bearer": BEARER},
        },
    }
    schemas.without_null_defaults(document)
    return document


def _describe(
    operation: Operation, book: schemas.SchemaBook, forms: list[tuple[dict[str, Any], str]]
) -> dict[str, Any]:
    handler = operation.handler
    summary, description = summary_and_description(handler.description or handler.fn.__doc__)
    parameters = list(_parameters(operation, book))
    body = _body(handler, book, forms)
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [tag_of(operation.path).name],
        "summary": summary,
        "description": "\n\n".join(filter(None, (description, _access(operation)))),
        "security": _security(operation),
    }
    if parameters:
        described["parameters"] = parameters
    if body:
        described["requestBody"] = body
    described["responses"] = _responses(operation, book, takes=bool(parameters or body), body=body)
    return described


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.scope is None:
        return []
    return [{"bearer": [operation.scope]}, *([{}] if operation.open_nearby else [])]


def _access(operation: Operation) -> str:
    if operation.scope is None:
        return "Open to all: no key is needed."
    if operation.open_nearby:
        return f"From other addresses than these it needs the {operation.scope}'s key."
    if operation.scope == "operator":
        return "Needs the operator's key."
    return f"Needs a key with the scope `{operation.scope}`."


def _parameters(operation: Operation, book: schemas.SchemaBook) -> Iterator[dict[str, Any]]:
    """Path, query and header parameters, with the types that Litestar checks them against."""
    handler = operation.handler
    hints = get_type_hints(handler.signature_model, include_extras=True)
    missing = {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}
    for name, field in handler.parsed_fn_signature.parameters.items():
        where = _LOCATIONS.get(type(field.kwarg_definition))  # type: ignore[arg-type]
        if where is None:
            continue
        shown = getattr(field.kwarg_definition, "name", None) or name
        missing.discard(shown)
        schema = book.of(_without_none(hints[name]))
        described = {"name": shown, "in": where, "required": field.is_required, "schema": schema}
        text = getattr(field.kwarg_definition, "description", None)
        if text:
            described["description"] = markdown(text)
        if field.has_default and field.default is not None:
            schema["default"] = field.default
        yield described
    for name in sorted(missing):
        yield {"name": name, "in": "path", "required": True, "schema": book.of(str)}
    yield from handler.opt.get("parameters", ())


def _body(
    handler: HTTPRouteHandler, book: schemas.SchemaBook, forms: list[tuple[dict[str, Any], str]]
) -> dict[str, Any] | None:
    content: dict[str, Any] = {}
    kind, required = handler.opt.get("body"), True
    if (field := handler.parsed_fn_signature.parameters.get("data")) is not None:
        kind, required = _without_none(field.annotation), not field.is_optional
    if kind is not None:
        content["application/json"] = {"schema": book.of(kind)}
    if (form := handler.opt.get("form")) is not None:
        schema = book.of(form)
        forms.append((schema, handler.opt["file"]))
        content["multipart/form-data"] = {"schema": schema}
    if handler.opt.get("raw"):
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"required": required, "content": content} if content else None


def _responses(
    operation: Operation, book: schemas.SchemaBook, *, takes: bool, body: dict[str, Any] | None
) -> dict[str, Any]:
    handler = operation.handler
    good: dict[str, Any] = {
        "description": handler.response_description or HTTPStatus(handler.status_code).phrase,
        "headers": responses.success_headers(operation.path),
    }
    content = {
        media_type: {"schema": _content_schema(media_type, kind, book)}
        for media_type, kind in _contents(handler).items()
    }
    if content:
        good["content"] = content
    found = {str(handler.status_code): good}
    for status in _error_statuses(operation, takes=takes, body=body is not None):
        found[str(status)] = responses.error_reference(status, operation.path)
    for code, spec in (handler.responses or {}).items():
        found[str(code)] = {
            "description": spec.description,
            "headers": responses.success_headers(operation.path),
            "content": {_media_type(spec.media_type): {"schema": book.of(spec.data_container)}},
        }
    return dict(sorted(found.items()))


def _contents(handler: HTTPRouteHandler) -> dict[str, Any]:
    """What a good response holds, by media type."""
    declared: dict[str, Any] | None = handler.opt.get("responses")
    if declared is not None:
        return declared
    kind = handler.parsed_fn_signature.return_type.annotation
    empty = kind is None or kind is type(None) or handler.status_code == HTTPStatus.NO_CONTENT
    if empty or handler.status_code in (handler.responses or {}):
        return {}
    if get_origin(kind) is Callable:  # an ASGI application may say anything
        kind = Any
    media_type = _media_type(handler.media_type or MediaType.JSON)
    if isinstance(kind, type) and issubclass(kind, File | Stream):
        kind = str if media_type.startswith("text/") else bytes
    elif get_origin(kind) is Response:
        (kind,) = get_args(kind)
    return {media_type: kind}


def _media_type(name: MediaType | str) -> str:
    return name.value if isinstance(name, MediaType) else name


def _content_schema(media_type: str, kind: Any, book: schemas.SchemaBook) -> dict[str, Any]:  # noqa: ANN401
    if media_type == EVENT_STREAM:  # as OpenAPI 3.2 words it: the schema is that of one event
        events = [
            {"contentMediaType": "application/json", "contentSchema": book.of(one)}
            for one in (kind, responses.ErrorEnvelope)
        ]
        data = {"type": "string", "anyOf": [*events, {"const": "[DONE]"}]}
        return {"type": "object", "required": ["data"], "properties": {"data": data}}
    if kind is bytes:
        return {"type": "string", "format": "binary"}
    return book.of(kind)


def _error_statuses(operation: Operation, *, takes: bool, body: bool) -> Iterable[HTTPStatus]:
    """Statuses of errors that an operation may have; those of bugs are not promised."""
    openai = responses.is_openai(operation.path)
    if operation.scope:
        yield from (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
        yield HTTPStatus.TOO_MANY_REQUESTS
    if takes:
        yield HTTPStatus.BAD_REQUEST
    # what the address names; else a model, a file, where to go on after, a version
    if "{" in operation.path or (openai and takes) or operation.path.endswith("/promote"):
        yield HTTPStatus.NOT_FOUND
    if operation.method != "GET":
        yield HTTPStatus.CONFLICT
    if body:
        yield HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if "file" in operation.handler.opt or operation.path.endswith("/complete"):  # stores bytes
        yield HTTPStatus.INSUFFICIENT_STORAGE
    if openai and body:
        yield HTTPStatus.BAD_GATEWAY


def _check_ids(found: list[Operation]) -> None:
    known: dict[str, str] = {}
    for operation in found:
        here = f"{operation.method} {operation.path}"
        if operation.id in known:
            raise ValueError(f"{operation.id} names both {known[operation.id]} and {here}")
        known[operation.id] = here


def _without_none(kind: Any) -> Any:  # noqa: ANN401 - a type
    """A type without None: a parameter that is null is one that is not there."""
    rest = [part for part in get_args(kind) if part is not type(None)]
    if len(rest) == len(get_args(kind)) or not rest:
        return kind
    joined = rest[0]
    for part in rest[1:]:
        joined = joined | part
    return joined
