import pytest

from server.db.models import Head
from server.db.scope import of_tenant
from server.errors import Conflict
from server.heads import service
from server.heads.service import Upload
from server.jobs.head_training import remove_abandoned, train_next
from server.tenants import service as tenants
from tests.server.heads.conftest import texts
from training.heads.examples import Labelled
from training.heads.package import verify


@pytest.fixture(autouse=True)
async def acme(make_tenant):
    return await make_tenant()


async def test_a_queued_head_is_trained_and_measured(make_head, settings):
    head = await make_head()
    assert (head.state, head.version, head.live, head.progress) == ("ready", 1, False, 1.0)
    manifest = verify(service.weights_folder(settings, head))
    assert manifest.labels == ("annoyed", "calm")
    assert head.manifest["scores"]["texts"] == manifest.scores.texts
    assert head.manifest["verdict"]["passed"]


async def test_what_a_person_can_mend_ends_it_as_failed(make_head):
    head = await make_head(examples=[*texts(), Labelled("Hm.", "odd")])
    assert head.state == "failed"
    assert head.error["code"] == "bad_input"
    assert "annoyance has two labels" in head.error["message"]


async def test_a_worker_goes_on_with_what_it_had_when_it_was_killed(context, acme):
    async with context.database.transaction() as session:
        row = await service.queue(
            session,
            acme,
            Upload(examples=texts()),
            task="annoyance",
            filename="a",
            settings=context.settings,
        )
        row.state, row.executor = "running", "here"
    assert not await train_next(context, executor="another")
    assert await train_next(context, executor="here")
    async with context.database.reading() as session:
        assert (await service.get(session, acme, "annoyance", 1)).state == "ready"


async def test_the_second_is_held_against_the_live_one(make_head, context, acme):
    await make_head()
    async with context.database.transaction() as session:
        await service.promote(session, acme, "annoyance", 1)
    second = await make_head()
    gates = [gate["name"] for gate in second.manifest["verdict"]["gates"]]
    assert gates == ["majority", "live"]
    async with context.database.transaction() as session:
        with pytest.raises(Conflict, match="do not say better"):
            await service.promote(session, acme, "annoyance", 2)
    async with context.database.transaction() as session:
        await service.promote(session, acme, "annoyance", 2, force=True)
        assert (await service.live(session, acme, "annoyance")).version == 2
    async with context.database.transaction() as session:
        assert (await service.roll_back(session, acme, "annoyance")).version == 1
        found = await service.list_for(session, acme)
        assert [row.version for row in found if row.live] == [1]
    async with context.database.transaction() as session:
        await service.retire(session, acme, "annoyance")
        assert await service.find_live(session, acme.id, "annoyance") is None
        assert (await service.roll_back(session, acme, "annoyance")).version == 1


async def test_no_more_than_a_few_wait(context, acme):
    async def queue():
        async with context.database.transaction() as session:
            await service.queue(
                session,
                acme,
                Upload(examples=texts()),
                task="annoyance",
                filename="a",
                settings=context.settings,
            )

    for _ in range(service.MAX_WAITING):
        await queue()
    with pytest.raises(Conflict, match="wait to be trained"):
        await queue()


async def test_files_go_with_their_tenant(make_head, context, settings):
    head = await make_head()
    await remove_abandoned(context)
    assert (settings.heads / head.tenant_id).is_dir()
    async with context.database.transaction() as session:
        await tenants.delete(session, "acme")
    await remove_abandoned(context)
    assert not (settings.heads / head.tenant_id).exists()
    async with context.database.reading() as session:
        assert await session.scalar(of_tenant(head.tenant_id).select(Head.id)) is None
