"""What a tenant reads, answers and corrects."""

import time
from datetime import timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import event, insert, select, text

from server.conversations import handoffs, inbox, service
from server.conversations.schemas import OpinionRequest, Said
from server.db.models import LiveConversation, LiveMessage, Visitor, new_id, now
from server.errors import Conflict, Invalid, NotFound
from tests.server.conversations.conftest import Shop


async def listed(shop: Shop, **asked: Any) -> list[inbox.Listed]:
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.reading() as session:
        return await inbox.list_conversations(session, tenant_id, **asked)


async def opened(shop: Shop, conversation_id: str) -> inbox.Opened:
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.reading() as session:
        return await inbox.read(session, tenant_id, conversation_id)


async def three(shop: Shop) -> None:
    """Three conversations: one rated, one handed over, and a plain one, the latest."""
    rated = await shop.enter(said=Said(name="Kim"))
    ask = await shop.talk(rated, "Where is my PARCEL?", "On its way: 100% sure.")
    caller = await shop.caller(rated)
    async with shop.database.transaction() as session:
        request = OpinionRequest(vote="down", reasons=("wrong",), text="It is not.")
        await service.give_opinion(session, caller, ask.answer.id, request)
    passed_on = await shop.enter()
    await shop.talk(passed_on, "Second", "Answer")
    await shop.hand_off(passed_on, note="Please call me.")
    await shop.talk(await shop.enter(), "Third", "Answer")


async def test_queues_hold_each_conversation_once_the_latest_first(shop: Shop) -> None:
    await three(shop)
    assert [each.topic for each in await listed(shop)] == ["Third", "Second", "Where is my PARCEL?"]
    assert [each.topic for each in await listed(shop, queue="needs_person")] == ["Second"]
    [rated] = await listed(shop, queue="thumbs_down")
    assert (rated.name, rated.verified, rated.messages, rated.thumbs_down) == ("Kim", False, 2, 1)
    assert len(await listed(shop, queue="unverified")) == 3
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.reading() as session:
        counts = await inbox.count(session, tenant_id)
    assert (counts.all, counts.needs_person, counts.thumbs_down, counts.unverified) == (3, 1, 1, 3)


@pytest.mark.parametrize("queue", get_args(inbox.Queue))
async def test_no_queue_sorts_all_its_conversations_for_one_page(
    shop: Shop, queue: inbox.Queue
) -> None:
    if not shop.database.is_sqlite:
        pytest.skip("SQLite's plan")
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.transaction() as session:
        for number in range(
            400
        ):  # some, since what is counted of a table says how it is looked through
            visitor = Visitor(
                tenant_id=tenant_id, subject=None if number % 3 else f"customer {number}"
            )
            session.add(visitor)
            await session.flush()
            session.add(LiveConversation(tenant_id=tenant_id, visitor_id=visitor.id, last_at=now()))
        await session.flush()
        await session.execute(text("ANALYZE"))
    asked = []

    def remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(shop.database.engine.sync_engine, "before_cursor_execute", remember)
    await listed(shop, queue=queue)
    event.remove(shop.database.engine.sync_engine, "before_cursor_execute", remember)
    [(statement, parameters)] = [each for each in asked if "FROM live_conversation" in each[0]]
    async with shop.database.engine.connect() as connection:
        plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps = [row.detail for row in plan]
    assert "ix_live_conversation_tenant_id" in steps[0]
    assert not [step for step in steps if "TEMP B-TREE" in step]


async def test_a_list_goes_on_behind_any_conversation(shop: Shop) -> None:
    await three(shop)
    first = await listed(shop, limit=2)
    rest = await listed(shop, after=first[-1].place)
    assert [each.topic for each in first + rest] == ["Third", "Second", "Where is my PARCEL?"]
    assert await listed(shop, after=rest[-1].place) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [("parcel", 1), ("100%", 1), ("%", 1), ("_", 0), ("nothing", 0), ("answer", 2), ("  ", 3)],
)
async def test_texts_are_found_whatever_their_case(shop: Shop, words: str, found: int) -> None:
    await three(shop)
    assert len(await listed(shop, search=words)) == found


async def test_another_tenant_sees_none_of_it(shop: Shop, open_shop: Any) -> None:
    await three(shop)
    other: Shop = await open_shop("other")
    assert await listed(other) == []
    assert await listed(other, search="parcel") == []
    [mine, *_] = await listed(shop)
    with pytest.raises(NotFound):
        await opened(other, mine.id)
    tenant_id = (await other.site()).tenant.id
    async with shop.database.transaction() as session:
        answer_id = await session.scalar(select(LiveMessage.id).where(LiveMessage.seq == 2))
        with pytest.raises(NotFound):
            await inbox.answer(session, tenant_id, mine.id, "Hello", author="x")
        with pytest.raises(NotFound):
            await inbox.correct(session, tenant_id, str(answer_id), "Better", actor="x")


async def test_a_conversation_is_read_with_its_receipts_and_the_hand_offs_note(shop: Shop) -> None:
    await three(shop)
    [passed_on] = await listed(shop, queue="needs_person")
    seen = await opened(shop, passed_on.id)
    assert (seen.state, seen.message_count, seen.visitor.verified) == ("handed_over", 2, False)
    assert seen.handoff is not None
    assert (seen.handoff.number, seen.handoff.note) == (1, "Please call me.")
    assert (seen.handoff.messages, seen.handoff.wants_copy) == (2, False)
    question, answer = seen.messages
    assert question.detail is None
    assert answer.detail is not None
    assert (answer.detail.model, answer.detail.total_ms) == ("acme@1", 340)
    [rated] = await listed(shop, queue="thumbs_down")
    detail = (await opened(shop, rated.id)).messages[1].detail
    assert detail is not None
    assert detail.opinion_text == "It is not."


async def test_a_person_answers_and_the_model_reads_it_as_the_assistants_words(shop: Shop) -> None:
    visitor = await shop.enter()
    await shop.talk(visitor, "Hello", "Hi")
    [conversation] = await listed(shop)
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.transaction() as session:
        with pytest.raises(Invalid):
            await inbox.answer(session, tenant_id, conversation.id, "  ", author="person:1")
        said = await inbox.answer(
            session, tenant_id, conversation.id, " I am Ana. ", author="person:1"
        )
    assert (said.role, said.text) == ("person", "I am Ana.")
    assert await shop.seen(visitor) == ["Hello", "Hi", "I am Ana."]
    ask = await shop.ask(visitor, "Good.")
    assert [turn.content for turn in ask.history] == ["Hello", "Hi\n\nI am Ana.", "Good."]


async def test_a_better_answer_is_kept_for_the_tenant_alone(shop: Shop) -> None:
    visitor = await shop.enter()
    ask = await shop.talk(visitor, "Where is my parcel?", "No idea")
    [conversation] = await listed(shop)
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.transaction() as session:
        with pytest.raises(NotFound):
            await inbox.correct(session, tenant_id, ask.message.id, "x", actor="person:1")
        await inbox.correct(session, tenant_id, ask.answer.id, "It comes today.", actor="person:1")
    detail = (await opened(shop, conversation.id)).messages[1].detail
    assert detail is not None
    assert (detail.correction, detail.corrected_by) == ("It comes today.", "person:1")
    assert await shop.seen(visitor) == ["Where is my parcel?", "No idea"]
    async with shop.database.transaction() as session:
        await inbox.correct(session, tenant_id, ask.answer.id, " ", actor="person:1")
    detail = (await opened(shop, conversation.id)).messages[1].detail
    assert detail is not None
    assert (detail.correction, detail.corrected_by) == (None, None)


async def test_a_list_cuts_long_topics_and_names(shop: Shop) -> None:
    visitor = await shop.enter(said=Said(name="K" * 200))
    await shop.talk(visitor, "t" * 4000, "Answer")
    [one] = await listed(shop)
    assert (len(one.topic), len(one.name or "")) == (inbox.LISTED_TOPIC, inbox.LISTED_NAME)
    assert len((await opened(shop, one.id)).topic) == service.TOPIC_LENGTH


async def test_what_a_person_has_is_counted_given_back_and_taken_again(shop: Shop) -> None:
    await three(shop)
    tenant_id = (await shop.site()).tenant.id
    [waiting] = await listed(shop, queue="needs_person")
    [rated] = await listed(shop, queue="thumbs_down")

    async def number() -> int:
        async with shop.database.reading() as session:
            return await inbox.count_waiting(session, tenant_id)

    assert await number() == 1
    async with shop.database.transaction() as session:
        await handoffs.give_back(session, tenant_id, waiting.id, actor="person:1")
    assert await number() == 0
    given = (await opened(shop, waiting.id)).handoff
    assert given is not None
    assert (given.state, given.given_back_by) == ("given_back", "person:1")
    for _ in range(2):
        async with shop.database.transaction() as session:
            await handoffs.take_again(session, tenant_id, waiting.id)
    seen = await opened(shop, waiting.id)
    assert seen.handoff is not None
    assert (seen.state, seen.handoff.state, seen.handoff.given_back_by) == (
        "handed_over",
        "open",
        None,
    )
    assert await number() == 1
    async with shop.database.transaction() as session:
        with pytest.raises(Conflict):
            await handoffs.take_again(session, tenant_id, rated.id)


async def test_ten_thousand_conversations_are_listed_and_searched(shop: Shop) -> None:
    """The times are printed; a page of a list loads no messages."""
    tenant_id, moment = (await shop.site()).tenant.id, now()
    visitors, conversations, messages = [], [], []
    for number in range(10_000):
        visitor_id, conversation_id = new_id(), new_id()
        visitors.append({"id": visitor_id, "tenant_id": tenant_id})
        conversations.append(
            {
                "id": conversation_id,
                "tenant_id": tenant_id,
                "visitor_id": visitor_id,
                "topic": f"Question {number}",
                "message_count": 2,
                "last_at": moment - timedelta(seconds=number),
            }
        )
        for seq, role in ((1, "visitor"), (2, "assistant")):
            messages.append(
                {
                    "tenant_id": tenant_id,
                    "conversation_id": conversation_id,
                    "seq": seq,
                    "role": role,
                    "text": f"{role} {number} " + "some words of an answer " * 10,
                }
            )
    async with shop.database.transaction() as session:
        for model, rows in (
            (Visitor, visitors),
            (LiveConversation, conversations),
            (LiveMessage, messages),
        ):
            await session.execute(insert(model), rows)
    place, times = (await listed(shop, limit=9_000))[-1].place, {}
    for name, asked in (
        ("first page", {}),
        ("page behind 9,000", {"after": place}),
        ("search", {"search": "assistant 77"}),
        ("needs a person", {"queue": "needs_person"}),
    ):
        began = time.perf_counter()
        found = await listed(shop, **asked)
        times[name] = f"{(time.perf_counter() - began) * 1000:.1f} ms, {len(found)} rows"
    print(times)
    assert len(await listed(shop)) == 50
    assert len(await listed(shop, search="assistant 7777 ")) == 1
