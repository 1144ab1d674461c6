"""Better answers that people wrote become what the next dataset version teaches."""

import pytest
from sqlalchemy import update

from connectors.conversation import Role
from server.conversations import handoffs, inbox
from server.conversations.schemas import Said
from server.conversations.service import Ask
from server.datasets import corrections, creation
from server.db.models import ConversationRow, Import, LiveMessage, SourceFile
from server.settings import Settings
from tests.server.conversations.conftest import OpenShop, Shop, open_shop, shop, vault
from training.data.dataset import Example
from training.data.dataset import load as load_dataset

__all__ = ["open_shop", "shop", "vault"]

THINGS = [
    "hat",
    "lamp",
    "sofa",
    "kettle",
    "ladder",
    "mirror",
    "carpet",
    "drill",
    "teapot",
    "bicycle",
    "zither",
    "anvil",
]


async def tenant_id_of(shop: Shop) -> str:
    return (await shop.site()).tenant.id


async def bring_transcripts(shop: Shop) -> None:
    """A dozen conversations that were imported."""
    tenant_id = await tenant_id_of(shop)
    async with shop.database.transaction() as session:
        source = SourceFile(tenant_id=tenant_id, filename="a", sha256="0" * 64, size_bytes=1)
        session.add(source)
        await session.flush()
        made = Import(tenant_id=tenant_id, source_file_id=source.id, state="done")
        session.add(made)
        await session.flush()
        for number, thing in enumerate(THINGS):
            turns = [
                {"role": "customer", "text": f"Where is my {thing} {thing[::-1]}?"},
                {"role": "agent", "text": f"The {thing} left us on day {number}."},
            ]
            body = {"id": str(number), "turns": turns}
            session.add(
                ConversationRow(
                    tenant_id=tenant_id,
                    import_id=made.id,
                    external_id=str(number),
                    digest=f"{number:064x}",
                    body=body,
                )
            )


async def correct(shop: Shop, ask: Ask, text: str) -> None:
    tenant_id = await tenant_id_of(shop)
    async with shop.database.transaction() as session:
        await inbox.correct(session, tenant_id, ask.answer.id, text, actor="person:1")


async def trained_on(shop: Shop, settings: Settings) -> list[Example]:
    """The training split of a dataset version that is made now."""
    made = await creation.create_version(shop.database, await tenant_id_of(shop), settings=settings)
    return load_dataset(settings.datasets / made.sha256).read("train")


async def test_a_better_answer_is_in_the_next_dataset_without_personal_data(
    shop: Shop, settings: Settings
) -> None:
    await bring_transcripts(shop)
    before = {example.id for example in await trained_on(shop, settings)}
    visitor = await shop.enter(said=Said(name="Kim Vervoort"))
    await shop.talk(visitor, "I am Kim Vervoort, kim@mail.example", "Hello Kim")
    ask = await shop.talk(visitor, "Can I send roses back?", "No idea")
    await shop.talk(visitor, "Thanks", "Bye")
    assert {example.id for example in await trained_on(shop, settings)} == before

    await correct(shop, ask, "Within 14 days, Kim Vervoort. Write to kim@mail.example.")
    [learnt] = [each for each in await trained_on(shop, settings) if each.id not in before]
    assert [(each.role, each.content, each.weight) for each in learnt.messages] == [
        ("user", "I am [NAME_1], [EMAIL_1]", 1),
        ("assistant", "Hello [NAME_1]", 0),
        ("user", "Can I send roses back?", 1),
        ("assistant", "Within 14 days, [NAME_1]. Write to [EMAIL_1].", 1),
    ]
    await correct(shop, ask, "")
    assert {example.id for example in await trained_on(shop, settings)} == before


async def test_each_better_answer_ends_a_conversation_of_its_own(shop: Shop) -> None:
    visitor = await shop.enter()
    first = await shop.talk(visitor, "First?", "Poor")
    second = await shop.talk(visitor, "Second?", "Poorer")
    await shop.talk(visitor, "Third?", "Fine")
    await correct(shop, first, "Good")
    await correct(shop, second, "Better")
    async with shop.database.reading() as session:
        tenant_id = await tenant_id_of(shop)
        assert await corrections.count(session, tenant_id) == 2
        found = await corrections.read(session, tenant_id)
    assert [each.split for each in found] == ["train", "train"]
    assert [[(turn.role, turn.text, turn.weight) for turn in each.turns] for each in found] == [
        [(Role.CUSTOMER, "First?", 1), (Role.AGENT, "Good", 1)],
        [
            (Role.CUSTOMER, "First?", 1),
            (Role.AGENT, "Poor", 0),
            (Role.CUSTOMER, "Second?", 1),
            (Role.AGENT, "Better", 1),
        ],
    ]


async def test_what_failed_or_came_after_the_question_is_not_part_of_it(shop: Shop) -> None:
    visitor = await shop.enter()
    lost = await shop.ask(visitor, "Lost?")
    await shop.finish(lost, "half an ans", "failed")
    await shop.hand_off(visitor)
    await shop.post(visitor, "Anybody?", client_id="the-question")
    tenant_id = await tenant_id_of(shop)
    async with shop.database.transaction() as session:
        [conversation] = await inbox.list_conversations(session, tenant_id)
        await inbox.answer(session, tenant_id, conversation.id, "A person.", author="person:1")
        await handoffs.give_back(session, tenant_id, conversation.id, actor="person:1")
    again = await shop.ask(visitor, "Anybody?", client_id="the-question")  # answered only now
    await shop.finish(again, "Here I am.")
    await correct(shop, again, "Yes, ask.")
    async with shop.database.reading() as session:
        [found] = await corrections.read(session, tenant_id)
    assert [turn.text for turn in found.turns] == ["Lost?", "Anybody?", "Yes, ask."]


async def test_the_newest_conversations_and_messages_are_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrections, "MAX_CORRECTED", 1)
    monkeypatch.setattr(corrections, "CONTEXT_MESSAGES", 3)
    for name in ("Old", "New"):
        visitor = await shop.enter()
        for number in range(3):
            ask = await shop.talk(visitor, f"{name} {number}?", "Poor")
        await correct(shop, ask, "Good")
    async with shop.database.reading() as session:
        [found] = await corrections.read(session, await tenant_id_of(shop))
    assert [turn.text for turn in found.turns] == ["New 1?", "Poor", "New 2?", "Good"]


async def test_another_tenant_learns_nothing_of_it(shop: Shop, open_shop: OpenShop) -> None:
    other = await open_shop("other")
    await correct(shop, await shop.talk(await shop.enter(), "First?", "Poor"), "Good")
    tenant_id = await tenant_id_of(other)
    async with shop.database.transaction() as session:
        assert await corrections.count(session, tenant_id) == 0
        assert await corrections.read(session, tenant_id) == []


async def test_an_answer_whose_question_is_gone_is_let_be(shop: Shop) -> None:
    ask = await shop.talk(await shop.enter(), "First?", "Poor")
    await correct(shop, ask, "Good")
    async with shop.database.transaction() as session:
        await session.execute(update(LiveMessage).values(reply_to="0" * 32))
        assert await corrections.read(session, await tenant_id_of(shop)) == []
