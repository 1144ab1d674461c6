"""``/openapi.json`` and ``/docs``: what this server offers, for programs and for people."""

from typing import Any

import msgspec
from litestar import Controller, Litestar, Request, Response, get
from litestar.di import NamedDependency

from server.openapi import document


class Reference:
    """The document and its page, made when somebody first asks and kept."""

    def __init__(self) -> None:
        self._json: bytes | None = None
        self._page: tuple[str, dict[str, str]] | None = None

    def json(self, app: Litestar) -> bytes:
        """The document."""
        if self._json is None:
            self._json = msgspec.json.encode(document.build(app))
        return self._json

    def page(self, app: Litestar) -> tuple[str, dict[str, str]]:
        """(HTML, headers) of the page."""
        if self._page is None:
            from server.openapi.page import render  # noqa: PLC0415 - loads the templates

            self._page = render(msgspec.json.decode(self.json(app)))
        return self._page


class ReferenceController(Controller):
    """Open to all: nothing here is a secret."""

    include_in_schema = False

    @get("/openapi.json", sync_to_thread=False)
    def openapi(
        self, request: Request[Any, Any, Any], reference: NamedDependency[Reference]
    ) -> Response[bytes]:
        """The OpenAPI document."""
        return Response(reference.json(request.app), media_type="application/json")

    @get("/docs", sync_to_thread=False)
    def docs(
        self, request: Request[Any, Any, Any], reference: NamedDependency[Reference]
    ) -> Response[str]:
        """The document as a page."""
        page, headers = reference.page(request.app)
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)
