"""Ask the three voices: one question to the base, to what is live and to a candidate, side by side.

With a script the answers appear as they are written; without one the page comes back with all of them.
"""

from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.adapters import service as adapters
from server.adapters import versions
from server.auth.keys import Principal
from server.chat.service import ChatService
from server.chat.voices import Voice, ask
from server.db.models import MAX_NUMBER, Tenant
from server.db.session import Database
from server.settings import Settings
from server.web.console.forms import read_form
from server.web.console.rendering import page
from server.web.console.session import signed_in

MOST_CHARACTERS = 4000


class Asked(NamedTuple):
    """Whom a form asks what. ``choices``: versions that can be the candidate, ``chosen`` is one or 0."""

    question: str
    voices: list[Voice]
    choices: list[str]
    chosen: int
    error: str = ""


class AskController(Controller):
    """The page, and the answers as they come."""

    include_in_schema = False
    path = "/console/t/{slug:str}/release/ask"
    guards = (signed_in("reviewer"),)

    @get()
    async def form(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        version: FromQuery[str] = "",
    ) -> Response[str]:
        """The question to be written; ``version`` chooses the candidate."""
        async with database.reading() as session:
            asked = await _read(session, tenant, settings, {"version": version})
        return await _page(request, asked)

    @post()
    async def whole(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        chat: NamedDependency[ChatService],
    ) -> Response[str]:
        """All answers in one page, for browsers without a script."""
        form = await read_form(request)
        async with database.reading() as session:
            asked = await _read(session, tenant, settings, form)
        asked = asked._replace(error=_mistake(asked.question))
        answers: dict[str, dict[str, Any]] = {}
        if not asked.error:
            caller = _principal(viewer, tenant)
            async for piece in ask(chat, asked.voices, asked.question, principal=caller):
                answer = answers.setdefault(piece.kind, {"text": "", "error": "", "cut": False})
                answer["text"] += piece.text
                answer["error"], answer["cut"] = piece.error, piece.cut
        return await _page(request, asked, answers)

    @post("/stream", status_code=HTTPStatus.OK)
    async def stream(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        chat: NamedDependency[ChatService],
    ) -> Response[Any] | Stream:
        """The answers as they are written: a line of JSON for each piece (`server.chat.voices.Piece`).

        A form with a mistake is answered by 422 and nothing else: the page says what is wrong.
        """
        form = await read_form(request)
        async with database.reading() as session:
            asked = await _read(session, tenant, settings, form)
        if _mistake(asked.question):
            return Response(b"", status_code=HTTPStatus.UNPROCESSABLE_ENTITY)
        return Stream(
            _lines(chat, asked, _principal(viewer, tenant)),
            media_type="application/x-ndjson",
            headers={
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                "x-content-type-options": "nosniff",
            },
        )


async def _lines(chat: ChatService, asked: Asked, principal: Principal) -> AsyncGenerator[bytes]:
    pieces = ask(chat, asked.voices, asked.question, principal=principal)
    try:
        async for piece in pieces:
            yield msgspec.json.encode(piece) + b"\n"
    finally:
        await pieces.aclose()


def _principal(viewer: Viewer, tenant: Tenant) -> Principal:
    """The person as a caller of the tenant's: its limits hold, and its usage is booked under their id."""
    return Principal(
        key_id=viewer.person_id,
        label="console",
        scopes=frozenset(),
        tenant_id=tenant.id,
        slug=tenant.slug,
        tenant_limits=tenant.limits,
    )


async def _read(
    session: AsyncSession, tenant: Tenant, settings: Settings, form: dict[str, str]
) -> Asked:
    """Whom and what a form asks; a version that cannot answer here is not asked."""
    found = await versions.list_versions(session, tenant)
    live = await adapters.live_version(session, tenant)
    able = [
        each.version
        for each in found
        if each.base == settings.base and each.standing not in ("unsafe", "live")
    ]
    given = form.get("version", "")
    wanted = int(given[:12]) if given.isascii() and given.isdigit() else 0
    if wanted not in able and 0 < wanted <= MAX_NUMBER and wanted != live:
        older = await versions.get_version(session, tenant, wanted)
        if older.base == settings.base and older.standing != "unsafe":
            able.append(wanted)
    chosen = wanted if wanted in able else next(iter(able), 0)
    voices = [Voice(kind="base", model=settings.base, system=tenant.system_prompt)]
    if live is not None:
        voices.append(Voice(kind="live", model=f"{tenant.slug}@{live}"))
    if chosen:
        voices.append(Voice(kind="cand", model=f"{tenant.slug}@{chosen}"))
    return Asked(
        question=form.get("question", "").strip(),
        voices=voices,
        choices=[f"{tenant.slug}@{each}" for each in able],
        chosen=chosen,
    )


def _mistake(question: str) -> str:
    if not question:
        return "Write a question."
    if len(question) > MOST_CHARACTERS:
        return f"Write {MOST_CHARACTERS:,} characters at most; this has {len(question):,}."
    return ""


async def _page(
    request: Request[Any, Any, Any],
    asked: Asked,
    answers: dict[str, dict[str, Any]] | None = None,
) -> Response[str]:
    return await page(
        request,
        "release/ask.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if asked.error else HTTPStatus.OK,
        asked=asked,
        options=[{"value": name.rpartition("@")[2], "name": name} for name in asked.choices],
        answers=answers or {},
        most=MOST_CHARACTERS,
    )
