"""People: operators invite, give roles, and keep out."""

import re

import pytest

from server.accounts import service
from tests.server.web.console.pages.conftest import EMAIL, PASSWORD, enter, token_in

PEOPLE = "/console/people"


@pytest.fixture
async def boss(sign_in):
    return await sign_in()


async def path_of(database, email=EMAIL):
    async with database.reading() as session:
        return f"{PEOPLE}/{(await service.get_by_email(session, email)).id}"


async def test_an_invited_person_signs_in_with_a_role(boss, browser, make_tenant, database):
    await make_tenant("acme", name="Acme Ltd")
    form = {"email": " Ana@Example.com", "name": "Ana", "tenant": "acme", "role": "reviewer"}
    made = await boss.post(PEOPLE, data=form)
    assert made.status_code == 201
    [link] = re.findall(r"http://127\.0\.0\.1:8000(/console/link/tt_link_[0-9A-Za-z]+)", made.text)
    listed = await boss.get(PEOPLE)
    assert "Acme Ltd: reviewer" in listed.text
    assert "Invited" in listed.text
    assert "tt_link_" not in listed.text + (await boss.get(await path_of(database))).text
    page = await browser.get(link)
    form = {"csrf_token": token_in(page), "name": "", "password": PASSWORD}
    assert (await browser.post(link, data=form)).status_code == 303
    assert (await browser.get("/console")).headers["location"] == "/console/t/acme"
    assert "Acme Ltd" in (await browser.get("/console/account")).text
    assert (await browser.get(PEOPLE)).status_code == 403


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"email": "ana", "tenant": "acme"}, "email"),
        ({"email": EMAIL, "tenant": ""}, "tenant"),
        ({"email": EMAIL, "tenant": "nobody"}, "tenant"),
        ({"email": EMAIL, "tenant": "acme", "name": "x" * 201}, "name"),
    ],
)
async def test_an_invitation_says_what_is_wrong_where(boss, make_tenant, form, field):
    await make_tenant("acme")
    refused = await boss.post(PEOPLE, data=form)
    assert refused.status_code == 422
    assert f'href="#{field}"' in refused.text
    assert f'id="{field}-error"' in refused.text
    assert f'value="{form["email"]}"' in refused.text
    assert EMAIL not in (await boss.get(PEOPLE)).text


async def test_roles_change_and_end_sessions(boss, browser, make_person, make_tenant, database):
    await make_person()
    await make_tenant("acme")
    person = await path_of(database)
    for form in (
        {"tenant": "acme", "role": "admin"},
        {"tenant": "acme", "role": "viewer"},
        {"tenant": "acme", "role": ""},
    ):
        await enter(browser)
        assert (await boss.post(f"{person}/role", data=form)).status_code == 303
        assert (await browser.get("/console/account")).status_code == 303, form
        shown = await boss.get(f"{person}?done=role")
        assert ("No role in a tenant" in shown.text) == (form["role"] == "")
    assert (await boss.post(f"{person}/role", data={"tenant": "nobody"})).status_code == 404
    assert (await boss.get(f"{PEOPLE}/nobody")).status_code == 404


async def test_a_person_is_kept_out_and_let_in_again(boss, browser, make_person, database):
    await make_person()
    await enter(browser)
    person = await path_of(database)
    assert "Sign out everywhere" in (await boss.get(person)).text
    assert (await boss.post(f"{person}/sign-out")).status_code == 303
    assert (await browser.get("/console/account")).status_code == 303
    await enter(browser)
    await boss.post(f"{person}/disable")
    assert (await browser.get("/console/account")).status_code == 303
    assert (await enter(browser)).status_code == 422
    refused = await boss.post(f"{person}/link")
    assert refused.status_code == 409
    assert "is disabled" in refused.text
    await boss.post(f"{person}/enable")
    assert (await enter(browser)).status_code == 303
    assert (await boss.post(f"{person}/link")).status_code == 201


async def test_the_last_operator_stays(browser, make_person, database):
    await make_person(is_operator=True)
    await enter(browser)
    page = await browser.get(await path_of(database))
    form = {"csrf_token": token_in(page), "to": "no"}
    for change in ("operator", "disable"):
        refused = await browser.post(f"{await path_of(database)}/{change}", data=form)
        assert refused.status_code == 409
        assert "only operator" in refused.text
    await make_person("second@example.com", is_operator=True)
    done = await browser.post(f"{await path_of(database)}/operator", data=form)
    assert done.status_code == 303
    assert (await browser.get(PEOPLE)).status_code == 303
