"""A page that shows every component, for these tests alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader
from litestar import Controller, Request, Response, get, post

from server.accounts.schemas import SessionView
from server.errors import Invalid
from server.web.console.rendering import environment, page
from server.web.console.session import signed_in

TEMPLATES = Path(__file__).parent / "templates"
STARTED = datetime(2026, 11, 29, 14, 2, 31, tzinfo=UTC)
ERRORS = {"name": "Give the tenant a name.", "bound": "The bound must be above 0."}


def add_templates() -> None:
    """Let the console find the templates of this folder too."""
    made = environment()
    assert made.loader is not None
    made.loader = ChoiceLoader([made.loader, FileSystemLoader(TEMPLATES)])


class GalleryController(Controller):
    path = "/console/t/{slug:str}/gallery"
    include_in_schema = False
    guards = (signed_in("viewer"),)

    @get()
    async def show(self, request: Request[Any, Any, Any]) -> Response[str]:
        return await page(request, "gallery.html", errors={}, **_figures())

    @get("/part")
    async def part(self, request: Request[Any, Any, Any]) -> Response[str]:
        return await page(request, "gallery_part.html", errors={})

    @get("/broken")
    async def broken(self) -> Response[str]:
        raise RuntimeError("on purpose")

    @post("/invalid", guards=[signed_in("viewer")])
    async def invalid(self, request: Request[Any, Any, Any]) -> Response[str]:
        template = "gallery_part.html" if request.headers.get("hx-request") else "gallery.html"
        return await page(request, template, status=422, errors=ERRORS, **_figures())

    @post("/upload")
    async def upload(self, request: Request[Any, Any, Any]) -> None:
        file = (await request.form())["file"]
        size = len(await file.read())
        raise Invalid(f"{file.filename}: {size} bytes are no transcript.")


def _figures() -> dict[str, Any]:
    browsers = [
        (
            SessionView(
                id=number,
                address="127.0.0.1",
                agent="",
                seen_at=STARTED,
                expires_at=STARTED,
                created_at=STARTED,
            ),
            name,
        )
        for number, name in (("1", "Firefox on Linux"), ("2", "Safari on iPhone"))
    ]
    return {
        "browsers": browsers,
        "started": STARTED,
        "lately": datetime.now(UTC) - timedelta(minutes=5),
    }
