"""Who passes the console's guards, over a controller of the test's own."""

import pytest
from litestar import Controller, get, post
from litestar.di import NamedDependency

from server import app as server_app
from server.accounts.schemas import Viewer
from server.db.models import Tenant
from server.web.console.session import safe_next, signed_in
from tests.server.web.conftest import SAME_ORIGIN


class Probe(Controller):
    path = "/console/t/{slug:str}/probe"

    @get(guards=[signed_in("viewer")])
    async def read(
        self, viewer: NamedDependency[Viewer], tenant: NamedDependency[Tenant]
    ) -> dict[str, str]:
        return {"actor": viewer.actor, "tenant": tenant.slug}

    @post(guards=[signed_in("admin")], status_code=200)
    async def change(self, viewer: NamedDependency[Viewer]) -> str:
        return viewer.csrf_token


@pytest.fixture
def app(settings, database, blobs, monkeypatch):
    monkeypatch.setattr(server_app, "CONSOLE", (*server_app.CONSOLE, Probe))
    return server_app.create_app(settings, database=database, blobs=blobs)


PAGE = "/console/t/acme/probe"


async def test_a_page_asks_to_sign_in_and_comes_back(client, make_tenant):
    await make_tenant("acme")
    answer = await client.get(f"{PAGE}?a=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=/console/t/acme/probe%3Fa%3D1"
    part = await client.get(PAGE, headers={"hx-request": "true", "hx-current-url": "http://test/x"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/console/sign-in")


async def test_roles_of_a_tenant_include_the_ones_before(sign_in, make_tenant):
    await make_tenant("acme")
    for role, status in (("viewer", 403), ("reviewer", 403), ("admin", 200)):
        browser = await sign_in("acme", role)
        assert (await browser.get(PAGE)).status_code == 200, role
        assert (await browser.post(PAGE)).status_code == status, role


async def test_another_tenant_answers_as_one_that_is_not_there(sign_in, make_tenant):
    await make_tenant("acme")
    await make_tenant("zoo")
    browser = await sign_in("zoo")
    theirs = await browser.get(PAGE)
    nobodys = await browser.get(PAGE.replace("acme", "nobody"))
    assert (theirs.status_code, nobodys.status_code) == (404, 404)
    assert "There is no tenant &#39;acme&#39;." in theirs.text
    assert theirs.text.replace("acme", "nobody") == nobodys.text
    operator = await sign_in()
    assert (await operator.get(PAGE)).json()["tenant"] == "acme"


@pytest.mark.parametrize(
    ("target", "page"),
    [
        ("/console/t/acme?page=2", "/console/t/acme?page=2"),
        ("//evil.example", "/console"),
        ("/console//evil.example", "/console"),
        ("/consolex", "/console"),
        ("https://evil.example/console", "/console"),
        ("/console\\evil", "/console"),
        ("/console/\r\nset-cookie: a=b", "/console"),
        ("", "/console"),
    ],
)
def test_signing_in_goes_on_to_pages_of_the_console_only(target, page):
    assert safe_next(target) == page


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (SAME_ORIGIN, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://test"}, 403),
        ({"origin": "http://test"}, 200),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
async def test_a_change_comes_from_a_page_of_ours(sign_in, make_tenant, headers, status):
    await make_tenant("acme")
    browser = await sign_in("acme")
    del browser.headers["sec-fetch-site"]
    assert (await browser.post(PAGE, headers=headers)).status_code == status


async def test_a_change_has_the_token_of_its_session(sign_in, make_tenant):
    await make_tenant("acme")
    browser, other = await sign_in("acme"), await sign_in()
    token = browser.headers.pop("x-csrf-token")
    assert (await browser.post(PAGE)).status_code == 403
    assert (await browser.post(PAGE, data={"csrf_token": token})).text == token
    foreign = other.headers["x-csrf-token"]
    for wrong in (foreign, "", "x", "ä"):
        assert (await browser.post(PAGE, data={"csrf_token": wrong})).status_code == 403
    assert (await browser.post(PAGE, params={"csrf_token": token})).status_code == 403
    files = {"file": b"1"}
    assert (await browser.post(PAGE, files=files, data={"csrf_token": token})).status_code == 403
    assert (await browser.post(PAGE, files=files, params={"csrf_token": token})).status_code == 200
    headers = {"x-csrf-token": token}
    assert (await browser.post(PAGE, files=files, headers=headers)).status_code == 200
