"""What visitors and the assistant say: stored once, in order, whatever happens at once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from server.conversations import service, views
from server.conversations.schemas import MessageRequest, OpinionRequest, SessionAnswer
from server.conversations.service import Ask, Repeated, Silent
from server.db.models import LiveConversation, LiveMessage, new_id, now
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound
from tests.server.conversations.conftest import RECEIPT, Shop


async def stored(shop: Shop) -> list[LiveMessage]:
    async with shop.database.reading() as session:
        return list(await session.scalars(select(LiveMessage).order_by(LiveMessage.seq)))


async def conversations(shop: Shop) -> list[LiveConversation]:
    async with shop.database.reading() as session:
        return list(await session.scalars(select(LiveConversation)))


async def opinion(shop: Shop, answer: SessionAnswer, message_id: str, **fields: Any) -> Any:
    caller = await shop.caller(answer)
    async with shop.database.transaction() as session:
        return await service.give_opinion(session, caller, message_id, OpinionRequest(**fields))


async def test_a_message_and_its_answer_are_kept_with_the_answers_receipt(shop: Shop) -> None:
    visitor = await shop.enter()
    ask = await shop.ask(visitor, "  Where is my parcel?  ")
    assert (ask.message.text, ask.message.role, ask.answer.state) == (
        "Where is my parcel?",
        "visitor",
        "writing",
    )
    await shop.finish(ask, "On its way.")
    question, answer = await stored(shop)
    assert (question.seq, answer.seq, answer.reply_to) == (1, 2, question.id)
    assert (answer.text, answer.state) == ("On its way.", "complete")
    for field in RECEIPT.__struct_fields__:
        assert getattr(answer, field) == getattr(RECEIPT, field)
    [conversation] = await conversations(shop)
    assert (conversation.topic, conversation.message_count) == ("Where is my parcel?", 2)


async def test_the_model_is_given_what_was_said_in_turns(shop: Shop) -> None:
    visitor = await shop.enter()
    await shop.talk(visitor, "One", "First")
    failed = await shop.ask(visitor, "Two")
    await shop.finish(failed, "Sec", "failed")
    stopped = await shop.ask(visitor, "Three")
    await shop.finish(stopped, "Thi", "stopped")
    ask = await shop.ask(visitor, "Four")
    assert [(turn.role, turn.content) for turn in ask.history] == [
        ("user", "One"),
        ("assistant", "First"),
        ("user", "Two\n\nThree"),
        ("assistant", "Thi"),
        ("user", "Four"),
    ]


def test_turns_begin_with_the_visitor() -> None:
    rows = [
        LiveMessage(role=role, text=text, state="complete")
        for role, text in (("assistant", "Welcome"), ("visitor", "Hello"), ("person", "Hi"))
    ]
    turns = views.as_turns(rows)
    assert [(turn.role, turn.content) for turn in turns] == [("user", "Hello"), ("assistant", "Hi")]


async def test_a_text_of_blanks_is_refused_and_nothing_is_kept(shop: Shop) -> None:
    with pytest.raises(Invalid) as refused:
        await shop.ask(await shop.enter(), " \n\t ")
    assert refused.value.param == "text"
    assert await conversations(shop) == []


async def test_the_same_message_again_gets_the_answer_that_it_had(shop: Shop) -> None:
    visitor, mine = await shop.enter(), new_id()
    ask = await shop.ask(visitor, "Hello", client_id=mine)
    await shop.finish(ask, "Hi")
    again = await shop.post(visitor, "Hello", client_id=mine)
    assert isinstance(again, Repeated)
    assert (again.message.id, again.answer.id, again.answer.text) == (
        ask.message.id,
        ask.answer.id,
        "Hi",
    )
    assert len(await stored(shop)) == 2


@pytest.mark.parametrize("state", ["failed", "stopped"])
async def test_the_same_message_again_is_answered_anew_where_the_answer_failed(
    shop: Shop, state: Any
) -> None:
    visitor, mine = await shop.enter(), new_id()
    first = await shop.ask(visitor, "Hello", client_id=mine)
    await shop.finish(first, "H", state)
    second = await shop.ask(visitor, "Hello", client_id=mine)
    assert (second.message.id, second.answer.id) == (first.message.id, first.answer.id)
    await shop.finish(first, "the first try ends late", "stopped")
    await shop.finish(second, "Hi")
    assert [(row.text, row.state) for row in await stored(shop)] == [
        ("Hello", "complete"),
        ("Hi", "complete"),
    ]


async def test_the_same_message_twice_at_once_is_stored_once_and_answered_once(
    shop: Shop, database: Database
) -> None:
    """Also when another server gets the second, and for a visitor who never wrote before."""
    visitor, mine = await shop.enter(), new_id()
    elsewhere = Database(database.url.render_as_string(hide_password=False))
    caller = await shop.caller(visitor)
    request = MessageRequest(text="Hello", client_id=mine)

    async def post(through: Database) -> object:
        try:
            async with through.transaction() as session:
                return await service.post(session, caller, request)
        except Conflict as exc:
            return exc.code

    came = await asyncio.gather(*(post(through) for through in [database, elsewhere] * 3))
    await elsewhere.dispose()
    assert sum(isinstance(each, Ask) for each in came) == 1
    assert came.count("answer_in_progress") == 5
    assert len(await stored(shop)) == 2
    assert len(await conversations(shop)) == 1


async def test_different_messages_at_once_keep_their_numbers_apart(shop: Shop) -> None:
    visitor = await shop.enter()
    await asyncio.gather(*(shop.ask(visitor, f"Message {number}") for number in range(5)))
    rows = await stored(shop)
    assert [row.seq for row in rows] == list(range(1, 11))
    assert len(await conversations(shop)) == 1
    assert [row.state for row in rows].count("writing") == 1


async def test_a_new_message_stops_the_answer_before_it_which_keeps_what_had_come(
    shop: Shop,
) -> None:
    visitor = await shop.enter()
    first = await shop.ask(visitor, "One")
    await shop.ask(visitor, "Two")
    await shop.finish(first, "what had come", "complete")
    texts = [(row.text, row.state) for row in await stored(shop)]
    assert texts == [
        ("One", "complete"),
        ("what had come", "stopped"),
        ("Two", "complete"),
        ("", "writing"),
    ]


async def test_an_answer_whose_server_is_gone_can_be_asked_for_again(shop: Shop) -> None:
    visitor, mine = await shop.enter(), new_id()
    await shop.ask(visitor, "Hello", client_id=mine)
    with pytest.raises(Conflict) as refused:
        await shop.ask(visitor, "Hello", client_id=mine)
    assert refused.value.code == "answer_in_progress"
    async with shop.database.transaction() as session:
        long_ago = {"updated_at": now() - timedelta(minutes=3)}
        await session.execute(update(LiveMessage).values(long_ago))
    assert isinstance(await shop.post(visitor, "Hello", client_id=mine), Ask)


async def test_two_visitors_may_use_the_same_id(shop: Shop) -> None:
    mine = new_id()
    for name in ("One", "Two"):
        ask = await shop.ask(await shop.enter(), name, client_id=mine)
        assert ask.message.text == name


async def test_an_opinion_is_kept_changed_and_taken_back_and_its_conversation_counts_it(
    shop: Shop,
) -> None:
    visitor = await shop.enter()
    ask = await shop.talk(visitor, "Hello", "Hi")
    seen = await opinion(
        shop, visitor, ask.answer.id, vote="down", reasons=("wrong", "wrong"), text="No parcel"
    )
    assert (seen.opinion.vote, seen.opinion.reasons) == ("down", ["wrong"])
    await opinion(shop, visitor, ask.answer.id, vote="down", reasons=("unclear",))
    assert [each.thumbs_down for each in await conversations(shop)] == [1]
    await opinion(shop, visitor, ask.answer.id, vote="up", reasons=("unclear",))
    [_, row] = await stored(shop)
    assert (row.vote, row.vote_reasons) == ("up", [])
    assert [each.thumbs_down for each in await conversations(shop)] == [0]
    seen = await opinion(shop, visitor, ask.answer.id, vote=None)
    assert seen.opinion is None


async def test_an_opinion_is_of_ones_own_answers_alone(shop: Shop, open_shop: Any) -> None:
    visitor, other = await shop.enter(), await shop.enter()
    ask = await shop.talk(visitor, "Hello", "Hi")
    for who, what in (
        (other, ask.answer.id),
        (visitor, ask.message.id),
        (visitor, new_id()),
    ):
        with pytest.raises(NotFound):
            await opinion(shop, who, what, vote="up")
    elsewhere: Shop = await open_shop("other")
    with pytest.raises(NotFound):
        await opinion(elsewhere, await elsewhere.enter(), ask.answer.id, vote="up")


async def test_the_transcript_says_who_spoke_when(shop: Shop) -> None:
    visitor = await shop.enter()
    await shop.talk(visitor, "Hello", "Hi")
    caller = await shop.caller(visitor)
    async with shop.database.reading() as session:
        text = await service.transcript(session, caller)
    asked, answered = (f"{row.created_at:%Y-%m-%d %H:%M} UTC" for row in await stored(shop))
    assert text == f"You, {asked}:\nHello\n\nAcme (assistant), {answered}:\nHi\n"
    nobody = await shop.caller(await shop.enter())
    async with shop.database.reading() as session:
        with pytest.raises(NotFound):
            await service.transcript(session, nobody)


async def test_only_the_last_messages_are_shown(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr(service, "SHOWN", 3)
    visitor = await shop.enter()
    for number in range(3):
        await shop.talk(visitor, f"Question {number}", f"Answer {number}")
    assert await shop.seen(visitor) == ["Answer 1", "Question 2", "Answer 2"]


async def test_a_message_is_silent_while_a_person_has_the_conversation(shop: Shop) -> None:
    visitor = await shop.enter()
    await shop.talk(visitor, "Hello", "Hi")
    await shop.hand_off(visitor)
    mine = new_id()
    for _ in range(2):
        posted = await shop.post(visitor, "Are you there?", client_id=mine)
        assert isinstance(posted, Silent)
        assert posted.handoff.number == 1
    assert await shop.seen(visitor) == ["Hello", "Hi", "Are you there?"]
