"""Keys: who gets in, who does not, and what a tenant's key can see of others."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from server.auth import keys
from server.auth.keyring import Keyring
from server.auth.schemas import KeyRequest
from server.db.models import ApiKey
from server.errors import Unauthenticated

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

EVERY_ADDRESS = [
    ("GET", "/admin/tenants/{slug}", "train"),
    ("PATCH", "/admin/tenants/{slug}", "admin"),
    ("DELETE", "/admin/tenants/{slug}", "operator"),
    ("POST", "/admin/tenants/{slug}/keys", "admin"),
    ("GET", "/admin/tenants/{slug}/keys", "admin"),
    ("DELETE", "/admin/tenants/{slug}/keys/0", "admin"),
    ("POST", "/admin/tenants/{slug}/keys/0/rotate", "admin"),
    ("POST", "/admin/tenants/{slug}/webhooks", "admin"),
    ("GET", "/admin/tenants/{slug}/webhooks", "admin"),
    ("GET", "/admin/tenants/{slug}/webhooks/0", "admin"),
    ("PATCH", "/admin/tenants/{slug}/webhooks/0", "admin"),
    ("DELETE", "/admin/tenants/{slug}/webhooks/0", "admin"),
    ("POST", "/admin/tenants/{slug}/webhooks/0/rotate-secret", "admin"),
    ("POST", "/admin/tenants/{slug}/webhooks/0/test", "admin"),
    ("GET", "/admin/tenants/{slug}/webhooks/0/deliveries", "admin"),
    ("POST", "/admin/tenants/{slug}/webhooks/0/deliveries/0/redeliver", "admin"),
    ("POST", "/admin/tenants/{slug}/transcripts", "train"),
    ("GET", "/admin/tenants/{slug}/imports", "train"),
    ("GET", "/admin/tenants/{slug}/imports/0", "train"),
    ("DELETE", "/admin/tenants/{slug}/imports/0", "train"),
    ("POST", "/admin/tenants/{slug}/knowledge", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge/usage", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge/search?q=a", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge/uploads", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge/uploads/0", "train"),
    ("DELETE", "/admin/tenants/{slug}/knowledge/uploads/0", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge/0", "train"),
    ("DELETE", "/admin/tenants/{slug}/knowledge/0", "train"),
    ("GET", "/admin/tenants/{slug}/knowledge/0/chunks", "train"),
    ("GET", "/admin/tenants/{slug}/curation", "train"),
    ("POST", "/admin/tenants/{slug}/curation/scans", "train"),
    ("PUT", "/admin/tenants/{slug}/curation/rules", "train"),
    ("GET", "/admin/tenants/{slug}/curation/decisions", "train"),
    ("POST", "/admin/tenants/{slug}/curation/decisions", "train"),
    ("PUT", "/admin/tenants/{slug}/curation/conversations/0", "train"),
    ("GET", "/admin/tenants/{slug}/datasets", "train"),
    ("GET", "/admin/tenants/{slug}/datasets/0", "train"),
    ("GET", "/admin/tenants/{slug}/adapters", "train"),
    ("GET", "/admin/tenants/{slug}/adapters/1", "train"),
    ("DELETE", "/admin/tenants/{slug}/adapters/1", "train"),
    ("GET", "/admin/tenants/{slug}/adapters/1/report", "train"),
    ("GET", "/admin/tenants/{slug}/adapters/1/download", "train"),
    ("POST", "/admin/tenants/{slug}/adapters", "train"),
    ("GET", "/admin/tenants/{slug}/promotions", "train"),
    ("POST", "/admin/tenants/{slug}/heads", "train"),
    ("GET", "/admin/tenants/{slug}/heads", "train"),
    ("GET", "/admin/tenants/{slug}/heads/counts", "train"),
    ("POST", "/admin/tenants/{slug}/heads/promote", "train"),
    ("POST", "/admin/tenants/{slug}/heads/rollback", "train"),
    ("POST", "/admin/tenants/{slug}/heads/retire", "train"),
    ("POST", "/admin/tenants/{slug}/heads/classify", "train"),
    ("GET", "/admin/tenants/{slug}/heads/rules", "train"),
    ("PUT", "/admin/tenants/{slug}/heads/rules", "train"),
    ("GET", "/admin/tenants/{slug}/heads/shared", "train"),
    ("PUT", "/admin/tenants/{slug}/heads/shared", "train"),
    ("DELETE", "/admin/tenants/{slug}/heads/annoyance/1", "train"),
    ("GET", "/admin/tenants/{slug}/usage", "admin"),
    ("GET", "/admin/tenants/{slug}/audit", "admin"),
    ("POST", "/admin/tenants/{slug}/promote", "train"),
    ("POST", "/admin/tenants/{slug}/rollback", "train"),
    ("GET", "/admin/tenants/{slug}/canary", "train"),
    ("PUT", "/admin/tenants/{slug}/canary", "train"),
    ("DELETE", "/admin/tenants/{slug}/canary", "train"),
]


@pytest.fixture(autouse=True)
async def two_tenants(make_tenant):
    await make_tenant("acme")
    await make_tenant("other")


async def test_every_admin_address_is_in_the_list_above(app):
    served = {
        (method, route.path_format)
        for route in app.routes
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
        if route.path_format.startswith("/admin/tenants/{slug}") and "/jobs" not in route.path
    }
    listed = {
        (
            method,
            path.replace("/keys/0", "/keys/{key_id}")
            .replace("/imports/0", "/imports/{import_id}")
            .replace("/conversations/0", "/conversations/{conversation_id}")
            .replace("/webhooks/0", "/webhooks/{webhook_id}")
            .replace("/deliveries/0", "/deliveries/{delivery_id}")
            .replace("/uploads/0", "/uploads/{upload_id}")
            .replace("/knowledge/0", "/knowledge/{article_id}")
            .replace("/heads/annoyance/", "/heads/{task}/")
            .removesuffix("?q=a"),
        )
        for method, path, _ in EVERY_ADDRESS
    }
    listed = {
        (method, path.replace("/datasets/0", "/datasets/{sha256}").replace("/1", "/{version}"))
        for method, path in listed
    }
    assert served == listed


@pytest.mark.parametrize(("method", "path", "scope"), EVERY_ADDRESS)
async def test_each_address_lets_in_its_scope_alone_and_hides_other_tenants(
    client, make_key, method, path, scope
):
    async def ask(slug: str, headers: dict[str, str]):
        return await client.request(method, path.format(slug=slug), headers=headers)

    assert (await ask("acme", {})).status_code == 401
    chat = await make_key("acme", "chat")
    assert (await ask("acme", chat)).status_code == 403
    admin = await make_key("acme", "admin")
    missing, foreign = await ask("missing", admin), await ask("other", admin)
    assert missing.status_code == foreign.status_code == 404
    assert (
        foreign.text.replace("other", "missing").replace(
            foreign.headers["x-request-id"], missing.headers["x-request-id"]
        )
        == missing.text
    )
    train = await make_key("acme", "train")
    assert (await ask("acme", train)).status_code != 401
    assert ((await ask("acme", train)).status_code == 403) == (scope != "train")
    assert ((await ask("acme", admin)).status_code == 403) == (scope == "operator")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_the_operator_lists_and_makes_tenants(client, make_key, method):
    admin = await make_key("acme", "admin")
    answer = await client.request(method, "/admin/tenants", headers=admin)
    assert answer.status_code == 403


async def test_a_key_is_shown_once_listed_without_its_secret_and_dies_when_revoked(
    client, operator
):
    address = "/admin/tenants/acme/keys"
    made = await client.post(
        address, json={"label": "CI", "scopes": ["train", "chat"]}, headers=operator
    )
    assert made.status_code == 201
    raw, details = made.json()["key"], made.json()["details"]
    assert raw.startswith(details["prefix"])
    assert len(raw) - len(details["prefix"]) >= 40
    assert details["scopes"] == ["chat", "train"]
    listed = await client.get(address, headers=operator)
    assert listed.json() == [details]
    assert raw not in listed.text

    key = {"authorization": f"bearer {raw}"}
    assert (await client.get("/admin/tenants/acme", headers=key)).status_code == 200
    for _ in range(2):
        gone = await client.delete(f"{address}/{details['id']}", headers=operator)
        assert gone.status_code == 204
    assert (await client.get("/admin/tenants/acme", headers=key)).status_code == 401
    assert (await client.get(address, headers=operator)).json()[0]["revoked_at"]


async def test_a_key_of_another_tenant_cannot_be_revoked(client, operator, make_key):
    made = await client.post("/admin/tenants/other/keys", json={}, headers=operator)
    admin = await make_key("acme", "admin")
    key_id = made.json()["details"]["id"]
    answer = await client.delete(f"/admin/tenants/acme/keys/{key_id}", headers=admin)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["root"]},
        {"scopes": []},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2999-01-01T00:00:00"},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(client, operator, body):
    answer = await client.post("/admin/tenants/acme/keys", json=body, headers=operator)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer tt_" + "a" * 49,
        "Bearer tt_admin_",
        "Bearer \x7f",
        "Bearer " + "tt_" * 1000,
    ],
)
async def test_what_is_no_key_is_not_let_in(client, header):
    answer = await client.get("/admin/tenants", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "application/problem+json" in answer.headers["content-type"]


async def test_an_expired_key_is_told_nothing_more_than_an_unknown_one(database):
    async with database.transaction() as session:
        raw, row = await keys.create(session, KeyRequest(), tenant=None)
        row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    messages = set()
    async with database.reading() as session:
        for each in (raw, keys.generate(operator=True), "tt_nonsense"):
            with pytest.raises(Unauthenticated) as caught:
                await keys.authenticate(session, each)
            messages.add(caught.value.message)
    assert len(messages) == 1


async def test_only_the_hash_of_a_key_is_in_the_database(database, make_key):
    header = await make_key("acme")
    raw = header["authorization"].removeprefix("Bearer ")
    async with database.reading() as session:
        row = (await session.scalars(select(ApiKey))).one()
    stored = " ".join(str(getattr(row, column.name)) for column in ApiKey.__table__.columns)
    assert raw[12:] not in stored


def test_a_mistyped_key_is_told_by_its_checksum():
    raw = keys.generate(operator=False)
    assert keys.is_well_formed(raw)
    assert not keys.is_well_formed(raw[:-1] + ("a" if raw[-1] != "a" else "b"))
    assert not keys.is_well_formed(raw.replace("tt_", "tt_admin_"))
    assert keys.generate(operator=True).startswith("tt_admin_")


async def test_use_is_remembered_without_asking_the_database_and_written_later(database, make_key):
    raw = (await make_key("acme"))["authorization"].removeprefix("Bearer ")
    keyring = Keyring(database)
    first = await keyring.authenticate(raw)
    assert await keyring.authenticate(raw) is first
    await keyring.flush()
    keyring.close()
    async with database.reading() as session:
        used = await session.scalar(select(ApiKey.last_used_at))
    assert datetime.now(UTC) - used < timedelta(seconds=10)
