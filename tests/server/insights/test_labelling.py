"""Messages of the widget's visitors, labelled by a live head in the encoder's own process."""

from collections.abc import AsyncIterator

import pytest

from server.conversations import inbox
from server.db.models import LiveConversation, MessageLabel
from server.db.scope import of_tenant
from server.errors import Conflict
from server.heads import service as heads
from server.insights.labelling import Labelling, counts
from server.tenants import service as tenants
from tests.server.conversations.conftest import open_shop, shop, vault
from tests.server.embeddings.test_service import running
from tests.server.heads.conftest import context, database_url, make_head, settings

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
