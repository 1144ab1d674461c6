"""Usage and limits: of one tenant for its people, of all for operators."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest

from server.auth import keys
from server.auth.schemas import KeyRequest
from server.db.models import Tenant, UsageDay, now
from server.db.session import Database
from server.settings import Limits
from server.tenants import service as tenants
from server.web.console.pages import usage

CHAT = {"model": "tiny-base", "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/console/t/acme/usage"


async def use(database: Database, tenant: Tenant, *, days: int = 0, **fields: Any) -> None:
    day = now().date() - timedelta(days=days)
    async with database.transaction() as session:
        session.add(
            UsageDay(
                tenant_id=tenant.id, day=day, **{"key_id": "k", "model": "tiny-base", **fields}
            )
        )


async def limits_of(database: Database) -> Limits | None:
    async with database.reading() as session:
        return (await tenants.get(session, "acme")).limits


async def test_a_viewer_reads_what_was_used_in_the_chosen_days(sign_in, make_tenant, database):
    acme = await make_tenant("acme")
    await use(database, acme, requests=1234, prompt_tokens=5000, completion_tokens=60, refused=3)
    await use(database, acme, days=40, model="acme@2", requests=7, completion_tokens=10)
    browser = await sign_in("acme", "viewer")
    month = (await browser.get(PATH)).text
    assert "In 30 days: 5,000 tokens in and 60 out." in month
    assert "today so far 5,060 tokens" in month
    assert "acme@2" not in month
    assert month.count("<title>") == 1 + 30  # of the page, and of each column
    asked = (await browser.get(f"{PATH}?days=90&measure=requests")).text
    assert "1,241 requests, of which 0 failed; 3 more were refused by a limit" in asked
    assert '<a href="/console/t/acme/release/2">acme@2</a>' in asked
    assert '<a href="?days=90&amp;measure=requests" aria-current="true">90 days</a>' in asked
    assert "Change the limits" not in asked
    nonsense = (await browser.get(f"{PATH}?days=8&measure=money")).text
    assert "In 30 days: 5,000 tokens in" in nonsense
    file = await browser.get(f"{PATH}/usage.csv?days=90")
    assert file.headers["content-disposition"] == 'attachment; filename="acme-usage.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [(row["model"], row["requests"], row["refused"]) for row in rows] == [
        ("tiny-base", "1234", "3"),
        ("acme@2", "7", "0"),
    ]


async def test_where_nothing_was_used_the_page_says_so(sign_in, make_tenant):
    await make_tenant("acme")
    page = (await (await sign_in("acme", "viewer")).get(f"{PATH}?days=7")).text
    assert "Nothing was used in 7 days" in page
    assert "No limit is set" in page


async def test_a_page_shows_how_near_each_limit_is(sign_in, make_tenant, database):
    acme = await make_tenant(
        "acme", limits=Limits(requests_per_day=10, tokens_per_day=100, concurrent_streams=4)
    )
    await use(database, acme, requests=8, prompt_tokens=120, completion_tokens=5)
    async with database.transaction() as session:
        asked = KeyRequest(label="shop", limits=Limits(tokens_per_minute=1000))
        await keys.create(session, asked, tenant=acme)
    browser = await sign_in("acme", "viewer")
    page = (await browser.get(PATH)).text
    for words in (
        '<b>Requests a day</b> <span class="chip warn">Near</span></span>',
        '<span class="num">8 of 10</span>',
        'aria-label="Tokens a day">125 of 100</meter>',
        'value="100" aria-label="Tokens a day"',
        "0 of 4",
        '<span class="chip bad">Reached</span>',
        "requests a minute, tokens a minute.",
        '<b>shop</b> <span class="quiet">1,000 tokens a minute</span>',
    ):
        assert words in page, words
    home = (await browser.get("/console/t/acme")).text
    assert '<a href="/console/t/acme/usage#limits">Tokens a day: 125 of 100</a>' in home
    assert '<a href="/console/t/acme/usage?days=7">Usage &amp; limits</a>' in home


async def test_limits_hold_from_the_next_request_on(
    sign_in, client, make_tenant, make_key, database
):
    acme = await make_tenant("acme")
    key = await make_key("acme")

    async def ask() -> int:
        answer = await client.post("/v1/chat/completions", json=CHAT, headers=key)
        return int(answer.status_code)

    assert await ask() == 503  # let in, and there is no engine here
    operator = await sign_in()
    form = {"whose": "own", "requests_per_minute": "1", "tokens_per_day": "1,000,000"}
    answer = await operator.post(f"{PATH}/limits", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}?done=limits")
    assert await limits_of(database) == Limits(requests_per_minute=1, tokens_per_day=1_000_000)
    assert [await ask(), await ask()] == [503, 429]
    page = (await operator.get(f"{PATH}?done=limits&measure=requests")).text
    assert "They hold from the next request on." in page
    assert "1 more were refused by a limit" in page
    assert "today so far 2 requests" in page
    answer = await operator.post(f"{PATH}/limits", data={"whose": "installation"})
    assert answer.status_code == 303
    assert await limits_of(database) is None
    assert await ask() == 503
    home = (await operator.get(f"/console/t/{acme.slug}")).text
    assert "1 request was refused today" in home


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5", "9" * 17, "٣"])
async def test_a_limit_that_is_no_number_is_refused_at_its_field(
    sign_in, make_tenant, database, wrong
):
    await make_tenant("acme", limits=Limits(requests_per_minute=5))
    operator = await sign_in()
    form = {"whose": "own", "requests_per_minute": "7", "tokens_per_day": wrong}
    answer = await operator.post(f"{PATH}/limits", data=form)
    assert answer.status_code == 422
    assert '<a href="#tokens_per_day">Tokens a day: give a whole number from 1 on' in answer.text
    assert 'value="7"' in answer.text
    assert await limits_of(database) == Limits(requests_per_minute=5)


async def test_only_operators_change_limits_as_in_the_api(sign_in, make_tenant, database):
    await make_tenant("acme", limits=Limits(requests_per_minute=5))
    admin = await sign_in("acme", "admin")
    assert "An operator of the installation changes them" in (await admin.get(PATH)).text
    for method in ("GET", "POST"):
        answer = await admin.request(method, f"{PATH}/limits", data={"whose": "installation"})
        assert answer.status_code == 403
    assert await limits_of(database) == Limits(requests_per_minute=5)
    operator = await sign_in()
    neither = await operator.post(f"{PATH}/limits", data={"whose": "mine"})
    assert neither.status_code == 422
    assert "Choose whose limits apply." in neither.text
    form = (await operator.get(f"{PATH}/limits")).text
    assert 'id="whose-own" name="whose" value="own" checked' in form
    assert 'name="requests_per_minute" type="text" value="5"' in form


async def test_operators_see_all_tenants_side_by_side(sign_in, make_tenant, database, monkeypatch):
    for slug in ("acme", "bistro", "zoo"):
        tenant = await make_tenant(slug, limits=Limits(requests_per_day=100))
        await use(database, tenant, requests=len(slug), gpu_seconds=1.0)
    monkeypatch.setattr(usage, "TENANTS_MOST", 2)
    operator = await sign_in()
    page = (await operator.get("/console/usage")).text
    assert page.index('href="/console/t/acme/usage?days=30">acme') < page.index(">bistro</a></th>")
    assert ">zoo</a></th>" not in page
    assert "33 %" in page
    assert "Requests a day: 4 of 100" in page
    rest = (await operator.get("/console/usage?days=30&after=bistro")).text
    assert (">zoo</a></th>" in rest, ">acme</a></th>" in rest) == (True, False)
    assert "There are no more tenants" in (await operator.get("/console/usage?after=zoo")).text
    file = await operator.get("/console/usage/usage.csv?days=7")
    assert [row["tenant"] for row in csv.DictReader(io.StringIO(file.text))] == [
        "acme",
        "bistro",
        "zoo",
    ]
    admin = await sign_in("zoo", "admin")
    assert (await admin.get("/console/usage")).status_code == 403
    assert "/console/usage" not in (await admin.get("/console/t/zoo/usage")).text
    assert "bistro" not in (await admin.get("/console/t/zoo/usage")).text
