"""Dataset versions as pages list and compare them; on both databases."""

import json

import pytest

from server.datasets import versions
from server.db.models import Adapter, DatasetVersion
from server.errors import NotFound

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
async def acme(make_tenant):
    return await make_tenant("acme")


@pytest.fixture
def add(database):
    async def add(tenant, sha256: str, **fields) -> DatasetVersion:
        async with database.transaction() as session:
            row = DatasetVersion(tenant_id=tenant.id, sha256=sha256, **fields)
            session.add(row)
        return row

    return add


@pytest.fixture
def write(settings):
    """Write the files of a version: a list of texts for each split."""

    def write(sha256: str, **splits: list[str]) -> None:
        folder = settings.datasets / sha256
        folder.mkdir(parents=True)
        for split in ("train", "validation", "test"):
            lines = [
                json.dumps({"id": text, "messages": [{"role": "user", "content": text}]})
                for text in splits.get(split, [])
            ]
            (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))

    return write


async def test_versions_are_listed_with_what_learnt_from_them(acme, make_tenant, add, database):
    old = await add(acme, OLD, counts={"train": 8}, manifest={"dropped": {"unanswered": 0}})
    new = await add(acme, NEW, counts={"train": 9}, manifest={"dropped": {"unanswered": 2}})
    await add(await make_tenant("other"), OLD)
    async with database.transaction() as session:
        for version, state in ((1, "ready"), (2, "deleted"), (3, "candidate")):
            session.add(
                Adapter(
                    tenant_id=acme.id,
                    version=version,
                    engine_name=f"acme.{version}",
                    base_name="b",
                    base_sha256="0" * 64,
                    dataset_id=old.id,
                    state=state,
                )
            )
    async with database.reading() as session:
        newest, first = await versions.list_versions(session, acme)
        rest = await versions.list_versions(session, acme, after=new.id)
        assert [each.sha256 for each in rest] == [OLD]
    assert (newest.kept, newest.dropped, list(newest.models)) == (9, {"unanswered": 2}, [])
    assert (first.kept, first.dropped, list(first.models)) == (8, {}, ["acme@1", "acme@3"])
    assert versions.to_csv([first]).splitlines()[1].startswith(OLD.encode() + b",8,0,0,0,")


async def test_what_differs_is_said_from_the_older_to_the_newer(
    acme, add, database, write, *, settings
):
    await add(acme, OLD, manifest={"system_prompt": "one"}, import_ids=["1" * 32, "2" * 32])
    await add(acme, NEW, manifest={"system_prompt": "two"}, import_ids=["2" * 32, "3" * 32])
    write(OLD, train=["a", "b", "c"], test=["d"])
    write(NEW, train=["a", "b", "d"], test=["e" * 500])
    async with database.reading() as session:
        found = await versions.compare(session, acme, (NEW, OLD))
    assert (found.older.sha256, found.newer.sha256) == (OLD, NEW)
    assert found.prompts == ("one", "two")
    assert found.imports_added == found.imports_removed == ["a deleted upload"]
    moved = await versions.find_moved(found, settings=settings)
    assert moved is not None
    assert (moved.both, moved.moved, moved.added_count, moved.removed_count) == (3, 1, 1, 1)
    assert moved.removed == ["c"]
    assert moved.added == ["e" * 200 + "…"]


async def test_versions_without_files_or_with_large_ones_are_compared_by_their_figures(
    acme, add, database, write, *, settings, monkeypatch
):
    await add(acme, OLD)
    await add(acme, NEW, import_ids=[])
    write(OLD, train=["a"])
    async with database.reading() as session:
        found = await versions.compare(session, acme, (OLD, NEW))
    assert found.imports_added is None
    assert await versions.find_moved(found, settings=settings) is None
    write(NEW, train=["b"])
    assert await versions.find_moved(found, settings=settings) is not None
    monkeypatch.setattr(versions, "COMPARED_BYTES", 10)
    assert await versions.find_moved(found, settings=settings) is None


async def test_another_tenants_version_is_not_there(acme, make_tenant, add, database):
    await add(acme, OLD)
    await add(await make_tenant("other"), NEW)
    async with database.reading() as session:
        with pytest.raises(NotFound):
            await versions.compare(session, acme, (OLD, NEW))
