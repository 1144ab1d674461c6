"""Signing in with a form and a link, and the ways around it that must fail."""

import re
from datetime import timedelta

import pytest
import structlog
from msgspec.structs import replace

from server import app as server_app
from server.accounts import sessions, tries
from server.db.models import SignInSession, SignInTry
from server.db.scope import of_installation
from server.logs import redact_event
from tests.server.web.console.pages.conftest import EMAIL, PASSWORD, enter, token_in

FORM = "/console/sign-in"
ACCOUNT = "/console/account"


async def test_signing_in_and_out_by_plain_forms(browser, make_person):
    await make_person()
    page = await browser.get(ACCOUNT)
    assert (page.status_code, page.headers["location"]) == (303, f"{FORM}?next={ACCOUNT}")
    page = await browser.get(page.headers["location"])
    assert f'name="next" value="{ACCOUNT}"' in page.text
    form = {"csrf_token": token_in(page), "email": EMAIL, "password": PASSWORD, "next": ACCOUNT}
    done = await browser.post(FORM, data=form)
    assert (done.status_code, done.headers["location"]) == (303, ACCOUNT)
    page = await browser.get(ACCOUNT)
    assert page.status_code == 200
    assert (await browser.get(FORM)).headers["location"] == "/console"
    out = await browser.post("/console/sign-out", data={"csrf_token": token_in(page)})
    assert (out.status_code, out.headers["location"]) == (303, FORM)
    assert "tt" not in browser.cookies
    assert (await browser.get(ACCOUNT)).status_code == 303


def cookie_of(answer, name):
    """A cookie's value and its attributes."""
    [found] = [one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{name}=")]
    value, *attributes = found.split(";")
    return value.partition("=")[2], {part.strip().lower() for part in attributes}


async def test_the_cookie_of_plain_http(browser, make_person):
    await make_person()
    value, attributes = cookie_of(await enter(browser), "tt")
    assert {"httponly", "path=/", "samesite=lax", "max-age=1209600"} <= attributes
    assert not any(each.startswith(("domain", "secure")) for each in attributes)
    assert re.fullmatch(r"tt_session_[0-9A-Za-z]{43}", value)


class TestBehindAProxy:
    """The proxy ends TLS, so the server itself is asked by http."""

    @pytest.fixture
    def app(self, settings, database, blobs):
        https = replace(settings, public_url="https://chat.example.com")
        return server_app.create_app(https, database=database, blobs=blobs)

    async def test_the_cookie_is_for_this_host_and_https(self, browser, make_person):
        await make_person()
        page = await browser.get(FORM)
        form_cookie, attributes = cookie_of(page, "__Host-tt-form")
        assert {"secure", "httponly", "path=/"} <= attributes
        form = {"csrf_token": token_in(page), "email": EMAIL, "password": PASSWORD}
        headers = {"cookie": f"__Host-tt-form={form_cookie}"}
        done = await browser.post(FORM, data=form, headers=headers)
        value, attributes = cookie_of(done, "__Host-tt")
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
        assert not any(each.startswith("domain") for each in attributes)
        # a cookie without the prefix, which another host of the domain could set, is not looked at
        page = await browser.get(ACCOUNT, headers={"cookie": f"tt={value}"})
        assert page.status_code == 303
        page = await browser.get(ACCOUNT, headers={"cookie": f"__Host-tt={value}"})
        assert page.status_code == 200

    async def test_its_origin_is_the_one_that_browsers_see(self, browser, make_person):
        await make_person()
        page = await browser.get(FORM)
        form_cookie, _ = cookie_of(page, "__Host-tt-form")
        del browser.headers["sec-fetch-site"]
        form = {"csrf_token": token_in(page), "email": EMAIL, "password": PASSWORD}
        for origin, status in (("http://test", 403), ("https://chat.example.com", 303)):
            headers = {"cookie": f"__Host-tt-form={form_cookie}", "origin": origin}
            assert (await browser.post(FORM, data=form, headers=headers)).status_code == status


async def test_all_refusals_look_alike_and_keep_the_address(browser, make_person):
    await make_person()
    pages = set()
    for email in (EMAIL, "nobody@example.com"):
        refused = await enter(browser, email, "wrong, all of it")
        assert refused.status_code == 422
        assert "do not belong together" in refused.text
        assert f'value="{email}"' in refused.text
        assert "wrong, all of it" not in refused.text
        pages.add(refused.text.replace(email, ""))
    assert len(pages) == 1
    assert "tt" not in browser.cookies


async def test_guessing_is_told_when_to_come_back(browser, database, make_person):
    await make_person()
    async with database.transaction() as session:
        for _ in range(tries.PER_EMAIL):
            await tries.count(session, EMAIL, address="")
    refused = await enter(browser)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 900
    assert "Try again in 15 minutes" in refused.text
    async with database.transaction() as session:
        for row in await session.scalars(of_installation().select(SignInTry)):
            row.created_at -= tries.WINDOW
    assert (await enter(browser)).status_code == 303


async def test_a_form_of_another_site_or_browser_signs_nobody_in(browser, make_person):
    await make_person()
    page = await browser.get(FORM)
    form = {"csrf_token": token_in(page), "email": EMAIL, "password": PASSWORD}
    for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        assert (await browser.post(FORM, data=form, headers=headers)).status_code == 403
    assert (await browser.post(FORM, data={**form, "csrf_token": "x"})).status_code == 403
    browser.cookies.clear()
    assert (await browser.post(FORM, data=form)).status_code == 403
    assert "tt" not in browser.cookies


async def test_a_session_that_an_attacker_planted_is_worth_nothing(browser, sign_in, make_person):
    await make_person()
    attacker = await sign_in()
    planted = attacker.cookies["tt"]
    for fixed in (planted, "tt_session_" + "x" * 43):
        browser.cookies.clear()
        page = await browser.get(FORM)
        browser.cookies.set("tt", fixed, domain="test.local", path="/")
        form = {"csrf_token": token_in(page), "email": EMAIL, "password": PASSWORD}
        done = await browser.post(FORM, data=form)
        value, _ = cookie_of(done, "tt")
        assert value != fixed
    page = await attacker.get(ACCOUNT)
    assert page.status_code == 303, "the planted session has ended with the sign-in"


async def test_a_stolen_cookie_ends_with_its_session(browser, sign_in, database, make_person):
    await make_person()
    await enter(browser)
    stolen = dict(browser.cookies)["tt"]
    thief = await sign_in()
    thief.cookies.set("tt", stolen, domain="", path="/")
    headers = {"cookie": f"tt={stolen}"}
    assert (await browser.get(ACCOUNT, headers=headers)).status_code == 200
    page = await browser.get(ACCOUNT)
    await browser.post("/console/sign-out", data={"csrf_token": token_in(page)})
    assert (await browser.get(ACCOUNT, headers=headers)).status_code == 303
    await enter(browser)
    for column, by in (("seen_at", sessions.IDLE), ("expires_at", sessions.LONGEST)):
        async with database.transaction() as session:
            for row in await session.scalars(of_installation().select(SignInSession)):
                setattr(row, column, getattr(row, column) - by)
        assert (await browser.get(ACCOUNT)).status_code == 303
        await enter(browser)
        assert (await browser.get(ACCOUNT)).status_code == 200


async def test_a_session_is_seen_every_few_minutes(browser, database, make_person):
    await make_person()
    await enter(browser)
    async with database.transaction() as session:
        [row] = await session.scalars(of_installation().select(SignInSession))
        row.seen_at -= timedelta(hours=11)
    before = row.seen_at
    await browser.get(ACCOUNT)
    async with database.reading() as session:
        [row] = await session.scalars(of_installation().select(SignInSession))
    assert row.seen_at - before > timedelta(hours=10)


async def test_the_first_link_makes_the_operator(browser, make_link):
    link = await make_link()
    page = await browser.get(link)
    assert page.status_code == 200
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    form = {"csrf_token": token_in(page), "email": EMAIL, "name": "Ana", "password": "short"}
    refused = await browser.post(link, data=form)
    assert refused.status_code == 422
    assert 'href="#password"' in refused.text
    assert f'value="{EMAIL}"' in refused.text
    done = await browser.post(link, data={**form, "password": PASSWORD})
    assert (done.status_code, done.headers["location"]) == (303, "/console")
    assert (await browser.get("/console/people")).status_code == 200
    for again in (await browser.get(link), await browser.get(await make_link())):
        assert again.status_code in (200, 404)
    other = await make_link()
    late = await browser.post(other, data={**form, "password": PASSWORD})
    assert late.status_code == 403, "the form's cookie has gone with signing in"


async def test_a_link_needs_the_form_of_this_browser_and_site(browser, make_person, make_link):
    await make_person()
    link = await make_link(EMAIL)
    page = await browser.get(link)
    form = {"csrf_token": token_in(page), "name": "", "password": "another long password"}
    headers = {"sec-fetch-site": "cross-site"}
    assert (await browser.post(link, data=form, headers=headers)).status_code == 403
    assert (await browser.post(link, data={**form, "csrf_token": ""})).status_code == 403
    done = await browser.post(link, data=form)
    assert done.status_code == 303
    gone = await browser.get(link)
    assert gone.status_code == 404
    assert "tenantune people link" in gone.text
    page = await browser.get("/console/sign-in/")
    assert page.status_code == 303


async def test_neither_links_nor_cookies_are_in_a_log(
    browser, database, make_person, make_link, monkeypatch
):
    await make_person()
    await enter(browser)
    cookie = browser.cookies["tt"]
    link = await make_link(EMAIL)

    def broken():
        raise RuntimeError(f"broken at {link} with {cookie}")

    monkeypatch.setattr(database, "reading", broken)
    with structlog.testing.capture_logs(
        processors=[structlog.processors.format_exc_info, redact_event]
    ) as said:
        assert (await browser.get(link)).status_code == 500
        assert (await browser.get(ACCOUNT)).status_code == 500
    text = repr(said)
    assert "/console/link/tt_link_***" in text
    assert link.rpartition("/")[2] not in text
    assert cookie not in text
