"""Errors under ``/console`` as pages; everywhere else as ``server/api/problems.py`` says them."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from server.api import problems
from server.web.console.rendering import html, render
from server.web.headers import console_headers

_TITLES: dict[int, str] = {
    HTTPStatus.FORBIDDEN: "You may not do this",
    HTTPStatus.NOT_FOUND: "There is no such page",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address takes no such request",
    HTTPStatus.CONFLICT: "This is not possible now",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "This is too large",
    HTTPStatus.TOO_MANY_REQUESTS: "Too much at once",
    HTTPStatus.SERVICE_UNAVAILABLE: "A part of the server does not answer",
    HTTPStatus.INSUFFICIENT_STORAGE: "There is no room left",
}
_NEXT: dict[int, str] = {
    HTTPStatus.FORBIDDEN: "A tenant's admin or an operator can change what you may do.",
    HTTPStatus.NOT_FOUND: "It was removed, or the address is not right.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Wait a moment, then load the page again. Nothing was lost.",
}
_UNEXPECTED = "The fault is on our side, and is in the server's log."
_CLIENT = "Go back and change what you sent."
_SERVER = "Load the page again; if that does not help, send the operator the request's id."


def respond(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
    """The exception handler for everything: a page under ``/console``, else problem details.

    A script that asked for a part of a page gets the error's content alone.
    """
    if not is_console(request.url.path):
        return problems.respond(request, exc)
    failure = problems.failure_of(exc)
    problems.log_failure(request, exc, failure)
    status = failure.status
    if status == HTTPStatus.BAD_REQUEST:  # the page's word for what a form cannot take
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    is_part = request.headers.get("hx-request-type") == "partial"
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    default = "Something went wrong" if is_ours else "This cannot be used"
    content = render(
        "error.html",
        layout="part.html" if is_part else "base.html",
        viewer=None,
        tenant=None,
        csrf_token="",
        title=_TITLES.get(status, default),
        text=_UNEXPECTED if failure.code == problems.UNEXPECTED else failure.message,
        next=_NEXT.get(status, _SERVER if is_ours else _CLIENT),
        request_id=problems.request_id(request.scope) if is_ours else "",
    )
    return html(request, content, status=status, headers={**failure.headers, **console_headers()})


def is_console(path: str) -> bool:
    """Whether an address is of the console."""
    return path == "/console" or path.startswith("/console/")


exception_handlers: ExceptionHandlersMap = {Exception: respond, HTTPException: respond}
