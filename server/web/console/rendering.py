"""Pages from templates: ``page`` renders one with what every page shows, and sets its headers.

    @get("/console/t/{slug:str}/training")
    async def runs(self, request: ..., tenant: NamedDependency[Tenant]) -> Response[str]:
        return await page(request, "training/runs.html", runs=await ...)

A template that extends ``base.html`` is a whole page; one that does not is a part of one, for htmx.
Every value is escaped. A name that is not there is an error, so that nothing is missing in silence.
"""

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, Undefined
from litestar import Request, Response
from litestar.enums import MediaType
from markupsafe import Markup

from server.accounts.schemas import Viewer
from server.db.models import Tenant
from server.web.console.navigation import Shell, load_shell
from server.web.headers import console_headers
from server.web.static import static_files, takes_gzip

_GZIP_LEVEL = 6
Moment = Literal["moment", "day", "clock", "ago"]
_FORMATS: dict[Moment, str] = {
    "moment": "{0.day} {0:%b %Y, %H:%M}",
    "ago": "{0.day} {0:%b %Y, %H:%M}",
    "day": "{0.day} {0:%b %Y}",
    "clock": "{0:%H:%M}",
}


async def page(
    request: Request[Any, Any, Any],
    template: str,
    /,
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    form_action: Iterable[str] = (),
    csrf_token: str | None = None,
    **context: Any,  # noqa: ANN401 - what the template shows
) -> Response[Any]:
    """Render a template of ``templates/`` as the answer to a request.

    Beside ``context`` a template has ``viewer`` and ``tenant`` (None where there is none),
    ``csrf_token`` and ``csrf_field()``, ``static(name)``, ``now``, and the shell: ``nav``,
    ``tenants``, ``role``, ``live``, ``here``, ``attention``.

    Args:
        request: what is answered; a guard has put ``viewer`` and ``tenant`` into its state.
        template: its name in ``templates/``.
        status: 422 where a form comes back with its errors.
        headers: further headers of the answer.
        form_action: other origins that a form of this page may lead to.
        csrf_token: for forms of somebody who is not signed in; else it is the session's.
        context: what the template shows.
    """
    viewer: Viewer | None = request.state.get("viewer")
    tenant: Tenant | None = request.state.get("tenant")
    shell = Shell()
    if viewer is not None:
        async with request.app.state.database.reading() as session:
            shell = await load_shell(session, viewer, tenant, path=request.url.path)
    token = csrf_token or (viewer.csrf_token if viewer is not None else "")
    content = render(
        template,
        viewer=viewer,
        tenant=tenant,
        csrf_token=token,
        csrf_field=_field_of(token),
        **shell._asdict(),
        **context,
    )
    return html(
        request,
        content,
        status=status,
        headers={**console_headers(form_action=form_action), **(headers or {})},
    )


def html(
    request: Request[Any, Any, Any], content: str, *, status: int, headers: Mapping[str, str]
) -> Response[Any]:
    """An answer that is a page or a part of one, compressed for browsers that take it.

    A page that holds a form's token may be compressed: who guesses the token from the length of
    answers cannot use it, since the guards refuse what other sites' pages send.
    """
    body, sent = content.encode(), {**headers, "vary": "accept-encoding"}
    if takes_gzip(request.headers.get("accept-encoding", "")):
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        sent["content-encoding"] = "gzip"
    return Response(body, status_code=status, media_type=MediaType.HTML, headers=sent)


def render(template: str, /, **context: Any) -> str:  # noqa: ANN401 - what the template shows
    """The text of a template."""
    return environment().get_template(template).render(now=datetime.now(UTC), **context)


class _Absent(Undefined):
    """A name or an attribute that is not there is an error; a key that a dict may lack is empty."""

    __slots__ = ()

    def _check(self) -> None:
        if not isinstance(self._undefined_obj, dict):
            self._fail_with_undefined_error()

    def __bool__(self) -> bool:
        self._check()
        return super().__bool__()

    def __str__(self) -> str:
        self._check()
        return super().__str__()

    def __eq__(self, other: object) -> bool:
        self._check()
        return super().__eq__(other)

    def __hash__(self) -> int:
        self._check()
        return super().__hash__()

    def __iter__(self) -> Iterator[Any]:
        self._check()
        return super().__iter__()


@cache
def environment() -> Environment:
    """The templates of the console."""
    made = Environment(
        loader=PackageLoader("server.web.console", "templates"),
        autoescape=True,
        undefined=_Absent,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["static"] = static_files().url
    made.filters |= {"iso": iso, "utc": utc, "initial": initial}
    return made


def iso(moment: datetime) -> str:
    """A moment as ``<time datetime>`` wants it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def utc(moment: datetime, style: Moment = "moment") -> str:
    """A moment in UTC, as a page says it until a script makes it local: ``29 Nov 2026, 14:02``."""
    return _FORMATS[style].format(moment.astimezone(UTC))


def initial(name: str) -> str:
    """The letter that stands for a name."""
    return next((letter.upper() for letter in name if letter.isalnum()), "?")


def _field_of(token: str) -> Callable[[], Markup]:
    """``csrf_field()``: the hidden field by which a form shows that it is ours."""
    field = Markup('<input type="hidden" name="csrf_token" value="{}">')
    return lambda: field.format(token)
