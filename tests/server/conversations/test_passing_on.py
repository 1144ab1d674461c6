"""Talking to a person: stored, told to the tenant's webhooks, and the assistant silent until then."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from server.conversations import handoffs, passing_on
from server.conversations.schemas import HandoffPreview, Said
from server.conversations.service import Ask, Silent
from server.db.models import Handoff, LiveConversation, WebhookDelivery
from server.errors import Invalid, NotFound, TooMany
from server.webhooks import service as webhooks
from server.webhooks.schemas import WebhookRequest
from tests.server.conversations.conftest import Shop


async def listen(shop: Shop) -> None:
    request = WebhookRequest(url="https://help.example/hook")
    async with shop.database.transaction() as session:
        await webhooks.create(session, request, slug=shop.slug, private=False, vault=shop.vault)


async def events(shop: Shop) -> list[dict[str, Any]]:
    async with shop.database.reading() as session:
        return list(await session.scalars(select(WebhookDelivery.event)))


async def preview(shop: Shop, answer: Any) -> HandoffPreview:
    caller = await shop.caller(answer)
    async with shop.database.reading() as session:
        return await passing_on.preview(session, caller)


async def give_back(shop: Shop, conversation_id: str) -> None:
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.transaction() as session:
        await handoffs.give_back(session, tenant_id, conversation_id, actor="person:1")


async def the_conversation(shop: Shop) -> LiveConversation:
    async with shop.database.reading() as session:
        return (await session.scalars(select(LiveConversation))).one()


async def test_what_is_passed_on_is_shown_before_it_is_sent(shop: Shop) -> None:
    await shop.change(handoff_hours="Mon to Fri, 9 to 17", handoff_expected="within a day")
    visitor = await shop.enter()
    seen = await preview(shop, visitor)
    assert (seen.topic, seen.tried, seen.messages) == ("", "", 0)
    await shop.talk(visitor, "Where is it?", "x" * 300)
    seen = await preview(shop, visitor)
    assert (seen.topic, seen.tried, seen.messages) == ("Where is it?", "x" * 200 + "…", 2)
    assert (seen.hours, seen.expected) == ("Mon to Fri, 9 to 17", "within a day")


async def test_a_hand_off_is_stored_and_told_to_the_webhooks(shop: Shop) -> None:
    await listen(shop)
    await shop.change(handoff_expected="within a day")
    visitor = await shop.enter(said=Said(name="Kim"))
    await shop.talk(visitor, "Where is it?", "On its way.")
    made = await shop.hand_off(visitor, email=" kim@mail.example ", note="It is late.", copy=True)
    assert (made.number, made.email, made.expected, made.state) == (
        1,
        "kim@mail.example",
        "within a day",
        "open",
    )
    [event] = await events(shop)
    assert event["type"] == "conversation.handoff.created"
    data = event["data"]
    assert (data["number"], data["email"], data["note"], data["copy"]) == (
        1,
        "kim@mail.example",
        "It is late.",
        True,
    )
    assert data["conversation"] == (await the_conversation(shop)).id
    assert [(each["role"], each["text"]) for each in data["messages"]] == [
        ("visitor", "Where is it?"),
        ("assistant", "On its way."),
    ]
    visitor_seen = data["visitor"]
    assert (visitor_seen["verified"], visitor_seen["says_name"], visitor_seen["name"]) == (
        False,
        "Kim",
        None,
    )


async def test_it_works_before_the_first_message_if_it_says_what_it_is_about(shop: Shop) -> None:
    visitor = await shop.enter()
    with pytest.raises(Invalid) as refused:
        await shop.hand_off(visitor, note=" ")
    assert refused.value.param == "note"
    await shop.hand_off(visitor, note="My order never came.")
    assert (await the_conversation(shop)).topic == "My order never came."


@pytest.mark.parametrize(
    "email",
    ["", "kim", "kim@", "@mail.example", "kim@mail", "a b@mail.example", "a@b.example,c@d.example",
     "kim@mail.example\nbcc: all@mail.example", "<kim@mail.example>"],
)  # fmt: skip
async def test_an_address_that_is_none_is_refused_at_its_field(shop: Shop, email: str) -> None:
    with pytest.raises(Invalid) as refused:
        await shop.hand_off(await shop.enter(), email=email, note="Help")
    assert refused.value.param == "email"


async def test_the_assistant_is_silent_until_it_is_given_back(shop: Shop) -> None:
    visitor = await shop.enter()
    writing = await shop.ask(visitor, "Hello")
    await shop.hand_off(visitor, note="A person, please.")
    await shop.finish(writing, "He")
    assert isinstance(await shop.post(visitor, "Are you there?"), Silent)
    conversation = await the_conversation(shop)
    assert conversation.state == "handed_over"
    await give_back(shop, conversation.id)
    await give_back(shop, conversation.id)
    async with shop.database.reading() as session:
        row = (await session.scalars(select(Handoff))).one()
    assert (row.state, row.given_back_by) == ("given_back", "person:1")
    posted = await shop.post(visitor, "And now?")
    assert isinstance(posted, Ask)
    assert posted.history[-1].content == "Are you there?\n\nAnd now?"
    assert [turn.content for turn in posted.history[:2]] == ["Hello", "He"]


async def test_asked_twice_it_is_one_hand_off_also_at_once(shop: Shop) -> None:
    await listen(shop)
    visitor = await shop.enter()
    made = await asyncio.gather(*(shop.hand_off(visitor, note="Help") for _ in range(4)))
    assert {each.number for each in made} == {1}
    assert len(await events(shop)) == 1


async def test_numbers_count_for_each_tenant(shop: Shop, open_shop: Any) -> None:
    other: Shop = await open_shop("other")
    made = await asyncio.gather(
        *[shop.hand_off(await shop.enter(), note="Help") for _ in range(3)],
        other.hand_off(await other.enter(), note="Help"),
    )
    assert sorted(each.number for each in made[:3]) == [1, 2, 3]
    assert made[3].number == 1


async def test_given_back_it_can_be_handed_over_again(shop: Shop) -> None:
    visitor = await shop.enter()
    await shop.hand_off(visitor, note="Help")
    await give_back(shop, (await the_conversation(shop)).id)
    assert (await shop.hand_off(visitor, note="Help again")).number == 2


async def test_another_tenants_conversation_cannot_be_given_back(
    shop: Shop, open_shop: Any
) -> None:
    other: Shop = await open_shop("other")
    await shop.hand_off(await shop.enter(), note="Help")
    conversation = await the_conversation(shop)
    with pytest.raises(NotFound):
        await give_back(other, conversation.id)
    assert (await the_conversation(shop)).state == "handed_over"


async def test_hand_offs_are_bounded_by_visitor_and_by_address(shop: Shop) -> None:
    """Each may make somebody's help desk write to an address that the visitor chose."""
    visitor = await shop.enter()
    for _ in range(5):
        await shop.hand_off(visitor, note="Help")
        await give_back(shop, (await the_conversation(shop)).id)
    with pytest.raises(TooMany) as refused:
        await shop.hand_off(visitor, note="Help")
    assert refused.value.code == "limit_reached"
    assert (await the_conversation(shop)).state == "open"


# --- where nothing supports an answer ---


async def pass_on_unsupported(shop: Shop, visitor: Any, text: str = "Nonsense") -> Any:
    """What comes of an answer that nothing supports; None where it cannot be passed on."""
    ask = await shop.ask(visitor, text)
    if not await shop.finish(ask, "No idea.", needs_person=True):
        return None
    caller = await shop.caller(visitor)
    async with shop.database.transaction() as session:
        return await passing_on.pass_on_unsupported(session, caller, ask.conversation_id)


async def test_what_nothing_supports_is_handed_off_as_where_a_visitor_asks(shop: Shop) -> None:
    await listen(shop)
    await shop.change(handoff_expected="within a day")
    visitor = await shop.enter(said=Said(name="Kim", email="kim@mail.example"))
    made = await pass_on_unsupported(shop, visitor)
    assert (made.number, made.email, made.expected) == (1, "kim@mail.example", "within a day")
    [event] = await events(shop)
    data = event["data"]
    assert event["type"] == "conversation.handoff.created"
    assert (data["unsupported"], data["note"], data["copy"]) == (True, "", False)
    assert [each["text"] for each in data["messages"]] == ["Nonsense", "No idea."]
    assert isinstance(await shop.post(visitor, "Are you there?"), Silent)
    conversation = await the_conversation(shop)
    assert (conversation.state, conversation.unsupported_since) == ("handed_over", None)
    caller = await shop.caller(visitor)
    async with shop.database.transaction() as session:  # as a write that is tried again
        again = await passing_on.pass_on_unsupported(session, caller, conversation.id)
    assert again == made
    assert len(await events(shop)) == 1


async def test_without_an_address_it_waits_for_a_person_and_nobody_is_told(shop: Shop) -> None:
    await listen(shop)
    visitor = await shop.enter()
    assert await pass_on_unsupported(shop, visitor) is None
    conversation = await the_conversation(shop)
    assert (conversation.state, conversation.unsupported_since is None) == ("open", False)
    assert await events(shop) == []
    assert (await shop.hand_off(visitor)).number == 1  # as the visitor is offered
    [event] = await events(shop)
    assert event["data"]["unsupported"] is True


async def test_a_visitor_s_nonsense_cannot_make_more_hand_offs_than_their_wishes(
    shop: Shop,
) -> None:
    visitor = await shop.enter(said=Said(email="kim@mail.example"))
    for number in range(1, 6):
        assert (await pass_on_unsupported(shop, visitor)).number == number
        await give_back(shop, (await the_conversation(shop)).id)
    assert await pass_on_unsupported(shop, visitor) is None
    assert (await the_conversation(shop)).unsupported_since is not None
    with pytest.raises(TooMany):
        await shop.hand_off(visitor)


async def test_what_a_newer_message_stopped_is_not_passed_on(shop: Shop) -> None:
    visitor = await shop.enter(said=Said(email="kim@mail.example"))
    old = await shop.ask(visitor, "Nonsense")
    newer = await shop.ask(visitor, "Where is it?")
    assert not await shop.finish(old, "No idea.", needs_person=True)
    assert await shop.finish(newer, "No idea either.", needs_person=True)
