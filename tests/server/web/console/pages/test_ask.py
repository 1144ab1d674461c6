"""One question to several models: whole without a script, streamed with one, with limits and usage."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from bs4 import BeautifulSoup

from server.accounts import sessions
from server.accounts.tokens import form_token
from server.db.models import Membership, Person, Role, Tenant, UsageDay
from server.db.scope import across_tenants, of_tenant
from tests.server.serving import Serving, database_url, server, slow_server, until

__all__ = ["database_url", "server", "slow_server"]
QUESTION = "Where is my <b>parcel</b>?"


class Asker:
    """A person at a running server, without a browser."""

    def __init__(self, server: Serving, token: str) -> None:
        self._server = server
        self._headers = {"cookie": f"tt={token}", "sec-fetch-site": "same-origin"}
        self._token = form_token(token)

    def post(self, path: str = "", slug: str = "acme", **form: str) -> Any:
        """Send the form; use as a context manager."""
        return self._server.session.post(
            f"{self._server.url}/console/t/{slug}/release/ask{path}",
            data={"csrf_token": self._token, "question": QUESTION, **form},
            headers=self._headers,
            allow_redirects=False,
        )

    async def whole(self, **form: str) -> tuple[int, BeautifulSoup]:
        async with self.post(**form) as answer:
            return answer.status, BeautifulSoup(await answer.text(), "html.parser")

    async def pieces(self, **form: str) -> list[dict[str, Any]]:
        async with self.post("/stream", **form) as answer:
            assert answer.status == HTTPStatus.OK
            return [json.loads(line) for line in (await answer.text()).splitlines()]


async def asker(server: Serving, role: Role = "reviewer", slug: str = "acme") -> Asker:
    async with server.database.transaction() as session:
        person = Person(email=f"{role}@{slug}.example", name="Ana")
        session.add(person)
        await session.flush()
        tenant_id = await session.scalar(of_tenant_by_slug(slug))
        session.add(Membership(tenant_id=tenant_id, person_id=person.id, role=role))
        token = await sessions.begin(session, person, address="", agent="test")
    return Asker(server, token)


def of_tenant_by_slug(slug: str) -> Any:
    return (
        across_tenants("a test names its tenant by the slug")
        .select(Tenant.id)
        .where(Tenant.slug == slug)
    )


def columns(page: BeautifulSoup) -> dict[str, tuple[str, str]]:
    """By voice: the answer, and what is said about it."""
    found = {}
    for box in page.select("[data-voice]"):
        answer, said = box.select_one("[data-answer]"), box.select_one("[data-said]")
        assert answer is not None
        assert said is not None
        found[str(box["data-voice"])] = (answer.get_text(), said.get_text().strip())
    return found


async def two_versions(server: Serving) -> None:
    await server.tenant("acme", system_prompt="Be kind.")
    await server.adapter(version=1)
    await server.adapter(version=2, live=False)


async def test_without_a_script_all_three_answer_in_one_page(server: Serving) -> None:
    await two_versions(server)
    status, page = await (await asker(server)).whole()
    assert status == HTTPStatus.OK
    found = columns(page)
    assert list(found) == ["base", "live", "cand"]
    # the fake engine's answers begin with the name of the model that gave them
    assert found["base"][0].startswith(f"[{server.settings.base}]")
    assert found["live"][0].startswith("[acme.000000000001]")
    assert found["cand"][0].startswith("[acme.000000000002]")
    assert [said for _, said in found.values()] == ["", "", ""]
    heading = page.select_one("#asked")
    assert heading is not None
    assert heading.get_text() == QUESTION
    assert not heading.select("b")


async def test_the_stream_says_the_same_as_the_page(server: Serving) -> None:
    await two_versions(server)
    person = await asker(server)
    _, page = await person.whole(version="2")
    pieces = await person.pieces(version="2")
    for kind, (text, _) in columns(page).items():
        mine = [piece for piece in pieces if piece["kind"] == kind]
        assert len(mine) > 3
        assert [bool(piece.get("end")) for piece in mine] == [False] * (len(mine) - 1) + [True]
        assert "".join(piece.get("text", "") for piece in mine) == text


async def test_each_answer_is_booked_to_the_tenant_under_the_persons_id(server: Serving) -> None:
    await two_versions(server)
    await (await asker(server)).whole()

    rows: list[UsageDay] = []

    async def booked() -> bool:
        async with server.database.reading() as session:
            tenant_id = await session.scalar(of_tenant_by_slug("acme"))
            rows[:] = await session.scalars(of_tenant(tenant_id).select(UsageDay))
        return {row.model for row in rows} == {server.settings.base, "acme@1", "acme@2"}

    await until(booked, 20)
    assert {row.requests for row in rows} == {1}
    assert len({row.key_id for row in rows}) == 1
    assert all(row.key_id for row in rows)


async def test_a_limit_is_said_in_words_and_the_others_answer(server: Serving) -> None:
    await server.tenant("acme", limits={"requests_per_minute": 2})
    await server.adapter(version=1)
    await server.adapter(version=2, live=False)
    _, page = await (await asker(server)).whole()
    said = [said for _, said in columns(page).values() if said]
    assert len(said) == 1
    assert "No answer: Rate limit reached for tenant 'acme' on requests per min" in said[0]


async def test_an_engine_that_is_gone_is_said_in_words(server: Serving) -> None:
    await two_versions(server)
    person = await asker(server)
    await server.engine.stop(grace_seconds=0)
    status, page = await person.whole()
    assert status == HTTPStatus.OK
    assert all(said.startswith("No answer: ") for _, said in columns(page).values())
    assert all(piece.get("error") for piece in await person.pieces())


async def test_who_leaves_ends_all_answers(slow_server: Serving) -> None:
    await two_versions(slow_server)
    person = await asker(slow_server)
    async with person.post("/stream") as answer:
        await answer.content.readline()
        assert await slow_server.running() == 3
    await until(slow_server.is_idle, 20)


async def test_only_versions_of_the_tenant_that_can_answer_are_asked(server: Serving) -> None:
    await two_versions(server)
    await server.tenant("zoo")
    await server.adapter("zoo", version=7)
    person = await asker(server)
    for version in ("7", "99999999999999999999", "x"):
        async with person.post("/stream", version=version) as answer:
            assert answer.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND), version
            assert b"zoo" not in await answer.read()
    async with person.post("/stream", slug="zoo") as answer:
        assert answer.status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("question", ["", "  \n", "x" * 4001])
async def test_a_mistake_is_said_at_the_field_and_nobody_is_asked(
    server: Serving, question: str
) -> None:
    await two_versions(server)
    person = await asker(server)
    status, page = await person.whole(question=question)
    assert status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert page.select_one('.summary a[href="#question"]')
    assert columns(page)["base"] == ("", "")
    async with person.post("/stream", question=question) as answer:
        assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_viewers_ask_nothing(server: Serving) -> None:
    await two_versions(server)
    person = await asker(server, "viewer")
    for path in ("", "/stream"):
        async with person.post(path) as answer:
            assert answer.status == HTTPStatus.FORBIDDEN


async def test_without_a_live_version_two_are_asked(server: Serving) -> None:
    await server.tenant("acme")
    await server.adapter(version=1, live=False)
    _, page = await (await asker(server)).whole()
    assert list(columns(page)) == ["base", "cand"]
