"""Conversations with the widget's visitors: the list, one to read, answers to mend, hand-offs to end.

Each conversation has an address of its own, which keeps the list beside it as it was: the queue, what
was searched for, and the page.
"""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.conversations import handoffs, inbox, passing_on
from server.conversations.inbox import Counts, Listed, Opened, Place, Queue
from server.conversations.schemas import MAX_TEXT
from server.db.models import Tenant, now
from server.db.session import Database
from server.errors import Invalid
from server.web.console.downloads import csv_of_all
from server.web.console.forms import read_form, see_other
from server.web.console.navigation import address_of_page
from server.web.console.rendering import page
from server.web.console.session import signed_in

PAGE = 30  # conversations of a list
MAX_SEARCH = 200  # characters
QUEUES: dict[Queue, str] = {
    "all": "All",
    "needs_person": "Needs a person",
    "thumbs_down": "Thumbs down",
    "annoyed": "Annoyed",
    "unverified": "Not verified",
}
DONE = {
    "better": "Kept. The next dataset version has it, without personal data.",
    "withdrawn": "Taken back: the next dataset version does not have it.",
    "answered": "Sent. The visitor reads it when they open the chat.",
    "given_back": "Done: the assistant answers here again.",
    "looked_at": "Done: it needs no person until nothing supports another answer.",
    "taken": "A person has this conversation again: the assistant is silent.",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_REVIEWER = [signed_in("reviewer")]


class Query(NamedTuple):
    """Which list stands beside a conversation; ``after`` is the place that it goes on behind."""

    queue: Queue = "all"
    search: str = ""
    after: str = ""

    def text(self, **changes: str) -> str:
        """The query of an address with these changes, and its ``?``; empty where nothing is chosen."""
        made = self._replace(**changes)  # type: ignore[arg-type] # only of this page's own values
        given = {
            "queue": made.queue if made.queue != "all" else "",
            "q": made.search,
            "after": made.after,
        }
        text = urlencode({name: value for name, value in given.items() if value})
        return f"?{text}" if text else ""


class Mistake(NamedTuple):
    """What is wrong with a form: the field's id, what was typed into it, and what to do."""

    field: str
    value: str
    message: str


class Shown(NamedTuple):
    """A list, and the conversation that is read."""

    rows: list[Listed]
    older: str
    counts: Counts
    opened: Opened | None
    names: dict[str | None, str]


class ConversationsController(Controller):
    """What visitors and the assistant said, and what people do about it."""

    include_in_schema = False
    path = "/console/t/{slug:str}/conversations"
    guards = (signed_in("viewer"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """The conversations of a queue, the latest first."""
        return await _page(request, tenant, database)

    @get("/conversations.csv")
    async def csv(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Stream:
        """The conversations of a queue, or of a search, a line each."""
        query = query_of(request)
        return await csv_of_all(
            database,
            lambda session, limit, last: inbox.list_conversations(
                session,
                tenant.id,
                queue=query.queue,
                search=query.search,
                after=last.place if last else None,
                limit=limit,
            ),
            inbox.to_csv,
            f"{tenant.slug}-conversations.csv",
        )

    @get("/{conversation_id:str}")
    async def read(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """One conversation, beside its list."""
        return await _page(request, tenant, database, conversation_id)

    @post("/{conversation_id:str}/better/{message_id:str}", guards=_REVIEWER)
    async def correct(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        message_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Say what an answer should have been, or take that back."""
        form = await read_form(request)
        text, withdrawn = form.get("text", ""), form.get("do") == "withdraw"
        field = f"better-{message_id}"
        if not text.strip() and not withdrawn:
            mistake = Mistake(field, text, "Write what it should have said.")
            return await _page(request, tenant, database, conversation_id, mistake)
        try:
            async with database.transaction() as session:
                await inbox.correct(
                    session,
                    tenant.id,
                    message_id,
                    "" if withdrawn else text,
                    actor=viewer.actor,
                )
        except Invalid as exc:
            mistake = Mistake(field, text, exc.message)
            return await _page(request, tenant, database, conversation_id, mistake)
        done = "withdrawn" if withdrawn else "better"
        return _to(request, tenant, conversation_id, done, f"#m-{message_id}")

    @post("/{conversation_id:str}/answer", guards=_REVIEWER)
    async def answer(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Write to the visitor."""
        text = (await read_form(request)).get("text", "")
        try:
            async with database.transaction() as session:
                await inbox.answer(session, tenant.id, conversation_id, text, author=viewer.actor)
        except Invalid as exc:
            mistake = Mistake("answer", text, exc.message)
            return await _page(request, tenant, database, conversation_id, mistake)
        return _to(request, tenant, conversation_id, "answered")

    @post("/{conversation_id:str}/give-back", guards=_REVIEWER)
    async def give_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """End a hand-off: the assistant answers again."""
        async with database.transaction() as session:
            await handoffs.give_back(session, tenant.id, conversation_id, actor=viewer.actor)
        return _to(request, tenant, conversation_id, "given_back")

    @post("/{conversation_id:str}/looked-at", guards=_REVIEWER)
    async def look_at(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Note that a person has looked at what nothing supported."""
        async with database.transaction() as session:
            await handoffs.look_at(session, tenant.id, conversation_id, actor=viewer.actor)
        return _to(request, tenant, conversation_id, "looked_at")

    @post("/{conversation_id:str}/take", guards=_REVIEWER)
    async def take(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Hand a conversation over to a person, whose visitor has not asked for one."""
        async with database.transaction() as session:
            await passing_on.take(session, tenant.id, conversation_id, actor=viewer.actor)
        return _to(request, tenant, conversation_id, "taken")

    @post("/{conversation_id:str}/take-again", guards=_REVIEWER)
    async def take_again(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Undo that a hand-off was ended."""
        async with database.transaction() as session:
            await handoffs.take_again(session, tenant.id, conversation_id)
        return _to(request, tenant, conversation_id, "taken")


async def _page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    conversation_id: str | None = None,
    mistake: Mistake | None = None,
) -> Response[str]:
    query = query_of(request)
    shown = await _shown(database, tenant, query, conversation_id)
    viewer: Viewer = request.state["viewer"]
    opened = shown.opened
    return await page(
        request,
        "conversations/page.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if mistake else HTTPStatus.OK,
        **shown._asdict(),
        query=query,
        queues=[
            {
                "name": f"{name} {getattr(shown.counts, queue):,}",
                "href": f"{_path(tenant)}{query.text(queue=queue, after='')}",
                "current": queue == query.queue,
            }
            for queue, name in QUEUES.items()
        ],
        base=_path(tenant),
        mistake=mistake,
        max_text=MAX_TEXT,
        may_review=viewer.may(tenant.id, "reviewer"),
        may_set_up=viewer.may(tenant.id, "admin"),
        widget_page=address_of_page("Widget", tenant),
        knowledge=address_of_page("Knowledge", tenant),
        hidden=opened.message_count - len(opened.messages) if opened else 0,
        done=DONE.get(request.query_params.get("done", ""), ""),
        can_undo=request.query_params.get("done") == "given_back",
    )


async def _shown(
    database: Database, tenant: Tenant, query: Query, conversation_id: str | None
) -> Shown:
    async with database.reading() as session:
        opened, names = None, {}
        if conversation_id is not None:
            opened = await inbox.read(session, tenant.id, conversation_id)
            names = await actor_names(session, _actors(opened))
        found = await inbox.list_conversations(
            session,
            tenant.id,
            queue=query.queue,
            search=query.search,
            after=place_of(query.after),
            limit=PAGE + 1,
        )
        counts = await inbox.count(session, tenant.id)
    rows = found[:PAGE]
    older = place_text(rows[-1].place) if len(found) > PAGE else ""
    return Shown(rows, older, counts, opened, names)


def _actors(opened: Opened) -> list[str | None]:
    """Those whose names the page of a conversation says."""
    found = [message.author for message in opened.messages]
    found += [message.detail.corrected_by for message in opened.messages if message.detail]
    return [*found, opened.handoff.given_back_by if opened.handoff else None]


def query_of(request: Request[Any, Any, Any]) -> Query:
    """The list that an address names; what makes no sense in it is left out."""
    given = request.query_params
    asked = given.get("queue")
    queue: Queue = next((known for known in QUEUES if known == asked), "all")
    after = given.get("after", "")
    search = given.get("q", "").strip()[:MAX_SEARCH]
    return Query(queue, search, after if place_of(after) else "")


def place_text(place: Place) -> str:
    """A place in a list as an address has it: microseconds since 1970, and an id."""
    return f"{(place.last_at - _EPOCH) // _MICROSECOND}-{place.id}"


def place_of(text: str) -> Place | None:
    """The place that an address names; None where it names none."""
    digits, _, conversation_id = text.partition("-")
    if not (digits.isascii() and digits.isdigit() and conversation_id):
        return None
    micros = int(digits[:18])
    if micros > (now() + timedelta(days=1) - _EPOCH) // _MICROSECOND:
        return None
    return Place(_EPOCH + micros * _MICROSECOND, conversation_id[:32])


def _path(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/conversations"


def _to(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    conversation_id: str,
    done: str,
    fragment: str = "",
) -> Response[Any]:
    """Go back to a conversation, and its list, and say what was done."""
    text = query_of(request).text()
    query = f"{text}&done={done}" if text else f"?done={done}"
    return see_other(f"{_path(tenant)}/{conversation_id}{query}{fragment}")
