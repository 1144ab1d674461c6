"""Blind voting: which of two answers is better, without knowing whose they are."""

from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.adapters import service as adapters
from server.adapters import versions, votes
from server.adapters.votes import Side, Tally
from server.db.models import Adapter, Tenant
from server.db.session import Database
from server.errors import Conflict, Invalid
from server.web.console.forms import read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import signed_in

SIDES: dict[str, Side] = {"1": "first", "2": "second", "0": "tie"}
"""What the keys say."""


class VoteController(Controller):
    """One pair after the other; at the end, what came of all votes."""

    include_in_schema = False
    path = "/console/t/{slug:str}/release/{version:int}/vote"
    guards = (signed_in("reviewer"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        keys: FromQuery[str] = "on",
    ) -> Response[str]:
        """The next pair; with ``keys=off`` no key does anything."""
        async with database.reading() as session:
            adapter = await _adapter(session, tenant, version)
            ballot = await votes.ballot(session, adapter, viewer.person_id)
            result = None
            if ballot.pair is None and ballot.total:
                result = await result_of(session, adapter, tenant)
        return await page(
            request,
            "release/vote.html",
            name=f"{tenant.slug}@{version}",
            version=version,
            ballot=ballot,
            result=result,
            keys=keys != "off",
        )

    @post()
    async def cast(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        keys: FromQuery[str] = "on",
    ) -> Response[Any]:
        """Keep a vote, and go on to the next pair."""
        form = await read_form(request)
        side, question = SIDES.get(form.get("choice", "")), form.get("question", "")
        if side is None or not (question.isascii() and question.isdigit()):
            raise Invalid("Choose the first answer, the second, or neither.")
        try:
            async with database.transaction() as session:
                adapter = await _adapter(session, tenant, version)
                await votes.cast(
                    session,
                    adapter,
                    viewer.person_id,
                    question=int(question[:12]),
                    side=side,
                )
        except Conflict as exc:
            if exc.code != "voted_already":
                raise
            # sent twice, or from a second window: the first vote stands, and the next pair comes
        return see_other(_address(tenant, version, keys))

    @post("/undo")
    async def undo(
        self,
        tenant: NamedDependency[Tenant],
        version: FromPath[int],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        keys: FromQuery[str] = "on",
    ) -> Response[Any]:
        """Take the last vote back, and show its pair again."""
        async with database.transaction() as session:
            adapter = await _adapter(session, tenant, version)
            await votes.undo(session, adapter, viewer.person_id)
        return see_other(_address(tenant, version, keys))


async def _adapter(session: AsyncSession, tenant: Tenant, version: int) -> Adapter:
    await versions.get_version(session, tenant, version)
    return await adapters.get(session, tenant, version=version)


def _address(tenant: Tenant, version: int, keys: str) -> str:
    more = "?keys=off" if keys == "off" else ""
    return f"/console/t/{tenant.slug}/release/{version}/vote{more}"


async def result_of(
    session: AsyncSession, adapter: Adapter, tenant: Tenant
) -> dict[str, Any] | None:
    """What came of all votes about a version, in words; None before there is one."""
    found = await votes.tally(session, adapter)
    if not found.by_person:
        return None
    actors = {person: f"person:{person}" for person in found.by_person}
    names = await actor_names(session, actors.values())
    name = f"{tenant.slug}@{adapter.version}"
    other = "what was live" if found.against == "live" else "the base"

    def who(people: tuple[str, ...]) -> str:
        return ", ".join(names[actors[person]] for person in people)

    return {
        "name": name,
        "other": other,
        "other_kind": found.against,
        "claim": _claim(found, name, other),
        "said": _said(found),
        "people": [(names[actors[person]], count) for person, count in found.by_person.items()],
        "questions": [
            (each.text, who(each.new), who(each.other), who(each.tie)) for each in found.by_question
        ],
        "count": found.count,
    }


def _claim(found: Tally, name: str, other: str) -> str:
    half = 0.5
    if found.low is not None and found.low > half:
        return f"People prefer {name} to {other}."
    if found.high is not None and found.high < half:
        return f"People prefer {other} to {name}."
    return f"These votes cannot tell whether people prefer {name} or {other}."


def _said(found: Tally) -> str:
    count = found.count
    ties = f"{count.tie} saw no difference."
    if found.share is None or found.low is None or found.high is None:
        return f"Nobody has preferred one to the other; {ties}"
    return (
        f"{count.new} of {count.new + count.other} votes that chose were for it: {found.share:.0%}, "
        f"with a 95 % interval of {found.low:.0%} to {found.high:.0%}; {ties}"
    )
