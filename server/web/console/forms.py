"""What a plain form sent, and where its browser goes then."""

from collections.abc import Iterable
from typing import Any

from litestar import Request
from litestar.datastructures import Cookie
from litestar.response import Redirect


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The fields of a form without files, by name; of several with one name the last."""
    form = await request.form()
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def see_other(path: str, *, cookies: Iterable[Cookie] = ()) -> Redirect:
    """The answer to a form that was taken: go and look at a page (303), by GET."""
    return Redirect(path, status_code=303, cookies=tuple(cookies))


def address_of(request: Request[Any, Any, Any]) -> str:
    """The network address of the browser; empty where it comes by a unix socket."""
    return request.client.host if request.client else ""


def agent_of(request: Request[Any, Any, Any]) -> str:
    """What the browser calls itself."""
    return request.headers.get("user-agent", "")


def browser_name(agent: str) -> str:
    """What people call a browser and its system: ``Firefox on Windows``."""
    browsers = (
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = (
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    )
    browser = next((name for mark, name in browsers if mark in agent), "A browser")
    system = next((name for mark, name in systems if mark in agent), "")
    return f"{browser} on {system}" if system else browser
