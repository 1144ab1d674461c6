"""A canary over the admin API: started, looked at, changed, taken back; and another tenant's."""

import pytest

from server.db.models import Adapter
from server.tenants import service as tenants

PATH = "/admin/tenants/acme/canary"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough here: the service has tests on both."""
    return sqlite_url


@pytest.fixture
async def key(make_tenant, make_key, database) -> dict[str, str]:
    """A key of a tenant with two versions; the first is live."""
    acme = await make_tenant("acme")
    async with database.transaction() as session:
        made = [
            Adapter(
                tenant_id=acme.id,
                version=version,
                engine_name=f"acme.{version:012x}",
                base_name="tiny-base",
                base_sha256="0" * 64,
                state="ready",
            )
            for version in (1, 2)
        ]
        session.add_all(made)
        await session.flush()
        (await tenants.get(session, "acme")).live_adapter_id = made[0].id
    header: dict[str, str] = await make_key("acme", "train")
    return header


async def test_a_canary_is_started_changed_looked_at_and_taken_back(client, key, operator) -> None:
    assert (await client.get(PATH, headers=key)).status_code == 404
    assert (await client.delete(PATH, headers=key)).status_code == 404
    begun = await client.put(
        PATH, json={"version": 2, "percent": 10, "expected_revision": 0}, headers=key
    )
    assert begun.status_code == 200, begun.text
    assert (begun.json()["version"], begun.json()["percent"]) == (2, 10)
    late = await client.put(
        PATH, json={"version": 2, "percent": 20, "expected_revision": 0}, headers=key
    )
    assert (late.status_code, late.json()["code"]) == (409, "revision_changed")
    changed = await client.put(PATH, json={"version": 2, "percent": 20}, headers=key)
    assert changed.json() == (await client.get(PATH, headers=key)).json()
    assert changed.json()["liked_compared"] == "too_little"
    assert changed.json()["canary"] == {
        "version": 2,
        "requests": 0,
        "errors": {"count": 0, "of": 0, "share": None, "low": None, "high": None},
        "liked": {"count": 0, "of": 0, "share": None, "low": None, "high": None},
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }
    listed = (await client.get("/admin/tenants/acme/adapters", headers=key)).json()
    assert [(row["version"], row["live"], row["canary_percent"]) for row in listed] == [
        (2, False, 20),
        (1, True, None),
    ]
    tenant = (await client.get("/admin/tenants/acme", headers=operator)).json()
    assert (tenant["canary"]["version"], tenant["canary"]["percent"]) == (2, 20)
    kept = await client.delete("/admin/tenants/acme/adapters/2", headers=key)
    assert (kept.status_code, kept.json()["code"]) == (409, "adapter_is_canary")
    assert (await client.delete(f"{PATH}?expected_revision=1", headers=key)).status_code == 409
    ended = await client.delete(f"{PATH}?expected_revision=2", headers=key)
    assert ended.json() == {"tenant": "acme", "live_version": 1, "live_revision": 3}
    steps = (await client.get("/admin/tenants/acme/promotions", headers=key)).json()
    assert [(step["kind"], step["to_version"], step["canary_version"]) for step in steps] == [
        ("canary_end", 1, 2),
        ("canary", 1, 2),
        ("canary", 1, 2),
    ]
    assert steps[0]["actor"].startswith("key:")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": 2, "percent": 0}, 400),
        ({"version": 2, "percent": 51}, 400),
        ({"version": 2, "percent": 2.5}, 400),
        ({"version": 2}, 400),
        ({"version": 9, "percent": 10}, 404),
        ({"version": 1, "percent": 10}, 409),
    ],
)
async def test_what_is_no_share_or_no_version_is_refused(client, key, body, status) -> None:
    assert (await client.put(PATH, json=body, headers=key)).status_code == status
    assert (await client.get(PATH, headers=key)).status_code == 404


async def test_another_tenants_canary_is_not_there(client, key, make_tenant, make_key) -> None:
    await make_tenant("zoo")
    await client.put(PATH, json={"version": 2, "percent": 10}, headers=key)
    theirs, chat = await make_key("zoo", "train"), await make_key("acme", "chat")
    for headers, status in ((theirs, 404), (chat, 403), ({}, 401)):
        for method, body in (
            ("GET", None),
            ("DELETE", None),
            ("PUT", {"version": 2, "percent": 5}),
        ):
            answer = await client.request(method, PATH, json=body, headers=headers)
            assert answer.status_code == status, (method, status)
    assert (await client.get("/admin/tenants/zoo/canary", headers=theirs)).status_code == 404
    assert (await client.get(PATH, headers=key)).json()["percent"] == 10
