"""What the responses of all operations have in common: error bodies and headers."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from server.api.problems import STATUS
from server.api.reference.text import markdown

PROBLEM_JSON = "application/problem+json"
_RATE_LIMIT_HEADERS = {
    "x-ratelimit-limit-requests": "Requests that are allowed in the window.",
    "x-ratelimit-limit-tokens": "Tokens that are allowed in the window.",
    "x-ratelimit-remaining-requests": "Requests that are left in the window.",
    "x-ratelimit-remaining-tokens": "Tokens that are left in the window.",
    "x-ratelimit-reset-requests": "Until all requests are allowed again, as in `1s` or `6m0s`.",
    "x-ratelimit-reset-tokens": "Until all tokens are allowed again, as in `1s` or `6m0s`.",
}
HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "This request's id: yours, where you sent one of 8 to 128 letters, digits "
        "and `._:-`. Quote it when you report a problem.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{8,128}$"},
    },
    **{
        name: {"description": f"{text} Only where a limit is set.", "schema": {"type": "string"}}
        for name, text in _RATE_LIMIT_HEADERS.items()
    },
    "retry-after": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "x-should-retry": {
        "description": "`false`: the same request will fail again.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "www-authenticate": {
        "description": "How to authenticate.",
        "schema": {"type": "string"},
    },
}
_ERROR_HEADERS = {
    HTTPStatus.UNAUTHORIZED: ("www-authenticate",),
    HTTPStatus.CONFLICT: ("x-should-retry",),
    HTTPStatus.TOO_MANY_REQUESTS: ("retry-after", *_RATE_LIMIT_HEADERS),
    HTTPStatus.SERVICE_UNAVAILABLE: ("retry-after",),
}


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. ``code`` is a stable word for programs, ``param`` the field at fault."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """Every error under ``/v1``, as OpenAI's API words it."""

    error: ErrorDetail


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Every error outside ``/v1``: problem details (RFC 9457), with three fields of our own."""

    type: str
    title: str
    status: int
    detail: str
    code: str | None
    param: str | None
    request_id: str


def is_openai(path: str) -> bool:
    """Whether errors at a path have OpenAI's shape."""
    return path == "/v1" or path.startswith("/v1/")


def success_headers(path: str) -> dict[str, Any]:
    """Headers of a good response, as references."""
    names = ("x-request-id", *_RATE_LIMIT_HEADERS) if is_openai(path) else ("x-request-id",)
    return _references(names)


def error_reference(status: int, path: str) -> dict[str, str]:
    """A reference to the shared response for a status."""
    return {"$ref": f"#/components/responses/{_name(status, openai=is_openai(path))}"}


def error_components(envelope: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    """Shared responses for every status that errors have, in both shapes."""
    components: dict[str, Any] = {}
    for status in sorted(set(STATUS.values())):
        for openai, schema in ((True, envelope), (False, problem)):
            media_type = "application/json" if openai else PROBLEM_JSON
            components[_name(status, openai=openai)] = {
                "description": " ".join(_reasons(status)),
                "headers": _references(("x-request-id", *_ERROR_HEADERS.get(status, ()))),
                "content": {media_type: {"schema": schema}},
            }
    return components


def _reasons(status: HTTPStatus) -> Iterator[str]:
    """What may be behind a status: the first sentence of each error that has it."""
    for kind, its_status in STATUS.items():
        if its_status == status:
            yield markdown((kind.__doc__ or "").partition("\n")[0])


def _references(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _name(status: int, *, openai: bool) -> str:
    phrase = HTTPStatus(status).phrase.title().replace(" ", "")
    return phrase if openai else f"{phrase}Problem"
