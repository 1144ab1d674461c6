"""Errors as HTTP responses: OpenAI's object under ``/v1``, problem details (RFC 9457) elsewhere.

Errors themselves know nothing of HTTP; the table ``STATUS`` is here. Every answer carries
``x-request-id``.
"""

import math
import re
import secrets
import sqlite3
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap, Message, Scope
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from server import errors
from server.errors import of_system

log = structlog.get_logger(__name__)

STATUS: dict[type[errors.ServerError], HTTPStatus] = {
    errors.Invalid: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.StreamBroken: HTTPStatus.BAD_GATEWAY,
    errors.AdapterRefused: HTTPStatus.BAD_GATEWAY,
}
DATABASE_TROUBLE = (OperationalError, InterfaceError, PoolTimeout)
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}")
_SLASHES = re.compile(r"/{2,}")
CLIENT_ERROR = HTTPStatus.BAD_REQUEST
SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR
UNEXPECTED = "internal_error"


class Failure(NamedTuple):
    """An error as an HTTP response says it."""

    status: int
    message: str
    code: str | None
    param: str | None
    headers: dict[str, str]

    @property
    def type(self) -> str:
        """OpenAI's word for the kind of error."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < SERVER_ERROR else "server_error"

    def openai(self) -> dict[str, Any]:
        """OpenAI's error object; all four keys are always there."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def problem(self, instance: str) -> dict[str, Any]:
        """Problem details, with our ``code``, ``param`` and ``request_id`` as extensions."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "param": self.param,
            "request_id": instance,
        }


def failure_of(exc: Exception) -> Failure:
    """What a response says about an exception; the text of an unexpected one stays here."""
    match exc:
        case errors.ServerError():
            return _of_server_error(exc)
        case ValidationException():
            message, param = _explain_validation(exc)
            return Failure(CLIENT_ERROR, message, "invalid_value", param, {})
        case HTTPException():
            return _of_http_exception(exc)
        case msgspec.ValidationError() | msgspec.DecodeError():
            return Failure(CLIENT_ERROR, str(exc), "invalid_value", None, {})
        case SQLAlchemyError() | OSError() if (known := _of_trouble(exc)) is not None:
            return known
        case _:
            return Failure(
                SERVER_ERROR,
                "Something went wrong on our side. Quote the x-request-id when you report it.",
                UNEXPECTED,
                None,
                {},
            )


def respond(request: Request[Any, Any, Any], exc: Exception) -> Response[dict[str, Any]]:
    """The exception handler for everything."""
    failure = failure_of(exc)
    log_failure(request, exc, failure)
    content, media_type = error_body(failure, request.url.path, request_id(request.scope))
    return Response(
        content, status_code=failure.status, media_type=media_type, headers=failure.headers
    )


def log_failure(request: Request[Any, Any, Any], exc: Exception, failure: Failure) -> None:
    """Log what is not the caller's fault."""
    if failure.code == UNEXPECTED:
        log.error("request failed", path=request.url.path, exc_info=exc)
    elif isinstance(exc, SQLAlchemyError | OSError):
        # without a traceback: it says nothing new, and takes long to draw while others wait
        reason = getattr(exc, "orig", None) or exc  # without the statement and its values
        log.error("request failed", path=request.url.path, code=failure.code, error=str(reason))


def error_body(failure: Failure, path: str, instance: str) -> tuple[dict[str, Any], str]:
    """(body, media type) of a failure, in the shape that its path has."""
    path = _SLASHES.sub("/", path)  # a base URL that ends in one makes "//v1/..."
    if path == "/v1" or path.startswith("/v1/"):
        return failure.openai(), "application/json"
    return failure.problem(instance), "application/problem+json"


exception_handlers: ExceptionHandlersMap = {Exception: respond, HTTPException: respond}


def request_id(scope: Scope) -> str:
    """This request's id: the caller's where it is well-formed, else a new one that stays."""
    state: dict[str, Any] = scope.setdefault("state", {})
    found: str | None = state.get("request_id")
    if found is None:
        given = dict(scope.get("headers", [])).get(b"x-request-id", b"").decode("latin-1")
        found = given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        state["request_id"] = found
    return found


async def add_headers(message: Message, scope: Scope) -> None:
    """A ``before_send`` hook: ``x-request-id`` on every answer, errors of routing included."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        headers["x-request-id"] = request_id(scope)
        headers.setdefault("x-content-type-options", "nosniff")
        if "allow" in headers:
            headers["allow"] = _allowed_methods(scope, headers["allow"])


def _of_trouble(exc: SQLAlchemyError | OSError) -> Failure | None:
    """What a response says about a database or disk in trouble; None where the fault is ours."""
    if isinstance(exc, OSError):
        known = of_system(exc)
        return _of_server_error(known) if known else None
    message = "The database does not answer. Try again in a moment."
    code = "database_unavailable"
    if _is_full(exc):
        message = "There is no room left on the database's disk. The operator must make some."
        code = "disk_full"
    elif not isinstance(exc, DATABASE_TROUBLE):
        return None
    return Failure(HTTPStatus.SERVICE_UNAVAILABLE, message, code, None, {"retry-after": "2"})


def _is_full(exc: SQLAlchemyError) -> bool:
    """Whether the database's disk is full."""
    error = getattr(exc, "orig", None)
    return (
        getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(error, "sqlstate", None) == "53100"  # PostgreSQL's disk_full
    )


def _of_server_error(exc: errors.ServerError) -> Failure:
    status: int = SERVER_ERROR
    for kind in type(exc).__mro__:
        if kind in STATUS:
            status = STATUS[kind]
            break
    headers: dict[str, str] = {}
    match exc:
        case errors.EngineRejected() if CLIENT_ERROR <= exc.status < SERVER_ERROR:
            status = exc.status
        case errors.EngineRejected():
            status = HTTPStatus.BAD_GATEWAY
        case errors.TooMany(retry_after_seconds=None):
            headers["x-should-retry"] = "false"
        case (
            errors.Unavailable(retry_after_seconds=wait)
            | errors.TooMany(retry_after_seconds=float() | int() as wait)
        ):
            headers["retry-after"] = str(max(1, math.ceil(wait)))
            headers["retry-after-ms"] = str(max(1, math.ceil(wait * 1000)))
        case errors.InProgress():
            headers |= {"retry-after": "2", "x-should-retry": "true"}
        case errors.StorageFull():
            headers["x-should-retry"] = "false"  # a file is not sent thrice to a full disk
        case errors.Unauthenticated():
            headers["www-authenticate"] = "Bearer"
        case _:
            pass
    if status == HTTPStatus.CONFLICT:  # OpenAI's clients repeat one otherwise
        headers.setdefault("x-should-retry", "false")
    return Failure(status, exc.message, exc.code, exc.param, headers)


def _of_http_exception(exc: HTTPException) -> Failure:
    codes = {
        404: "not_found",
        405: "method_not_allowed",
        413: "too_large",
        415: "unsupported_media",
    }
    message = exc.detail
    if exc.status_code == HTTPStatus.NOT_FOUND:
        message = "There is nothing at this address."
    elif exc.status_code >= SERVER_ERROR:
        message = HTTPStatus(exc.status_code).phrase
    return Failure(
        exc.status_code,
        message,
        codes.get(exc.status_code, "invalid_request"),
        None,
        dict(exc.headers or {}),
    )


def _explain_validation(exc: ValidationException) -> tuple[str, str | None]:
    """(message, first field) from Litestar's list of what is wrong."""
    extra = exc.extra if isinstance(exc.extra, list) else []
    problems = [item for item in extra if isinstance(item, dict)]
    if not problems:
        return exc.detail, None
    texts = []
    for item in problems:
        key = item.get("key")
        texts.append(f"{key}: {item.get('message')}" if key else str(item.get("message")))
    param = problems[0].get("key")
    return "; ".join(texts), str(param) if param else None


def _allowed_methods(scope: Scope, known: str) -> str:
    """The methods of a path: ``known`` lacks those that were registered after the first, and HEAD."""
    methods = set(known.split(", "))
    if template := scope.get("path_template"):
        for route in scope["litestar_app"].routes:
            if route.path_format == template:
                methods.update(route.methods)
    if "GET" in methods:
        methods.add("HEAD")  # ``server/api/head.py``
    return ", ".join(sorted(methods))
