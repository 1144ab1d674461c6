"""What both databases must do alike."""

import asyncio
import json
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import IntegrityError

from server.db.migrate import SchemaError, alembic_config, head
from server.db.models import Adapter, ApiKey, Import, Job, Record, SourceFile, Tenant, new_id, now
from server.db.session import Database
from server.settings import Limits
from tests.databases import new_database, url_of


async def test_going_down_removes_everything_and_up_makes_it_again_as_a_new_database_has_it(
    database,
):
    async with database.engine.begin() as connection:
        new = await connection.run_sync(_described)
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync), "base"))
        assert (await connection.run_sync(_described)).keys() == {"alembic_version"}
    await database.migrate()
    async with database.engine.begin() as connection:
        assert await connection.run_sync(_described) == new
        await connection.run_sync(lambda sync: command.check(alembic_config(sync)))
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Tenant)) == 0
        assert await session.scalar(text("SELECT version_num FROM alembic_version")) == head()


def _described(connection: Connection) -> dict[str, Any]:
    """Each table's columns, keys, indexes and checks, in no order."""
    seen = inspect(connection)
    of = (
        seen.get_columns,
        seen.get_indexes,
        seen.get_unique_constraints,
        seen.get_foreign_keys,
        seen.get_check_constraints,
    )
    return {
        table: [sorted(map(_words, each(table))) for each in of]
        + [sorted(seen.get_pk_constraint(table).items(), key=str)]
        for table in seen.get_table_names()
    }


def _words(found: Any) -> str:
    options = {key: str(value) for key, value in found.get("dialect_options", {}).items()}
    return repr(sorted({**found, "dialect_options": options}.items()))


async def test_rows_of_the_first_schema_survive_its_successors(database):
    async with database.engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync), "0001"))
        at = {"at": now()}
        await connection.execute(
            text(
                "INSERT INTO tenant (id, slug, name, system_prompt, number_patterns, next_version,"
                " live_revision, created_at, updated_at)"
                " VALUES ('t', 'acme', 'Acme', '', '{}', 1, 0, :at, :at)"
            ),
            at,
        )
        await connection.execute(
            text(
                "INSERT INTO job (id, tenant_id, state, stage, base, recipe_name, recipe, seed,"
                " objectives, require_approval, cancel_requested, progress, attempts, created_at,"
                " updated_at) VALUES ('j', 't', 'succeeded', '', 'b', 'r', '{}', 1, '{}', false,"
                " false, '{}', 1, :at, :at)"
            ),
            at,
        )
    await database.migrate()
    async with database.reading() as session:
        job = (await session.scalars(select(Job))).one()
        tenant = (await session.scalars(select(Tenant))).one()
    assert (job.tenant_id, job.pause_requested, job.gpu_seconds) == ("t", False, 0)
    assert (tenant.allowlist, tenant.limits) == ([], None)


async def test_an_update_keeps_the_words_of_redaction_of_tenants_and_all_that_they_own(database):
    await _downgrade(database, "0004")
    async with database.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO tenant (id, slug, name, system_prompt, number_patterns, keep,"
                " next_version, live_revision, created_at, updated_at) VALUES ('t', 'acme',"
                """ 'Acme', '', '{"ORDER": "O-[0-9]+"}', '["@acme.example"]', 1, 0, :at, :at)"""
            ),
            {"at": now()},
        )
        await connection.execute(
            text(
                "INSERT INTO source_file (id, tenant_id, filename, sha256, size_bytes, created_at,"
                " updated_at) VALUES ('s', 't', 'f.csv', 'x', 1, :at, :at)"
            ),
            {"at": now()},
        )
    await database.migrate()
    async with database.reading() as session:
        tenant = (await session.scalars(select(Tenant))).one()
        source = (await session.scalars(select(SourceFile))).one()
    assert (tenant.custom_patterns, source.tenant_id) == ({"ORDER": "O-[0-9]+"}, "t")
    assert tenant.allowlist == ["@acme.example"]
    await _downgrade(database, "0004")
    async with database.engine.begin() as connection:
        raw = (await connection.execute(text("SELECT number_patterns FROM tenant"))).scalar_one()
        left = await connection.execute(text("SELECT id FROM source_file"))
    assert (json.loads(raw) if isinstance(raw, str) else raw) == {"ORDER": "O-[0-9]+"}
    assert left.scalars().all() == ["s"]


async def _downgrade(database: Database, revision: str) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync), revision))


async def test_processes_that_start_together_migrate_once(request, tmp_path, settings):
    if settings.database.startswith("sqlite"):
        url = f"sqlite+aiosqlite:///{tmp_path / 'deep' / 'new.sqlite'}"
    else:
        socket = request.getfixturevalue("postgres")
        url = url_of(socket, await new_database(socket)).replace("://", "+asyncpg://")
    processes = [Database(url) for _ in range(4)]
    await asyncio.gather(*(process.migrate() for process in processes))
    for process in processes:
        await process.dispose()


async def test_a_database_of_a_newer_version_is_left_alone_with_advice(database):
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="newer version"):
        await database.migrate()


async def test_an_exception_undoes_the_whole_transaction(database):
    async def fail() -> None:
        async with database.transaction() as session:
            session.add(Tenant(slug="acme", name="Acme"))
            await session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with database.reading() as session:
        assert (await session.scalars(select(Tenant))).all() == []


async def test_json_and_times_come_back_as_they_went_in(database):
    moment = now()
    patterns = {"ORDER": "é\\d+", "b": "x\x00y"}
    async with database.transaction() as session:
        session.add(Tenant(slug="acme", name="Acme", custom_patterns=patterns))
        session.add(ApiKey(prefix="tt_", sha256="0" * 64, scopes=["chat"], expires_at=moment))
    async with database.reading() as session:
        tenant = (await session.scalars(select(Tenant))).one()
        key = (await session.scalars(select(ApiKey))).one()
    # PostgreSQL has no NUL; both replace it, so that both hold the same
    assert tenant.custom_patterns == {"ORDER": "é\\d+", "b": "x\ufffdy"}
    assert key.expires_at == moment
    assert key.expires_at.utcoffset().total_seconds() == 0
    assert key.revoked_at is None


async def test_structs_are_stored_as_json_and_come_back_as_structs(database):
    limits = Limits(requests_per_minute=5)
    async with database.transaction() as session:
        session.add_all(
            [Tenant(slug="a1", name="", limits=limits), Tenant(slug="b2", name="", limits=None)]
        )
    async with database.reading() as session:
        stored = await session.execute(text("SELECT limits FROM tenant ORDER BY slug"))
        tenants = (await session.scalars(select(Tenant).order_by(Tenant.slug))).all()
    raw, null = stored.scalars().all()
    assert (json.loads(raw) if isinstance(raw, str) else raw) == {"requests_per_minute": 5}
    assert null is None
    assert [tenant.limits for tenant in tenants] == [limits, None]


async def test_what_a_newer_version_wrote_into_a_struct_is_ignored(database):
    newer = {"limits": '{"requests_per_minute": 5, "requests_per_year": 9}'}
    async with database.transaction() as session:
        session.add(Tenant(slug="acme", name=""))
        session.add(ApiKey(prefix="tt_", sha256="0" * 64))
        await session.flush()
        await session.execute(text("UPDATE tenant SET limits = :limits"), newer)
        await session.execute(text("UPDATE api_key SET limits = :limits"), newer)
    async with database.reading() as session:
        assert (await session.scalars(select(Tenant))).one().limits == Limits(requests_per_minute=5)
        assert (await session.scalars(select(ApiKey))).one().limits == Limits(requests_per_minute=5)


@pytest.mark.parametrize("stored", ['{"requests_per_minute": "five"}', "[5]"])
async def test_a_struct_that_cannot_be_read_is_told_with_its_column_and_value(database, stored):
    async with database.transaction() as session:
        session.add(ApiKey(prefix="tt_", sha256="0" * 64))
        await session.flush()
        await session.execute(text("UPDATE api_key SET limits = :limits"), {"limits": stored})
    async with database.reading() as session:
        with pytest.raises(ValueError, match=r"api_key\.limits holds .*(5|five)"):
            await session.scalars(select(ApiKey))


async def test_foreign_keys_and_unique_columns_are_enforced(database):
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            session.add(Job(tenant_id="0" * 32, base="b", recipe_name="r"))
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            session.add_all([Tenant(slug="a1", name=""), Tenant(slug="a1", name="")])


async def test_deleting_a_tenant_takes_all_its_rows_along_circles_included(database):
    async with database.transaction() as session:
        tenant = Tenant(slug="acme", name="Acme")
        session.add(tenant)
        await session.flush()
        source = SourceFile(tenant_id=tenant.id, filename="f", sha256="0" * 64, size_bytes=1)
        job = Job(tenant_id=tenant.id, base="b", recipe_name="r")
        session.add_all([source, job])
        await session.flush()
        adapter = Adapter(
            tenant_id=tenant.id,
            version=1,
            engine_name="acme.000000000000",
            base_name="b",
            base_sha256="0" * 64,
            job_id=job.id,
        )
        session.add_all([adapter, Import(tenant_id=tenant.id, source_file_id=source.id)])
        await session.flush()
        job.adapter_id = tenant.live_adapter_id = adapter.id
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM tenant WHERE slug = 'acme'"))
    async with database.reading() as session:
        for table in Record.metadata.sorted_tables:
            assert await session.scalar(select(func.count()).select_from(table)) == 0, table


async def test_writers_wait_for_each_other_and_none_is_lost(database):
    """Read, then write what was read plus one: wrong as soon as two overlap."""
    async with database.transaction() as session:
        session.add(Tenant(slug="acme", name="Acme"))
    second = Database(str(database.url.render_as_string(hide_password=False)))

    async def add_one(through: Database) -> None:
        async with through.transaction() as session:
            query = select(Tenant).where(Tenant.slug == "acme").with_for_update()
            tenant = (await session.scalars(query)).one()
            await asyncio.sleep(0.001)
            tenant.live_revision += 1

    await asyncio.gather(*(add_one(through) for through in [database, second] * 10))
    await second.dispose()
    async with database.reading() as session:
        assert await session.scalar(select(Tenant.live_revision)) == 20


async def test_readers_see_the_last_commit_while_a_writer_is_at_work(database):
    async with database.transaction() as session:
        session.add(Tenant(slug="acme", name="old"))
    async with database.transaction() as session:
        await session.execute(text("UPDATE tenant SET name = 'new'"))
        async with asyncio.timeout(2), database.reading() as other:
            assert await other.scalar(select(Tenant.name)) == "old"


async def test_ids_are_unique_and_sort_by_time(database):
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(made) for made in ids} == {32}
    first = new_id()
    await asyncio.sleep(0.002)
    assert first < new_id()
