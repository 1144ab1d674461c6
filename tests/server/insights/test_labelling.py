"""Messages of the widget's visitors, labelled by a live head in the encoder's own process."""

from collections.abc import AsyncIterator

import pytest

from server.conversations import handoffs, inbox
from server.conversations.schemas import Said
from server.db.models import AuditEntry, Handoff, LiveConversation, MessageLabel
from server.db.scope import of_tenant
from server.errors import Conflict
from server.heads import rules
from server.heads import service as heads
from server.heads.schemas import Rule
from server.insights.labelling import Labelling, counts
from server.jobs.head_training import train_next
from server.tenants import service as tenants
from tests.server.conversations.conftest import open_shop, shop, vault
from tests.server.embeddings.test_service import running
from tests.server.heads.conftest import context, database_url, make_head, settings, texts

__all__ = ["context", "database_url", "make_head", "open_shop", "settings", "shop", "vault"]


@pytest.fixture
async def tenant(shop, database):
    async with database.reading() as session:
        return await tenants.get(session, "acme")


@pytest.fixture
async def labelling(database, settings) -> AsyncIterator[Labelling]:
    async with running(settings.run / "embeddings") as embeddings:
        yield Labelling(database, embeddings, settings)


async def put_live(make_head, database, tenant):
    head = await make_head()
    async with database.transaction() as session:
        await heads.promote(session, tenant, "annoyance", head.version)
    return head


async def labels_of(database, tenant) -> list[MessageLabel]:
    async with database.reading() as session:
        query = of_tenant(tenant.id).select(MessageLabel).order_by(MessageLabel.message_id)
        return list(await session.scalars(query))


async def test_messages_are_labelled_once_and_kept_with_the_head(
    shop, make_head, database, tenant, labelling
):
    visitor = await shop.enter()
    await shop.talk(visitor, "This is ridiculous and awful", "Sorry")
    await shop.talk(visitor, "Please kindly help", "Of course")
    assert await labelling.label_all() == 0  # no head is live
    head = await put_live(make_head, database, tenant)
    assert await labelling.label_all() == 2
    assert await labelling.label_all() == 0
    found = await labels_of(database, tenant)
    assert [row.label for row in found] == ["annoyed", "calm"]
    assert {(row.head_version, row.head_sha256) for row in found} == {(1, head.sha256)}
    await shop.talk(visitor, "awful ridiculous", "Sorry")
    assert await labelling.label_all() == 1
    async with database.reading() as session:
        [talk] = await inbox.list_conversations(session, tenant.id, queue="annoyed")
        assert talk.annoyed == 2
        assert (await inbox.count(session, tenant.id)).annoyed == 1
        opened = await inbox.read(session, tenant.id, talk.id)
        [said] = opened.messages[0].labels
        assert (said.task, said.label, said.version) == ("annoyance", "annoyed", 1)
        assert opened.messages[1].labels == []  # the assistant's
        per_day = await counts(session, tenant.id, days=1)
    assert {(each.label, each.messages) for each in per_day} == {("annoyed", 2), ("calm", 1)}


async def test_a_restart_labels_what_came_meanwhile_and_nothing_twice(
    shop, make_head, database, tenant, *, labelling, settings
):
    visitor = await shop.enter()
    await shop.talk(visitor, "Please kindly help", "Of course")
    await put_live(make_head, database, tenant)
    assert await labelling.label_all() == 1
    await shop.talk(visitor, "awful ridiculous", "Sorry")
    again = Labelling(database, labelling._embeddings, settings)
    assert await again.label_all() == 1
    assert len(await labels_of(database, tenant)) == 2


async def test_a_damaged_head_labels_nothing_and_says_so(
    shop, make_head, database, tenant, *, labelling, settings
):
    visitor = await shop.enter()
    await shop.talk(visitor, "Please kindly help", "Of course")
    head = await put_live(make_head, database, tenant)
    weights = heads.weights_folder(settings, head) / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Conflict, match="hashes differ"):
        await labelling.label_all()
    assert await labels_of(database, tenant) == []


async def test_a_conversation_that_is_deleted_takes_its_labels_along(
    shop, make_head, database, tenant, labelling
):
    visitor = await shop.enter()
    await shop.talk(visitor, "Please kindly help", "Of course")
    await put_live(make_head, database, tenant)
    await labelling.label_all()
    async with database.transaction() as session:
        await session.execute(of_tenant(tenant.id).delete(LiveConversation))
    assert await labels_of(database, tenant) == []


async def add_rule(database, tenant, label: str = "annoyed", at_least: float = 0.5) -> None:
    async with database.transaction() as session:
        await rules.replace(session, tenant, "annoyance", [Rule(label=label, at_least=at_least)])


async def handoffs_of(database, tenant) -> list[Handoff]:
    async with database.reading() as session:
        return list(await session.scalars(of_tenant(tenant.id).select(Handoff)))


async def test_a_rule_hands_a_conversation_over_once_and_tells_why(
    shop, make_head, database, tenant, labelling
):
    await put_live(make_head, database, tenant)
    await add_rule(database, tenant)
    visitor = await shop.enter(said=Said(name="Kim", email="kim@mail.example"))
    await shop.talk(visitor, "Please kindly help", "Of course")
    await labelling.label_all()
    assert await handoffs_of(database, tenant) == []
    await shop.talk(visitor, "This is ridiculous and awful", "Sorry")
    await labelling.label_all()
    [handoff] = await handoffs_of(database, tenant)
    assert (handoff.state, handoff.email) == ("open", "kim@mail.example")
    assert handoff.reason.startswith("annoyance: annoyed, ")
    posted = await shop.post(visitor, "awful ridiculous")
    assert posted.handoff.number == handoff.number  # the assistant is silent
    await labelling.label_all()
    assert len(await handoffs_of(database, tenant)) == 1
    async with database.reading() as session:
        query = of_tenant(tenant.id).select(AuditEntry)
        query = query.where(AuditEntry.action == "conversation.passed_on")
        [entry] = await session.scalars(query)
        assert entry.actor_kind == "system"
        [talk] = await inbox.list_conversations(session, tenant.id, queue="needs_person")
        opened = await inbox.read(session, tenant.id, talk.id)
    assert opened.handoff is not None
    assert opened.handoff.reason == handoff.reason


async def test_a_visitor_without_an_address_stands_in_the_queue_and_is_answered_on(
    shop, make_head, database, tenant, labelling
):
    await put_live(make_head, database, tenant)
    await add_rule(database, tenant)
    visitor = await shop.enter()
    await shop.talk(visitor, "This is ridiculous and awful", "Sorry")
    await labelling.label_all()
    assert await handoffs_of(database, tenant) == []
    async with database.reading() as session:
        [talk] = await inbox.list_conversations(session, tenant.id, queue="needs_person")
    assert talk.look_reason.startswith("annoyance: annoyed, ")
    await shop.ask(visitor, "Please kindly help")  # an answer is being written
    async with database.transaction() as session:
        await inbox.answer(session, tenant.id, talk.id, text="I am Ana.", author="person:1")
    async with database.reading() as session:
        assert await inbox.list_conversations(session, tenant.id, queue="needs_person") == []


async def test_a_rule_leaves_alone_what_was_written_before_it_or_is_less_probable(
    shop, make_head, database, tenant, labelling
):
    visitor = await shop.enter(said=Said(email="kim@mail.example"))
    await shop.talk(visitor, "This is ridiculous and awful", "Sorry")
    await put_live(make_head, database, tenant)  # seven days are labelled, and not handed over
    await add_rule(database, tenant)
    assert await labelling.label_all() == 1
    assert await handoffs_of(database, tenant) == []
    await add_rule(database, tenant, at_least=1.0)
    await shop.talk(visitor, "ridiculous stone", "Sorry")
    await labelling.label_all()
    assert await handoffs_of(database, tenant) == []


async def test_what_a_person_gave_back_is_handed_over_by_later_messages_alone(
    shop, make_head, database, tenant, labelling
):
    await put_live(make_head, database, tenant)
    await add_rule(database, tenant)
    visitor = await shop.enter(said=Said(email="kim@mail.example"))
    await shop.talk(visitor, "Please kindly help", "Of course")
    await shop.hand_off(visitor)
    await shop.post(visitor, "awful ridiculous")
    async with database.transaction() as session:
        [talk] = await inbox.list_conversations(session, tenant.id)
        await handoffs.give_back(session, tenant.id, talk.id, actor="person:1")
    await labelling.label_all()
    assert [row.state for row in await handoffs_of(database, tenant)] == ["given_back"]
    await shop.talk(visitor, "awful ridiculous", "Sorry")
    await labelling.label_all()
    assert sorted(row.state for row in await handoffs_of(database, tenant)) == [
        "given_back",
        "open",
    ]


async def put_shared_live(context, database):
    async with database.transaction() as session:
        await heads.queue(
            session,
            None,
            heads.Upload(examples=texts()),
            task="annoyance",
            filename="a.jsonl",
            settings=context.settings,
        )
    assert await train_next(context, executor="here")
    async with database.transaction() as session:
        await heads.promote(session, None, "annoyance", 1)


async def test_a_shared_head_labels_for_tenants_without_an_own_one_that_want_it(
    open_shop, context, database, labelling, make_head
):
    shops = {slug: await open_shop(slug) for slug in ("acme", "own", "off")}
    rows = {}
    async with database.reading() as session:
        for slug in shops:
            rows[slug] = await tenants.get(session, slug)
    await put_shared_live(context, database)
    own = await make_head("own")
    async with database.transaction() as session:
        await heads.promote(session, rows["own"], "annoyance", own.version)
        await heads.use_shared(session, rows["off"], "annoyance", use=False)
    for each in shops.values():
        await each.talk(await each.enter(), "This is ridiculous and awful", "Sorry")
    assert await labelling.label_all() == 2
    assert await labelling.label_all() == 0
    found = {slug: await labels_of(database, row) for slug, row in rows.items()}
    assert {slug: [each.is_shared for each in labels] for slug, labels in found.items()} == {
        "acme": [True],
        "own": [False],
        "off": [],
    }
    async with database.transaction() as session:
        await heads.use_shared(session, rows["off"], "annoyance", use=True)
    assert await labelling.label_all() == 1
    async with database.reading() as session:
        [talk] = await inbox.list_conversations(session, rows["acme"].id, queue="annoyed")
        opened = await inbox.read(session, rows["acme"].id, talk.id)
    assert opened.messages[0].labels[0].shared
