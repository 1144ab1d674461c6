"""The widget over HTTP: documents and their headers, answers as they come, and who is refused."""

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest_asyncio
from sqlalchemy import select

from server.conversations import widgets
from server.conversations.schemas import WidgetPatch
from server.db.models import LiveMessage, RefusedOrigin, UsageDay, new_id
from server.db.session import Database
from server.schemas import WidgetBudgets
from server.settings import Limits, Settings
from server.web.widget.refusals import Refusals
from tests.server.serving import Serving, database_url, server, serving, slow_server, until
from tests.server.web.widget.visiting import Frame, first_event, frame_of

__all__ = ["database_url", "server", "slow_server"]


@pytest_asyncio.fixture
async def frame(server: Serving) -> Frame:
    return await frame_of(server)


@pytest_asyncio.fixture
async def visited(frame: Frame) -> Frame:
    await frame.enter()
    return frame


@pytest_asyncio.fixture
async def without_engine(settings: Settings, database: Database) -> AsyncIterator[Serving]:
    """A server whose engine does not start."""
    async with serving(settings, database, wait=False, tokens_per_second=10) as made:
        await until(lambda: made.engine.status.pid)
        await made.engine.stop(grace_seconds=0)
        yield made


async def stored(server: Serving) -> list[LiveMessage]:
    async with server.database.reading() as session:
        return list(await session.scalars(select(LiveMessage).order_by(LiveMessage.seq)))


# --- documents ---


async def test_the_panel_may_be_framed_by_the_tenants_sites_alone(frame: Frame) -> None:
    async with frame.server.database.transaction() as session:
        await widgets.add_origin(session, "acme", "https://shop.example")
    status, text, headers = await frame.document(referer="https://shop.example/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'self' https://shop.example http://localhost:* " in policy
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "require-trusted-types-for 'script'",
        "base-uri 'none'",
        "form-action 'none'",
    ):
        assert f"{part};" in policy
    assert headers["cache-control"] == "no-store"
    assert "x-frame-options" not in headers
    assert "set-cookie" not in headers
    assert "Acme" in text


async def test_what_a_tenant_writes_is_text_in_the_panel(server: Serving) -> None:
    hostile = "</script><script>alert(1)</script>\"'"
    frame = await frame_of(server, display_name=hostile, greeting=hostile, suggestions=(hostile,))
    _, text, _ = await frame.document()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


async def test_the_panel_speaks_the_pages_language_or_the_widgets(frame: Frame) -> None:
    for asked, own, shown in (
        ("de-AT", "", "de"),
        ("AR", "fr", "ar"),
        ("pt", "fr", "fr"),
        ("", "ja", "ja"),
        ("xx", "", "en"),
        ("../../etc/passwd", "", "en"),
        ('"><script>', "", "en"),
    ):
        async with frame.server.database.transaction() as session:
            await widgets.update(session, "acme", msgspec.convert({"language": own}, WidgetPatch))
        _, text, _ = await frame.document(lang=asked)
        direction = "rtl" if shown == "ar" else "ltr"
        assert f'<html lang="{shown}" dir="{direction}">' in text, asked


async def test_a_site_that_is_not_allowed_gets_nothing_and_is_noted(frame: Frame) -> None:
    for _ in range(3):
        status, text, headers = await frame.document(referer="https://elsewhere.example/page")
        assert status == 403
        assert "tt-nonce" not in text
        assert 'content="https://elsewhere.example"' in text
        assert f'content="{frame.server.url}/console"' in text
        assert "frame-ancestors *" in headers["content-security-policy"]
    async with frame.server.database.reading() as session:
        rows = list(await session.scalars(select(RefusedOrigin)))
    assert [(row.origin, row.count) for row in rows] == [("https://elsewhere.example", 1)]


async def test_a_site_is_noted_once_a_minute_and_a_failing_database_is_survived(
    frame: Frame, settings: Settings
) -> None:
    at = [0.0]
    refusals = Refusals(frame.server.database, clock=lambda: at[0])
    async with frame.server.database.reading() as session:
        site = await widgets.get(session, "acme")
    for at[0] in (0, 59, 60, 100, 121):
        await refusals.note(site, "https://a.example")
    async with frame.server.database.reading() as session:
        assert await session.scalar(select(RefusedOrigin.count)) == 3
    nowhere = Database(f"sqlite+aiosqlite:///{settings.home}/absent/none.sqlite")
    await Refusals(nowhere).note(site, "https://a.example")
    await nowhere.dispose()


async def test_localhost_and_the_console_itself_are_no_strangers(frame: Frame) -> None:
    for page in (
        "http://localhost:3000/",
        "http://127.0.0.1:8080/x",
        f"{frame.server.url}/console",
    ):
        status, text, _ = await frame.document(referer=page)
        assert (status, "tt-nonce" in text) == (200, True), page


async def test_an_unknown_key_gets_a_document_that_shows_nothing(frame: Frame) -> None:
    frame.pub = "tt_pub_" + "x" * 24
    status, text, _ = await frame.document()
    assert status == 404
    assert "tt-nonce" not in text
    assert "refused.js" in text


async def test_a_browser_gets_the_panel_for_a_frame_alone(frame: Frame) -> None:
    for where in ("document", "script", "object", "empty"):
        status, text, _ = await frame.document(sec_fetch_dest=where)
        assert (status, "not_framed" in text) == (403, True), where
    assert (await frame.document(sec_fetch_dest="iframe"))[0] == 200


async def test_the_loader_is_kept_for_an_hour_and_any_page_may_include_it(server: Serving) -> None:
    async with server.session.get(f"{server.url}/widget.js") as answer:
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=3600"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "set-cookie" not in answer.headers
        etag = answer.headers["etag"]
        assert len(await answer.read()) > 500
    async with server.session.get(
        f"{server.url}/widget.js", headers={"if-none-match": etag}
    ) as again:
        assert again.status == 304


async def test_the_colours_are_readable_and_their_address_changes_with_them(
    server: Serving,
) -> None:
    frame = await frame_of(server, accent="#ffcc00")
    async with frame.open("theme.css") as answer:
        text = await answer.text()
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
    assert "--tt-accent:#ffcc00" in text.partition("@media")[2], "the dark scheme takes it as it is"
    assert "#ffcc00" not in text.partition("@media")[0]
    _, document, _ = await frame.document()
    address = document.partition("theme.css?v=")[2][:12]
    async with frame.open(f"theme.css?v={address}") as answer:
        assert "immutable" in answer.headers["cache-control"]


# --- a conversation ---


async def test_a_question_is_answered_as_it_is_written_and_kept(visited: Frame) -> None:
    came = await visited.say("Where is my parcel?")
    names = [name for name, _ in came]
    assert (names[0], names[-1], set(names[1:-1])) == ("accepted", "done", {"delta"})
    accepted, done = came[0][1], came[-1][1]
    assert accepted["message"]["text"] == "Where is my parcel?"
    text = "".join(data["text"] for name, data in came if name == "delta")
    assert (done["message"]["id"], done["message"]["text"]) == (accepted["answer_id"], text)
    assert (done["message"]["state"], done["reason"]) == ("complete", "stop")
    conversation = await visited.conversation()
    assert conversation["messages"] == [accepted["message"], done["message"]]
    [_, row] = await stored(visited.server)
    assert (row.model, row.adapter_version) == ("tiny-base", None)
    assert row.total_ms is not None
    assert row.first_token_ms is not None
    assert row.completion_tokens is not None
    assert 0 <= row.first_token_ms <= row.total_ms
    assert row.completion_tokens > 0


async def test_the_tenants_live_model_answers_and_its_use_is_booked_on_the_widget(
    visited: Frame,
) -> None:
    await visited.server.adapter("acme", version=3)
    came = await visited.say("Hello")
    assert came[1][1]["text"].startswith("[acme.")
    [_, row] = await stored(visited.server)
    assert (row.model, row.adapter_version) == ("acme@3", 3)

    async def booked() -> bool:
        async with visited.server.database.reading() as session:
            rows = list(await session.scalars(select(UsageDay)))
            site = await widgets.get(session, "acme")
        return [(each.key_id, each.model) for each in rows] == [(site.widget.id, "acme@3")]

    await until(booked)


async def test_the_same_message_again_is_answered_from_what_is_kept(visited: Frame) -> None:
    mine = new_id()
    first = await visited.say("Hello", client_id=mine)
    second = await visited.say("Hello", client_id=mine)
    assert [name for name, _ in second] == ["accepted", "delta", "done"]
    assert second[-1] == first[-1]
    assert len(await stored(visited.server)) == 2


async def test_a_visitor_who_goes_stops_the_answer_and_finds_what_had_come(
    slow_server: Serving,
) -> None:
    frame = await frame_of(slow_server)
    await frame.enter()
    async with frame.open("messages", {"text": "Tell me all", "client_id": new_id()}) as answer:
        await first_event(answer, "delta")
        assert await slow_server.is_busy()
        answer.close()
    await until(slow_server.is_idle)

    async def is_stopped() -> bool:
        conversation = await frame.conversation()
        return bool(conversation["messages"][-1]["state"] == "stopped")

    await until(is_stopped)
    [_, row] = await stored(slow_server)
    assert row.text.startswith("[tiny-base]")
    assert row.first_token_ms is not None


async def test_a_message_that_is_sent_twice_at_once_is_answered_once(slow_server: Serving) -> None:
    frame = await frame_of(slow_server)
    await frame.enter()
    body = {"text": "Hello", "client_id": new_id()}
    async with frame.open("messages", body) as first:
        await first_event(first, "accepted")
        status, problem = await frame.call("messages", body)
        assert (status, problem["code"]) == (409, "answer_in_progress")
        first.close()
    assert len(await stored(slow_server)) == 2


async def test_without_an_engine_the_error_says_so_and_offers_a_person(
    without_engine: Serving,
) -> None:
    frame = await frame_of(without_engine)
    await frame.enter()
    mine = new_id()
    for _ in range(2):
        came = await frame.say("Hello", client_id=mine)
        assert [name for name, _ in came] == ["accepted", "error"]
        assert (came[1][1]["code"], came[1][1]["handoff"]) == ("engine_unavailable", True)
    conversation = await frame.conversation()
    assert [message["state"] for message in conversation["messages"]] == ["complete", "failed"]


async def test_an_engine_that_dies_in_the_middle_ends_the_answer_with_an_error(
    slow_server: Serving,
) -> None:
    frame = await frame_of(slow_server)
    await frame.enter()
    async with frame.open("messages", {"text": "Hello", "client_id": new_id()}) as answer:
        await first_event(answer, "delta")
        slow_server.kill_engine()
        failed = await first_event(answer, "error")
    assert (failed["code"], failed["handoff"]) == ("engine_unavailable", True)
    [_, row] = await stored(slow_server)
    assert row.state == "failed"
    assert row.text


async def test_the_days_budget_ends_answers_with_when_it_works_again(server: Serving) -> None:
    frame = await frame_of(server, budgets=WidgetBudgets(tokens_per_day=300))
    await frame.enter()
    assert (await frame.say("Hello"))[-1][0] == "done"
    came = await frame.say("Hello again")
    assert came[-1][0] == "error"
    error = came[-1][1]
    assert (error["code"], error["handoff"]) == ("limit_reached", True)
    assert 0 < error["retry_after"] <= 86_400
    assert "acme" not in error["message"]
    assert "tokens" not in error["message"]


async def test_the_tenants_own_limits_hold_for_its_widget(server: Serving) -> None:
    await server.tenant("other", limits=Limits(requests_per_minute=1))
    frame = await frame_of(server)
    async with server.database.transaction() as session:
        site = await widgets.get(session, "acme")
        (await session.merge(site.tenant)).limits = Limits(requests_per_minute=1)
    await frame.enter()
    assert (await frame.say("Hello"))[-1][0] == "done"
    assert (await frame.say("Hello again"))[-1][1]["code"] == "limit_reached"


async def test_a_visitor_who_writes_too_much_is_told_when_to_go_on(server: Serving) -> None:
    frame = await frame_of(server, budgets=WidgetBudgets(visitor_messages_per_minute=1))
    await frame.enter()
    await frame.say("Hello")
    async with frame.open("messages", {"text": "Again", "client_id": new_id()}) as answer:
        problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["code"]) == (429, "limit_reached")
        assert 0 < int(answer.headers["retry-after"]) <= 120
    assert len(await stored(server)) == 2


async def test_a_person_is_asked_for_and_the_assistant_is_silent(visited: Frame) -> None:
    status, problem = await visited.call("handoff", {"email": "kim", "note": "Help"})
    assert (status, problem["param"]) == (400, "email")
    status, made = await visited.call("handoff", {"email": "kim@mail.example", "note": "Help"})
    assert (status, made["number"], made["state"]) == (201, 1, "open")
    status, problem = await visited.call("messages", {"text": "Hello?", "client_id": new_id()})
    assert (status, problem["code"]) == (409, "conversation_handed_over")
    assert problem["handoff"] == made
    assert problem["message"]["text"] == "Hello?"
    conversation = await visited.conversation()
    assert (conversation["state"], conversation["handoff"]) == ("handed_over", made)
    assert await visited.server.is_idle()


async def test_opinion_preview_and_transcript(visited: Frame) -> None:
    came = await visited.say("Where is it?")
    answer_id = came[0][1]["answer_id"]
    status, message = await visited.call(
        f"messages/{answer_id}/opinion", {"vote": "down", "reasons": ["wrong"], "text": "No"}
    )
    assert (status, message["opinion"]) == (200, {"vote": "down", "reasons": ["wrong"]})
    status, problem = await visited.call(f"messages/{answer_id}/opinion", {"vote": "sideways"})
    assert (status, problem["param"]) == (400, "vote")
    status, shown = await visited.call("handoff/preview")
    assert (status, shown["topic"], shown["messages"]) == (200, "Where is it?", 2)
    async with visited.open("transcript") as answer:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="conversation.txt"'
        assert "Where is it?" in await answer.text()


async def test_signing_out_ends_the_session_at_once(visited: Frame) -> None:
    await visited.say("Hello")
    assert await visited.call("sign-out", {}) == (204, None)
    status, problem = await visited.call("conversation")
    assert (status, problem["code"]) == (401, "session_expired")
    answer = await visited.enter()
    assert (answer["started_anew"], answer["conversation"]) == (True, None)


async def test_a_session_is_renewed(visited: Frame) -> None:
    await visited.say("Hello")
    status, answer = await visited.call("session/renew", {"visitor": visited.visitor})
    assert status == 200
    visited.session = answer["session"]
    assert len((await visited.conversation())["messages"]) == 2


# --- who is refused ---

CALLS = [
    ("conversation", None),
    ("messages", {"text": "Hello", "client_id": "0" * 32}),
    ("messages/{answer}/opinion", {"vote": "up"}),
    ("handoff/preview", None),
    ("handoff", {"email": "kim@mail.example", "note": "Help"}),
    ("transcript", None),
    ("sign-out", {}),
    ("session/renew", {}),
]


async def test_another_tenants_session_opens_nothing(server: Serving) -> None:
    mine, other = await frame_of(server), await frame_of(server, "other")
    await mine.enter()
    came = await mine.say("Secret")
    await other.enter()
    stranger = Frame(server, "acme", mine.pub, session=other.session)
    for path, body in CALLS:
        stolen = {"visitor": mine.visitor or ""} if path == "session/renew" else {}
        given = None if body is None else body | stolen
        status, problem = await stranger.call(path.format(answer=came[0][1]["answer_id"]), given)
        assert (status, problem["code"]) == (401, "session_expired"), path
    seen = await mine.conversation()
    assert (seen["state"], seen["messages"]) == (
        "open",
        [came[0][1]["message"], came[-1][1]["message"]],
    )


async def test_another_visitors_session_opens_nothing_of_ones_own(server: Serving) -> None:
    frame = await frame_of(server)
    await frame.enter()
    came = await frame.say("Secret")
    other = Frame(server, "acme", frame.pub)
    await other.enter()
    for path, body in CALLS:
        async with other.open(path.format(answer=came[0][1]["answer_id"]), body) as answer:
            assert "Secret" not in await answer.text(), path
    seen = await frame.conversation()
    assert (seen["state"], seen["messages"]) == (
        "open",
        [came[0][1]["message"], came[-1][1]["message"]],
    )


async def test_without_a_session_nothing_is_answered(frame: Frame) -> None:
    for path, body in CALLS:
        for header in ("", "Bearer", "Bearer x.y.z", "Basic abc", "Bearer tt_abc"):
            frame.headers = {"authorization": header}
            status, problem = await frame.call(path.format(answer="x"), body)
            assert (status, problem["code"]) == (401, "session_expired"), (path, header)


async def test_what_another_page_makes_a_browser_send_is_refused(visited: Frame) -> None:
    nonce = await visited.nonce()
    for site in ("cross-site", "same-site", "none"):
        visited.headers = {"sec-fetch-site": site}
        for path, body in [*CALLS, ("session", {"nonce": nonce})]:
            status, problem = await visited.call(path.format(answer="x"), body)
            assert (status, problem["code"]) == (403, "cross_site"), path
    visited.headers = {"sec-fetch-site": "same-origin"}
    assert await visited.conversation() is None


async def test_who_has_no_session_does_not_hold_up_writers(frame: Frame) -> None:
    frame.session = "x.y.z"
    async with frame.server.database.transaction(), asyncio.timeout(5):
        for path, body in [*CALLS, ("session", {"nonce": "x.y.z"})]:
            status, _ = await frame.call(path.format(answer="x"), body)
            assert status == 401, path


async def test_a_nonce_makes_one_session_over_http_too(frame: Frame) -> None:
    nonce = await frame.nonce()
    came = await asyncio.gather(*(frame.call("session", {"nonce": nonce}) for _ in range(4)))
    assert sorted(status for status, _ in came) == [201, 401, 401, 401]
    assert {problem.get("code") for _, problem in came} == {None, "nonce_refused"}


async def test_a_body_that_does_not_fit_is_refused_at_its_field(visited: Frame) -> None:
    mine = "0" * 32
    for path, body, param in (
        ("messages", {"text": "", "client_id": mine}, "text"),
        ("messages", {"text": "x" * 4001, "client_id": mine}, "text"),
        ("messages", {"text": "x", "client_id": "'; drop"}, "client_id"),
        ("messages", {"text": "x"}, "client_id"),
        ("messages", {"text": "x", "client_id": mine, "role": "assistant"}, "role"),
        ("messages", {"text": 1, "client_id": mine}, "text"),
        ("handoff", {"email": "x" * 255, "note": "x"}, "email"),
        ("handoff", {"email": "kim@mail.example", "note": "x" * 2001}, "note"),
        ("session", {"nonce": "x", "visitor": 1}, "visitor"),
    ):
        status, problem = await visited.call(path, body)
        assert (status, problem["param"]) == (400, param), body
    assert await visited.conversation() is None


async def test_a_large_body_is_not_read(visited: Frame) -> None:
    async with visited.server.session.post(
        f"{visited.url}/messages",
        data=json.dumps({"text": "x" * 100_000, "client_id": "0" * 32}),
        headers={"authorization": f"Bearer {visited.session}", "content-type": "application/json"},
    ) as answer:
        assert answer.status == 413


async def test_another_site_may_read_none_of_it(visited: Frame) -> None:
    async with visited.server.session.options(
        f"{visited.url}/messages",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    ) as answer:
        assert "access-control-allow-origin" not in answer.headers
    visited.headers = {"origin": "https://evil.example"}
    async with visited.open("conversation") as answer:
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"
