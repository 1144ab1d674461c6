"""The pages of keys, without a browser: a tenant's and the operators'."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from bs4 import BeautifulSoup

from server.auth import keys, listing
from server.auth.schemas import KeyRequest
from server.db.models import ApiKey, now
from server.tenants import service as tenants

PAGE = "/console/t/acme/keys"


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}: {answer.text[:500]}"
    return " ".join(found.get_text(" ").split())


async def make(database: Any, slug: str | None = "acme", **fields: Any) -> tuple[str, ApiKey]:
    async with database.transaction() as session:
        tenant = await tenants.get(session, slug) if slug else None
        return await keys.create(session, KeyRequest(**fields), tenant=tenant)


async def found(database: Any, key_id: str) -> ApiKey:
    async with database.reading() as session:
        row: ApiKey | None = await session.get(ApiKey, key_id)
    assert row is not None
    return row


async def may_list_models(client: Any, raw: str) -> int:
    answer = await client.get("/v1/models", headers={"authorization": f"Bearer {raw}"})
    return int(answer.status_code)


async def test_a_key_is_made_by_a_form_without_a_script_and_shown_once(
    sign_in: Any, make_tenant: Any, client: Any, database: Any
) -> None:
    await make_tenant("acme", name="Acme")
    browser = await sign_in("acme")
    assert "No key yet" in words(await browser.get(PAGE))
    token = soup(await browser.get(f"{PAGE}/new")).select_one("main input[name=csrf_token]")
    del browser.headers["x-csrf-token"]
    assert token is not None
    answer = await browser.post(
        PAGE,
        data={
            "csrf_token": token["value"],
            "label": "Help page",
            "scope-chat": "yes",
            "expires": "30",
            "requests_per_minute": "60",
        },
    )
    assert answer.status_code == 201
    raw, curl, python = [each.get_text() for each in soup(answer).select(".code pre")]
    assert await may_list_models(client, raw) == 200
    assert raw in curl
    assert 'base_url="http://test/v1"' in python
    assert '"model": "acme"' in curl
    compile(python, "snippet", "exec")
    page = await browser.get(PAGE)
    assert raw not in page.text
    said = words(page, "tbody")
    assert f"Help page {raw[:11]}… Ask models 60 requests a minute Works until" in said
    assert "by Ana" in said
    async with database.reading() as session:
        [row] = await listing.list_keys(session, await tenants.get(session, "acme"))
    assert row.expires_at is not None
    assert timedelta(days=29) < row.expires_at - now() < timedelta(days=30)
    file = await browser.get(f"{PAGE}/keys.csv")
    [line] = csv.DictReader(io.StringIO(file.text))
    assert (line["label"], line["may"], line["created_by"]) == ("Help page", "Ask models", "Ana")


async def test_the_first_request_is_one_that_the_key_may_make(
    sign_in: Any, make_tenant: Any
) -> None:
    await make_tenant("acme")
    browser = await sign_in("acme")
    answer = await browser.post(PAGE, data={"scope-train": "yes"})
    assert "curl http://test/v1/fine_tuning/jobs" in words(answer)


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("label", "x" * 201, "label"),
        ("scope-chat", "", "scopes"),
        ("expires", "3", "expires"),
        ("day", "", "day"),
        ("day", "2020-01-01", "day"),
        ("day", "9999-12-31", "day"),
        ("requests_per_day", "0", "requests_per_day"),
        ("tokens_per_day", "many", "tokens_per_day"),
        ("tokens_per_day", "9" * 5000, "tokens_per_day"),
    ],
)
async def test_a_mistake_is_said_at_its_field_and_nothing_is_made(
    sign_in: Any, make_tenant: Any, database: Any, *, field: str, value: str, where: str
) -> None:
    tenant = await make_tenant("acme")
    browser = await sign_in("acme")
    form = {"label": "Shop", "scope-chat": "yes", "expires": "day" if field == "day" else ""}
    answer = await browser.post(PAGE, data={**form, field: value})
    assert answer.status_code == 422
    [link] = soup(answer).select(".summary a")
    assert link["href"] == f"#{where}"
    assert soup(answer).select(f'[id="{where}"]')
    async with database.reading() as session:
        assert await listing.list_keys(session, tenant) == []


async def test_a_key_is_rotated_and_the_old_one_works_until_its_overlap_is_over(
    sign_in: Any, make_tenant: Any, client: Any, database: Any
) -> None:
    await make_tenant("acme")
    old, row = await make(database, label="Shop", expires_at=now() + timedelta(days=3))
    browser = await sign_in("acme")
    url = f"{PAGE}/{row.id}/rotate"
    assert "As the old one:" in words(await browser.get(url))
    refused = await browser.post(url, data={"overlap": "12"})
    assert refused.status_code == 422
    answer = await browser.post(url, data={"overlap": "3600", "expires": "90"})
    assert answer.status_code == 201
    assert "The old one works until" in words(answer)
    new = words(answer, ".code pre")
    assert [await may_list_models(client, raw) for raw in (old, new)] == [200, 200]
    old_row = await found(database, row.id)
    assert old_row.expires_at is not None
    assert old_row.expires_at < now() + timedelta(hours=1)
    said = words(await browser.get(PAGE), "tbody")
    assert f"in place of {row.prefix}…" in said
    assert "Being replaced" in said
    again = await browser.post(url, data={"overlap": "0"})
    assert again.status_code == 409
    assert "was replaced" in words(again)
    assert not soup(await browser.get(url)).select("main form")


async def test_a_key_is_revoked_after_a_question_and_taken_back(
    sign_in: Any, make_tenant: Any, client: Any, database: Any, monkeypatch: Any
) -> None:
    await make_tenant("acme")
    raw, row = await make(database, label="Shop")
    browser = await sign_in("acme")
    asked = words(await browser.get(f"{PAGE}/{row.id}/revoke"))
    assert f"Every program that shows {row.prefix}… is refused from that moment" in asked
    answer = await browser.post(f"{PAGE}/{row.id}/revoke")
    assert answer.status_code == 303
    assert await may_list_models(client, raw) == 401
    page = await browser.get(answer.headers["location"])
    assert "No key works now" in words(page)
    assert "Revoked" in words(await browser.get(f"{PAGE}?show=all"), "tbody")
    [undo] = soup(page).select("#toasts form")
    assert undo["action"] == f"{PAGE}/{row.id}/restore"
    back = await browser.post(str(undo["action"]))
    assert "Shop works again." in words(await browser.get(back.headers["location"]), "#toasts")
    assert await may_list_models(client, raw) == 200
    await browser.post(f"{PAGE}/{row.id}/revoke")
    monkeypatch.setattr(keys, "RESTORABLE", timedelta())
    assert (await browser.post(str(undo["action"]))).status_code == 409
    assert not soup(await browser.get(answer.headers["location"])).select("#toasts form")
    assert await may_list_models(client, raw) == 401


async def test_the_list_goes_on_behind_its_last_row(
    sign_in: Any, make_tenant: Any, database: Any, monkeypatch: Any
) -> None:
    await make_tenant("acme")
    for number in range(3):
        await make(database, label=f"=key {number}")
    monkeypatch.setattr(listing, "PAGE", 2)
    browser = await sign_in("acme")
    page = await browser.get(PAGE)
    assert [each.get_text() for each in soup(page).select("tbody b")] == ["=key 2", "=key 1"]
    [older] = soup(page).select("a[rel=next]")
    page = await browser.get(str(older["href"]))
    assert [each.get_text() for each in soup(page).select("tbody b")] == ["=key 0"]
    assert soup(page).select(f'a[rel=prev][href="{PAGE}"]')
    file = await browser.get(f"{PAGE}/keys.csv")
    labels = [line["label"] for line in csv.DictReader(io.StringIO(file.text))]
    assert labels == ["'=key 2", "'=key 1", "'=key 0"]


async def test_another_tenants_key_and_an_operators_are_not_there(
    sign_in: Any, make_tenant: Any, client: Any, database: Any
) -> None:
    await make_tenant("acme")
    await make_tenant("zoo")
    browser = await sign_in("acme")
    for slug in ("zoo", None):
        raw, row = await make(database, slug, label="theirs")
        for method, path in (
            ("GET", "rotate"),
            ("POST", "rotate"),
            ("GET", "revoke"),
            ("POST", "revoke"),
            ("POST", "restore"),
        ):
            answer = await browser.request(method, f"{PAGE}/{row.id}/{path}")
            assert answer.status_code == 404, (slug, method, path)
        assert "theirs" not in (await browser.get(f"{PAGE}?done=revoked&key={row.id}")).text
        assert "theirs" not in (await browser.get(f"{PAGE}/keys.csv")).text
        assert await may_list_models(client, raw) != 401
    for role in ("viewer", "reviewer"):
        browser = await sign_in("acme", role)
        assert (await browser.get(PAGE)).status_code == 403


async def test_operators_make_keys_that_may_do_everything(
    sign_in: Any, make_tenant: Any, client: Any
) -> None:
    await make_tenant("acme")
    boss = await sign_in()
    assert "No key yet" in words(await boss.get("/console/keys"))
    answer = await boss.post("/console/keys", data={"label": "Nightly"})
    assert answer.status_code == 201
    raw, curl, python = [each.get_text() for each in soup(answer).select(".code pre")]
    assert raw.startswith("tt_admin_")
    assert "curl http://test/admin/tenants" in curl
    compile(python, "snippet", "exec")
    header = {"authorization": f"Bearer {raw}"}
    assert (await client.get("/admin/tenants", headers=header)).status_code == 200
    assert "Nightly" in words(await boss.get("/console/keys"), "tbody")
    assert "Nightly" not in (await boss.get(PAGE)).text
