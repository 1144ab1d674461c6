"""Tenants over HTTP, on both databases."""

import pytest
from sqlalchemy import select

from server.db.models import Adapter, DatasetVersion, Job, SourceFile

ACME = {"slug": "acme", "name": "Acme", "system_prompt": "Be kind."}


async def test_a_tenant_is_made_read_listed_and_changed(client, operator):
    made = await client.post("/admin/tenants", json=ACME, headers=operator)
    assert made.status_code == 201
    assert made.json() | {"created_at": 0, "updated_at": 0} == {
        **ACME,
        "custom_patterns": {},
        "number_patterns": {},
        "allowlist": [],
        "keep": [],
        "keep_upload_days": 0,
        "masked_terms": [],
        "retrieval": True,
        "show_sources": False,
        "when_unsupported": "answer",
        "limits": None,
        "live_version": None,
        "live_revision": 0,
        "canary": None,
        "created_at": 0,
        "updated_at": 0,
    }
    changed = await client.patch(
        "/admin/tenants/acme",
        json={"system_prompt": "Be brief.", "custom_patterns": {"ORDER": r"ORD-\d{6}"}},
        headers=operator,
    )
    assert changed.status_code == 200
    read = await client.get("/admin/tenants/acme", headers=operator)
    assert read.json() == changed.json()
    assert read.json()["name"] == "Acme"
    assert read.json()["system_prompt"] == "Be brief."
    assert read.json()["custom_patterns"] == {"ORDER": r"ORD-\d{6}"}
    listed = await client.get("/admin/tenants", headers=operator)
    assert listed.json() == [read.json()]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "slug", ["a", "Acme", "-acme", "acme-", "a--b", "a.b", "a@1", "a" * 41, "ac/me", "ä-b", "a\n"]
)
async def test_a_slug_is_lower_case_letters_digits_and_single_dashes(client, operator, slug):
    answer = await client.post("/admin/tenants", json={"slug": slug}, headers=operator)
    assert answer.status_code == 400
    assert answer.json()["param"] == "slug"


async def test_a_slug_is_taken_once_and_never_the_name_of_the_base(client, operator):
    for slug, status in [("acme", 201), ("acme", 409), ("tiny-base", 409)]:
        answer = await client.post("/admin/tenants", json={"slug": slug}, headers=operator)
        assert answer.status_code == status
    assert answer.json()["code"] == "slug_taken"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pattern", ["(", "(a+)+$", "", "x" * 500])
async def test_a_custom_pattern_must_be_safe_to_run(client, operator, pattern):
    body = {"slug": "acme", "custom_patterns": {"ORDER": pattern}}
    answer = await client.post("/admin/tenants", json=body, headers=operator)
    assert answer.status_code == 400
    assert answer.json()["param"] == "custom_patterns"


OLD_NAMES = [
    ("number_patterns", "custom_patterns", {"ORDER": r"ORD-\d{6}"}, {"ORDER": "no"}),
    ("keep", "allowlist", ["@acme.example"], []),
]


@pytest.mark.parametrize("names", OLD_NAMES)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_field_is_taken_and_answered_under_its_old_name_too(client, operator, names):
    old, new, value, other = names
    made = await client.post("/admin/tenants", json={"slug": "acme", old: value}, headers=operator)
    assert (made.status_code, made.json()[old], made.json()[new]) == (201, value, value)
    for body in ({old: other}, {new: value}, {old: other, new: other}):
        changed = await client.patch("/admin/tenants/acme", json=body, headers=operator)
        wanted = next(iter(body.values()))
        assert (changed.json()[old], changed.json()[new]) == (wanted, wanted)


@pytest.mark.parametrize("names", OLD_NAMES)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_field_under_both_names_must_not_differ(client, operator, make_tenant, names):
    old, new, value, other = names
    await make_tenant("acme")
    body = {old: value, new: other}
    for answer in (
        await client.post("/admin/tenants", json={"slug": "acme2", **body}, headers=operator),
        await client.patch("/admin/tenants/acme", json=body, headers=operator),
    ):
        assert answer.status_code == 400
        assert f"'{new}' and '{old}', its old name, are both given" in answer.json()["detail"]
        assert answer.json()["param"] == new


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_document_says_which_names_are_deprecated(client):
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    for kind in ("TenantRequest", "TenantPatch", "TenantView"):
        for old, new, _, _ in OLD_NAMES:
            fields = next(s for name, s in schemas.items() if name.endswith(kind))["properties"]
            assert "deprecated" not in fields[new]
            assert fields[old]["deprecated"] is True
            assert f"`{new}`" in fields[old]["description"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_misspelt_field_is_refused_rather_than_ignored(client, operator, make_tenant):
    await make_tenant("acme")
    answer = await client.patch("/admin/tenants/acme", json={"promt": "x"}, headers=operator)
    assert answer.status_code == 400
    assert "promt" in answer.json()["detail"]


async def test_deleting_a_tenant_takes_its_rows_files_and_keys(
    client, operator, *, make_tenant, make_key, database, settings, blobs
):
    acme, other = await make_tenant("acme"), await make_tenant("other")
    key = await make_key("acme", "admin")
    assert (await client.get("/admin/tenants/acme", headers=key)).status_code == 200

    async def stream(data: bytes):
        yield data

    own, _ = await blobs.put_stream(stream(b"own"), max_bytes=9)
    shared, _ = await blobs.put_stream(stream(b"shared"), max_bytes=9)
    async with database.transaction() as session:
        for tenant, sha256 in [(acme, own), (acme, shared), (other, shared)]:
            session.add(SourceFile(tenant_id=tenant.id, filename="f", sha256=sha256, size_bytes=1))
        session.add(DatasetVersion(tenant_id=acme.id, sha256="d" * 64))
        session.add(
            Adapter(
                tenant_id=acme.id,
                version=1,
                engine_name="acme.0123456789ab",
                base_name="b",
                base_sha256="0" * 64,
            )
        )
    for folder in (settings.adapters / "acme.0123456789ab", settings.datasets / ("d" * 64)):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    answer = await client.delete("/admin/tenants/acme", headers=operator)
    assert answer.status_code == 204
    assert (await client.get("/admin/tenants/acme", headers=operator)).status_code == 404
    assert (await client.get("/admin/tenants/acme", headers=key)).status_code == 401
    assert list(settings.adapters.iterdir()) == list(settings.datasets.iterdir()) == []
    assert not await blobs.exists(own)
    assert await blobs.exists(shared)
    async with database.reading() as session:
        assert (await session.scalars(select(SourceFile.tenant_id))).all() == [other.id]


async def test_a_tenant_with_an_unfinished_job_is_not_deleted(
    client, operator, make_tenant, database
):
    tenant = await make_tenant("acme")
    async with database.transaction() as session:
        session.add(Job(tenant_id=tenant.id, base="b", recipe_name="r", state="running"))
    answer = await client.delete("/admin/tenants/acme", headers=operator)
    assert answer.status_code == 409
    assert answer.json()["code"] == "job_in_progress"


async def test_a_nul_in_a_name_is_a_name_that_does_not_exist(client, operator):
    answer = await client.get("/admin/tenants/ac%00me", headers=operator)
    assert answer.status_code == 404
    await client.post("/admin/tenants", json={"slug": "acme", "name": "A\x00B"}, headers=operator)
    read = await client.get("/admin/tenants/acme", headers=operator)
    assert read.json()["name"] == "A\ufffdB"
