"""The pages of webhooks, without a browser: forms without a script, and what became of deliveries."""

import csv
import io
from typing import Any

import pytest
import pytest_asyncio
from bs4 import BeautifulSoup

from server.db.models import WebhookDelivery, WebhookEndpoint, now
from server.webhooks import listing, service
from server.webhooks.schemas import EVENT_TYPES, WebhookRequest
from server.webhooks.vault import Vault

PAGE = "/console/t/acme/webhooks"
URL = "https://hooks.acme.example/tenantune"
FAILED, HANDOFF = "fine_tuning.job.failed", "conversation.handoff.created"


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}: {answer.text[:500]}"
    return " ".join(found.get_text(" ").split())


@pytest_asyncio.fixture
async def vault(settings: Any, database: Any) -> Vault:
    made = Vault(settings)
    await made.open(database)
    return made


@pytest.fixture
def make(database: Any, make_tenant: Any, vault: Vault) -> Any:
    """Makes a tenant with a webhook, and deliveries with these fields."""

    async def make(slug: str = "acme", *deliveries: dict[str, Any]) -> WebhookEndpoint:
        await make_tenant(slug)
        async with database.transaction() as session:
            row = await service.create(
                session, WebhookRequest(url=URL), slug=slug, private=False, vault=vault
            )
            for each in deliveries:
                event = {"type": each.pop("event", FAILED), "data": {"id": "secret-of-the-event"}}
                about = {"tenant_id": row.tenant_id, "endpoint_id": row.id, "due_at": now()}
                session.add(WebhookDelivery(event=event, **about, **each))
                await session.flush()
        return row

    return make


async def rows(database: Any) -> list[WebhookEndpoint]:
    async with database.reading() as session:
        return list(await service.list_for(session, "acme"))


async def test_a_webhook_is_added_by_a_form_without_a_script_and_its_secret_shown_once(
    sign_in: Any, make_tenant: Any, database: Any, vault: Vault
) -> None:
    await make_tenant("acme", name="Acme")
    browser = await sign_in("acme")
    assert "No webhook yet" in words(await browser.get(PAGE))
    form = soup(await browser.get(f"{PAGE}/new"))
    names = [str(box["name"]) for box in form.select("input[type=checkbox]")]
    assert names == [f"event-{event}" for event in EVENT_TYPES]
    token = form.select_one("main input[name=csrf_token]")
    assert token is not None
    del browser.headers["x-csrf-token"]
    sent = {"csrf_token": token["value"], "url": f" {URL}", f"event-{FAILED}": "yes"}
    answer = await browser.post(PAGE, data=sent)
    assert answer.status_code == 201
    [row] = await rows(database)
    secret = words(answer, ".code pre")
    assert vault.unseal(row.secret) == secret
    assert (row.url, row.events) == (URL, [FAILED])
    page = await browser.get(PAGE)
    assert f"{URL} Run failed On none yet" in words(page, "tbody")
    page = await browser.get(f"{PAGE}/{row.id}")
    assert secret not in page.text
    assert f"...{secret[-4:]}" in words(page)
    assert "Nothing was sent yet" in words(page)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"url": ""}, "url"),
        ({"url": "ftp://acme.example"}, "url"),
        ({"url": "http://hooks.acme.example"}, "url"),
        ({"url": "https://localhost/hook"}, "url"),
        ({"url": "https://user:pass@acme.example"}, "url"),
        ({"url": "https://acme.example/" + "x" * 2048}, "url"),
        ({f"event-{FAILED}": ""}, "events"),
    ],
)
async def test_a_mistake_is_said_at_its_field_and_nothing_changes(
    sign_in: Any, make: Any, database: Any, *, changes: dict[str, str], where: str
) -> None:
    row = await make()
    browser = await sign_in("acme")
    for path in (PAGE, f"{PAGE}/{row.id}"):
        answer = await browser.post(path, data={"url": URL, f"event-{FAILED}": "yes", **changes})
        assert answer.status_code == 422, path
        [link] = soup(answer).select(".summary a")
        assert link["href"] == f"#{where}"
        field = soup(answer).select_one("#url")
        assert field is not None
        assert field["value"] == changes.get("url", URL)
    [kept] = await rows(database)
    assert (kept.url, kept.events) == (URL, sorted(EVENT_TYPES))


async def test_a_tenant_with_all_its_webhooks_is_told_so(
    sign_in: Any, make: Any, monkeypatch: Any
) -> None:
    await make()
    monkeypatch.setattr(service, "MAX_ENDPOINTS", 1)
    browser = await sign_in("acme")
    assert not soup(await browser.get(PAGE)).select(f'a[href="{PAGE}/new"]')
    answer = await browser.post(PAGE, data={"url": URL, f"event-{FAILED}": "yes"})
    assert answer.status_code == 422
    assert "A tenant may have 1 webhooks: delete one first." in words(answer, ".summary")


async def test_a_webhook_is_changed_switched_off_and_on_and_deleted(
    sign_in: Any, make: Any, database: Any
) -> None:
    row = await make("acme", {"state": "failed"})
    browser = await sign_in("acme")
    own = f"{PAGE}/{row.id}"
    changed = {"url": f"{URL}/2", f"event-{HANDOFF}": "yes"}
    answer = await browser.post(own, data=changed)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{own}?done=saved")
    [kept] = await rows(database)
    assert (kept.url, kept.events, kept.enabled) == (f"{URL}/2", [HANDOFF], True)
    answer = await browser.post(f"{own}/off")
    page = await browser.get(answer.headers["location"])
    assert "Nothing is sent here." in words(page)
    assert not soup(page).select(f'form[action="{own}/test"], form[action*="/again"]')
    [undo] = soup(page).select("#toasts form")
    for path in (f"{own}/test", f"{own}/deliveries/{await last(database)}/again"):
        refused = await browser.post(path)
        assert refused.status_code == 409, path
        assert "This webhook is disabled" in words(refused, ".summary")
    await browser.post(str(undo["action"]))
    assert (await rows(database))[0].enabled
    assert "gets no event any more" in words(await browser.get(f"{own}/delete"))
    answer = await browser.post(f"{own}/delete")
    assert "The webhook is deleted." in words(
        await browser.get(answer.headers["location"]), "#toasts"
    )
    assert await rows(database) == []


async def last(database: Any) -> str:
    async with database.reading() as session:
        [row] = await service.list_for(session, "acme")
        found = await listing.list_deliveries(session, row)
    return found[0].id


async def test_a_secret_is_rotated_and_the_old_one_signs_for_a_while(
    sign_in: Any, make: Any, database: Any, vault: Vault
) -> None:
    row = await make()
    old = vault.unseal(row.secret)
    browser = await sign_in("acme")
    url = f"{PAGE}/{row.id}/secret"
    assert f"The old one ends in ...{old[-4:]}" in words(await browser.get(url))
    assert (await browser.post(url, data={"overlap": "-1"})).status_code == 422
    answer = await browser.post(url, data={"overlap": "3600"})
    assert answer.status_code == 201
    assert "The one before signs too until" in words(answer)
    [kept] = await rows(database)
    assert kept.previous_secret is not None
    assert vault.unseal(kept.previous_secret) == old
    assert words(answer, ".code pre") == vault.unseal(kept.secret) != old


async def test_deliveries_say_what_became_of_them_and_are_sent_again(
    sign_in: Any, make: Any, database: Any, monkeypatch: Any
) -> None:
    row = await make(
        "acme",
        {"state": "delivered", "attempts": 1, "delivered_at": now(), "response_status": 204},
        {
            "state": "failed",
            "attempts": 8,
            "error": "HTTP 500",
            "response_status": 500,
            "response_text": "=<b>down</b>",
        },
        {"state": "failed", "attempts": 1, "error": "The certificate is not good."},
    )
    browser = await sign_in("acme")
    own = f"{PAGE}/{row.id}"
    page = await browser.get(own)
    lines = [" ".join(line.get_text(" ").split()) for line in soup(page).select("tbody tr")]
    assert "Given up 1 The certificate is not good." in lines[0]
    assert "Given up 8 500 =<b>down</b>" in lines[1]
    assert "HTTP 500" not in lines[1]
    assert "Delivered 1 204" in lines[2]
    assert "secret-of-the-event" not in page.text
    assert not soup(page).select("[hx-trigger]")
    assert "Given up" in words(await browser.get(PAGE), "tbody")
    file = await browser.get(f"{own}/deliveries.csv")
    found = list(csv.DictReader(io.StringIO(file.text)))
    assert [line["response_status"] for line in found] == ["", "500", "204"]
    assert found[1]["response_text"] == "'=<b>down</b>"
    hooks = csv.DictReader(io.StringIO((await browser.get(f"{PAGE}/webhooks.csv")).text))
    assert [line["last_state"] for line in hooks] == ["Given up"]
    [again] = soup(page).select("tbody tr:nth-child(2) form")
    answer = await browser.post(str(again["action"]))
    assert answer.headers["location"] == f"{own}?done=again#deliveries"
    monkeypatch.setattr(listing, "PAGE", 2)
    page = await browser.get(own)
    assert len(soup(page).select("tbody tr")) == 2
    [older] = soup(page).select("a[rel=next]")
    page = await browser.get(str(older["href"]))
    assert "Delivered 1 204" in words(page, "tbody")
    assert soup(page).select(f'a[rel=prev][href="{own}"]')


async def test_a_test_is_sent_once_and_too_many_are_refused(
    sign_in: Any, make: Any, database: Any, monkeypatch: Any
) -> None:
    row = await make()
    browser = await sign_in("acme")
    own = f"{PAGE}/{row.id}"
    answer = await browser.post(f"{own}/test")
    assert answer.headers["location"] == f"{own}?done=test#deliveries"
    assert "webhook.test" in words(await browser.get(own), "tbody .sr")
    monkeypatch.setattr(service, "MAX_WAITING_TESTS", 0)
    refused = await browser.post(f"{own}/test")
    assert refused.status_code == 429
    assert "Earlier tests of this webhook still wait." in words(refused, ".summary")


async def test_another_tenants_webhook_is_not_there(sign_in: Any, make: Any, database: Any) -> None:
    await make()
    theirs = await make("zoo", {"state": "failed"})
    browser = await sign_in("acme")
    async with database.reading() as session:
        [delivery] = await listing.list_deliveries(session, theirs)
    for method, path in (
        ("GET", ""),
        ("POST", "/on"),
        ("POST", "/off"),
        ("POST", "/test"),
        ("GET", "/secret"),
        ("POST", "/secret"),
        ("GET", "/delete"),
        ("POST", "/delete"),
        ("GET", "/deliveries.csv"),
        ("POST", f"/deliveries/{delivery.id}/again"),
    ):
        answer = await browser.request(method, f"{PAGE}/{theirs.id}{path}")
        assert answer.status_code == 404, (method, path)
    changed = {"url": URL, f"event-{FAILED}": "yes"}
    assert (await browser.post(f"{PAGE}/{theirs.id}", data=changed)).status_code == 404
    [own] = await rows(database)
    again = f"{PAGE}/{own.id}/deliveries/{delivery.id}/again"
    assert (await browser.post(again)).status_code == 404
    for role in ("viewer", "reviewer"):
        assert (await (await sign_in("acme", role)).get(PAGE)).status_code == 403
