"""Queries see the rows of their tenant."""

import pytest
from sqlalchemy import func, literal, select, true
from sqlalchemy.exc import NoResultFound

from server.db.models import (
    ApiKey,
    File,
    Membership,
    Person,
    Tenant,
    Upload,
    UploadPart,
    now,
)
from server.db.scope import across_tenants, of_installation, of_operator, of_tenant


@pytest.fixture
async def two(database):
    """Two tenants, each with a file ``<name>``, an upload and a key; and a key of the operator."""
    made = {}
    async with database.transaction() as session:
        for name in ("ours", "theirs"):
            tenant = Tenant(slug=name, name=name)
            session.add(tenant)
            await session.flush()
            file = File(
                tenant_id=tenant.id, sha256=name, size_bytes=1, filename=name, purpose="batch"
            )
            upload = Upload(
                tenant_id=tenant.id,
                filename=name,
                purpose="batch",
                mime_type="",
                size_bytes=1,
                expires_at=now(),
            )
            session.add_all([file, upload])
            await session.flush()
            part = UploadPart(tenant_id=tenant.id, upload_id=upload.id, sha256=name, size_bytes=1)
            key = ApiKey(tenant_id=tenant.id, prefix=name, sha256=name, label=name)
            session.add_all([part, key])
            made[name] = tenant.id, file.id
        session.add(ApiKey(prefix="", sha256="operator", label="operator"))
    return made


async def test_rows_columns_and_aggregates_are_the_tenants(database, two):
    mine = of_tenant(two["ours"][0])
    async with database.reading() as session:
        assert [row.filename for row in await session.scalars(mine.select(File))] == ["ours"]
        assert list(await session.scalars(mine.select(File.filename))) == ["ours"]
        assert await session.scalar(mine.select(func.count(File.id))) == 1
        total = mine.select(func.coalesce(func.sum(File.size_bytes), 0).label("total"))
        assert await session.scalar(total) == 1
        assert (await session.execute(mine.select(File.id, File.filename))).all() == [
            (two["ours"][1], "ours")
        ]
        assert list(await session.scalars(mine.select(Tenant.slug))) == ["ours"]


async def test_each_selected_table_is_filtered(database, two):
    mine = of_tenant(two["ours"][0])
    async with database.reading() as session:
        pairs = mine.select(File.filename, Upload.filename).join(Upload, true())
        assert (await session.execute(pairs)).all() == [("ours", "ours")]


async def test_get_finds_only_the_tenants_row(database, two):
    mine = of_tenant(two["ours"][0])
    async with database.transaction() as session:
        for lock in (False, True):
            found = await mine.get(session, File, two["ours"][1], lock=lock)
            assert found is not None
            assert found.filename == "ours"
            assert await mine.get(session, File, two["theirs"][1], lock=lock) is None
        assert await mine.get(session, File, None) is None
        assert (await mine.get_one(session, File, two["ours"][1])).filename == "ours"
        with pytest.raises(NoResultFound):
            await mine.get_one(session, File, two["theirs"][1])


async def test_a_locked_row_is_read_anew(database, two):
    mine = of_tenant(two["ours"][0])
    async with database.reading() as session:
        stale = await mine.get(session, File, two["ours"][1])
        async with database.transaction() as other:
            await other.execute(mine.update(File).values(purpose="changed"))
        await session.rollback()
        again = await mine.get(session, File, two["ours"][1], lock=True)
        assert again is not None
        assert again is stale
        assert again.purpose == "changed"


async def test_updates_and_deletions_leave_others_rows(database, two):
    mine = of_tenant(two["ours"][0])
    async with database.transaction() as session:
        await session.execute(mine.update(File).values(purpose="changed"))
        await session.execute(mine.delete(Upload))
    async with database.reading() as session:
        everything = across_tenants("this test looks at both")
        files = everything.select(File.filename, File.purpose).order_by(File.filename)
        assert (await session.execute(files)).all() == [("ours", "changed"), ("theirs", "batch")]
        assert list(await session.scalars(everything.select(Upload.filename))) == ["theirs"]


async def test_the_operators_keys_are_no_tenants(database, two):
    async with database.reading() as session:
        labels = of_operator().select(ApiKey.label)
        assert list(await session.scalars(labels)) == ["operator"]
        assert list(await session.scalars(of_operator().select(File))) == []
        mine = of_tenant(two["ours"][0]).select(ApiKey.label)
        assert list(await session.scalars(mine)) == ["ours"]


@pytest.mark.parametrize(
    "entity",
    [func.count(), literal(1), select(func.count(File.id)).scalar_subquery()],
    ids=["no column", "a constant", "a subquery"],
)
def test_what_names_no_table_is_refused(entity):
    with pytest.raises(TypeError, match="a tenant's query"):
        of_tenant("t").select(entity)


async def test_tables_of_the_installation_have_a_scope_of_their_own(database, two):
    async with database.transaction() as session:
        session.add(Person(email="ana@example.com"))
    async with database.reading() as session:
        emails = of_installation().select(Person.email)
        assert list(await session.scalars(emails)) == ["ana@example.com"]
    for scope in (of_tenant("t"), of_operator()):
        with pytest.raises(TypeError, match="of_installation"):
            scope.select(Person.email)
    for entity in (File, Membership, Tenant.id):
        with pytest.raises(TypeError, match="no tenant's"):
            of_installation().select(Person, entity)
    with pytest.raises(TypeError, match="no tenant's"):
        of_installation().select(func.count())
