"""``/widget``: the loader, the panel's document, and what the panel asks for.

There are no cookies: the panel's session is a bearer token that lives in its memory. These addresses
are between the panel and its server, so they are not in the API's document.
"""

from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.types import ASGIApp

from server.conversations import origins, passing_on, service, sessions, visitors, widgets
from server.conversations.answering import Answering
from server.conversations.schemas import (
    CurrentConversation,
    HandoffPreview,
    HandoffRequest,
    HandoffView,
    MessageRequest,
    MessageView,
    OpinionRequest,
    RenewRequest,
    SessionAnswer,
    SessionRequest,
)
from server.conversations.service import Silent
from server.db.session import Database
from server.errors import NotFound
from server.settings import Settings
from server.web.static import static_files, takes_gzip
from server.web.widget import documents
from server.web.widget.access import (
    VisitorAccess,
    address,
    from_our_frame,
    into_a_frame,
    provide_access,
    session_token,
)
from server.web.widget.refusals import Refusals
from server.web.widget.stream import AnswerStream, HandedOver
from server.webhooks.vault import Vault

LOADER_SECONDS = 3600  # how long a site's visitors may have an older loader
MAX_BODY_BYTES = 64 << 10
_FOR_GOOD = "public, max-age=31536000, immutable"
_Asked = Request[Any, Any, Any]


class WidgetDocuments(Controller):
    """What pages and frames load."""

    include_in_schema = False

    @get("/widget.js", sync_to_thread=False)
    def loader(self, request: _Asked) -> Response[bytes]:
        """The script that sites include."""
        file, etag = static_files()["widget.js"], f'"{static_files().hash}"'
        headers = {
            "cache-control": f"public, max-age={LOADER_SECONDS}",
            "cross-origin-resource-policy": "cross-origin",  # pages with COEP may include it
            "etag": etag,
            "vary": "accept-encoding",
        }
        if etag in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        content = file.content
        if takes_gzip(request.headers.get("accept-encoding", "")):
            headers["content-encoding"] = "gzip"
            content = file.compressed
        # Litestar adds the charset, without which a script has that of the page
        return Response(content, media_type=file.media_type, headers=headers)

    @get("/widget/{pub:str}/panel", guards=[into_a_frame])
    async def panel(
        self,
        request: _Asked,
        pub: FromPath[str],
        *,
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
        settings: NamedDependency[Settings],
        refusals: NamedDependency[Refusals],
        lang: FromQuery[str] = "",
    ) -> Response[str]:
        """The panel's document.

        A site that says who it is (``Referer``) and is not allowed gets a document that shows nothing.
        That is for who writes it: what stops a site is the header ``frame-ancestors``.
        """
        console = f"{settings.public_url or str(request.base_url).rstrip('/')}/console"
        try:
            async with database.reading() as session:
                site = await widgets.by_key(session, pub)
        except NotFound:
            content = documents.refused(origin=None, console=console)
            return _html(content, documents.refused_headers(), status=HTTPStatus.NOT_FOUND)
        widget = site.widget
        page = origins.of_page(request.headers.get("referer", ""))
        own = origins.of_page(console)
        if page not in (None, own) and not origins.allows(
            widget.origins, page, localhost=widget.allow_localhost
        ):
            await refusals.note(site, page)
            content = documents.refused(origin=page, console=console)
            return _html(content, documents.refused_headers(), status=HTTPStatus.FORBIDDEN)
        content = documents.panel(site, documents.language_of(lang, site), vault=vault)
        return _html(content, documents.panel_headers(site))

    @get("/widget/{pub:str}/theme.css")
    async def theme(
        self, request: _Asked, pub: FromPath[str], database: NamedDependency[Database]
    ) -> Response[str]:
        """A widget's colours; kept for good under the address that names their hash."""
        async with database.reading() as session:
            site = await widgets.by_key(session, pub)
        current = documents.theme_url(site).endswith(f"?v={request.query_params.get('v', '')}")
        headers = {
            "cache-control": _FOR_GOOD if current else "no-cache",
            "content-type": "text/css; charset=utf-8",
            "cross-origin-resource-policy": "same-origin",
        }
        return Response(documents.theme_css(site), headers=headers)


class WidgetController(Controller):
    """``/widget/{pub}``: what the panel asks for, with its session."""

    include_in_schema = False
    path = "/widget/{pub:str}"
    guards = (from_our_frame,)
    request_max_body_size = MAX_BODY_BYTES
    response_headers = {"cache-control": "no-store"}  # noqa: RUF012 - Litestar's
    dependencies = {"access": Provide(provide_access, sync_to_thread=False)}  # noqa: RUF012 - Litestar's

    @post("/session")
    async def begin_session(
        self,
        request: _Asked,
        pub: FromPath[str],
        data: JSONBody[SessionRequest],
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
    ) -> SessionAnswer:
        """Make a session with the document's nonce."""
        async with database.reading() as session:
            site, nonce = await sessions.by_nonce(session, pub, data.nonce, vault=vault)
        async with database.transaction() as session:
            return await sessions.begin(
                session, site, nonce, data, vault=vault, client=address(request)
            )

    @post("/session/renew", status_code=HTTPStatus.OK)
    async def renew_session(
        self,
        request: _Asked,
        pub: FromPath[str],
        data: JSONBody[RenewRequest],
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
    ) -> SessionAnswer:
        """Make a session from the one before."""
        async with database.reading() as session:
            site, before = await sessions.by_token(
                session, pub, session_token(request), vault=vault
            )
        async with database.transaction() as session:
            return await sessions.renew(
                session, site, before, data, vault=vault, client=address(request)
            )

    @get("/conversation")
    async def conversation(
        self,
        access: NamedDependency[VisitorAccess],
    ) -> CurrentConversation:
        """What was said so far."""
        async with access.reading() as (session, caller):
            return CurrentConversation(conversation=await service.current(session, caller))

    @post("/messages", status_code=HTTPStatus.OK)
    async def send_message(
        self,
        data: JSONBody[MessageRequest],
        access: NamedDependency[VisitorAccess],
        answering: NamedDependency[Answering],
    ) -> ASGIApp:
        """Store a message and answer it, as server-sent events."""
        async with access.writing() as (session, caller):
            posted = await service.post(session, caller, data)
        if isinstance(posted, Silent):
            return HandedOver(posted)
        return AnswerStream(answering, caller, posted)

    @post("/messages/{message_id:str}/opinion", status_code=HTTPStatus.OK)
    async def give_opinion(
        self,
        message_id: FromPath[str],
        data: JSONBody[OpinionRequest],
        access: NamedDependency[VisitorAccess],
    ) -> MessageView:
        """Say what an answer was worth."""
        async with access.writing() as (session, caller):
            return await service.give_opinion(session, caller, message_id, data)

    @get("/handoff/preview")
    async def preview_handoff(
        self,
        access: NamedDependency[VisitorAccess],
    ) -> HandoffPreview:
        """What a person would be given."""
        async with access.reading() as (session, caller):
            return await passing_on.preview(session, caller)

    @post("/handoff")
    async def hand_off(
        self,
        data: JSONBody[HandoffRequest],
        access: NamedDependency[VisitorAccess],
    ) -> HandoffView:
        """Pass the conversation on to a person."""
        async with access.writing() as (session, caller):
            return await passing_on.create(session, caller, data)

    @get("/transcript")
    async def transcript(
        self,
        access: NamedDependency[VisitorAccess],
    ) -> Response[str]:
        """The conversation as a file."""
        async with access.reading() as (session, caller):
            text = await service.transcript(session, caller)
        headers = {
            "content-disposition": 'attachment; filename="conversation.txt"',
            "content-type": "text/plain; charset=utf-8",
            "cache-control": "no-store",
        }
        return Response(text, headers=headers)

    @post("/sign-out", status_code=HTTPStatus.NO_CONTENT)
    async def sign_out(
        self,
        access: NamedDependency[VisitorAccess],
    ) -> None:
        """Forget the visitor: their token and their sessions are good for nothing from now on."""
        async with access.writing() as (session, caller):
            await visitors.sign_out(session, caller.site.tenant.id, caller.session)


def _html(content: str, headers: dict[str, str], *, status: int = HTTPStatus.OK) -> Response[str]:
    kind = {"content-type": "text/html; charset=utf-8"}
    return Response(content, status_code=status, headers=headers | kind)
