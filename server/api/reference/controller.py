"""``/openapi.json`` and ``/docs``: what this server offers, for programs and for people."""

from typing import Any

import msgspec
from litestar import Controller, Litestar, Request, Response, get

from server.api.reference.document import build


class ReferenceController(Controller):
    """Open to all, since nothing here is a secret. Built on the first request, and kept."""

    include_in_schema = False

    @get("/openapi.json", sync_to_thread=False)
    def document(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The OpenAPI document."""
        return Response(_document(request.app), media_type="application/json")

    @get("/docs", sync_to_thread=False)
    def page(self, request: Request[Any, Any, Any]) -> Response[str]:
        """The document as a page."""
        content, headers = _page(request.app)
        return Response(content, media_type="text/html", headers=headers)


def _document(app: Litestar) -> bytes:
    made: bytes | None = app.state.get("openapi_document")
    if made is None:
        made = app.state["openapi_document"] = msgspec.json.encode(build(app))
    return made


def _page(app: Litestar) -> tuple[str, dict[str, str]]:
    made: tuple[str, dict[str, str]] | None = app.state.get("openapi_page")
    if made is None:
        from server.api.reference.page import render  # noqa: PLC0415 - loads the templates

        made = app.state["openapi_page"] = render(msgspec.json.decode(_document(app)))
    return made
