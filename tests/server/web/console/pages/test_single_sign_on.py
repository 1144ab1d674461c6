"""Signing in through an issuer: there and back, and everything that must not work."""

import json
from base64 import urlsafe_b64decode
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import RSAKey
from msgspec.structs import replace

from server import app as server_app
from server.accounts import oidc, service
from server.settings import Settings, SettingsError
from tests.server.accounts.fake_issuer import CLIENT_ID, CLIENT_SECRET, running
from tests.server.web.console.pages.conftest import EMAIL

BEGIN = "/console/sign-in/oidc"
ACCOUNT = "/console/account"
LONG_AGO = 1_700_000_000


@pytest.fixture
async def issuer():
    async with running() as made:
        yield made


@pytest.fixture
def options():
    """Settings of a test."""
    return {"oidc_domains": ("example.com",)}


@pytest.fixture
def app(settings, database, blobs, issuer, options):
    changed = replace(
        settings,
        public_url="http://test",
        oidc_issuer=issuer.url,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        **options,
    )
    return server_app.create_app(changed, database=database, blobs=blobs)


async def go(browser, issuer, begin=BEGIN):
    """Go there and come back."""
    sent = await browser.get(begin)
    assert sent.status_code == 303, sent.text
    return await browser.get(issuer.visit(sent.headers["location"]))


async def listed(database):
    async with database.reading() as session:
        return await service.list_all(session)


async def test_a_listed_domain_gets_an_account_and_keeps_it(browser, issuer, database):
    page = await browser.get(f"/console/sign-in?next={ACCOUNT}")
    assert f'href="{BEGIN}?next={ACCOUNT}"' in page.text.replace("%2F", "/")
    done = await go(browser, issuer, f"{BEGIN}?next={ACCOUNT}")
    assert (done.status_code, done.headers["location"]) == (303, ACCOUNT)
    assert "tt-flow" not in browser.cookies
    assert "ana@example.com" in (await browser.get(ACCOUNT)).text
    issuer.claims["email"] = "renamed@elsewhere.example"  # the subject is who it is
    assert (await go(browser, issuer)).status_code == 303
    [person] = await listed(database)
    assert (person.email, person.name, person.state, person.memberships) == (
        "ana@example.com",
        "Ana",
        "active",
        [],
    )


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "ana@elsewhere.example"},
        {"email": "ana@example.com.evil.example"},
        {"email_verified": False},
        {"email_verified": None},
        {"email": None},
    ],
)
async def test_an_address_alone_is_no_account(browser, issuer, make_person, database, claims):
    for email in (EMAIL, "ana@elsewhere.example"):
        await make_person(email)
    issuer.claims |= claims
    refused = await go(browser, issuer)
    assert refused.status_code == 403
    assert "Nobody here is known" in refused.text
    assert "tt" not in browser.cookies
    assert not any(person.has_single_sign_on for person in await listed(database))


async def test_an_address_belongs_to_one_subject(browser, issuer, make_person):
    await make_person(oidc_issuer=issuer.url, oidc_subject="ana-0")
    refused = await go(browser, issuer)
    assert refused.status_code == 403
    assert "another account" in refused.text


async def test_a_disabled_person_stays_out(browser, issuer, database):
    await go(browser, issuer)
    async with database.transaction() as session:
        person = await service.get_by_email(session, EMAIL)
        await service.set_disabled(session, person, to=True)
    assert (await go(browser, issuer)).status_code == 403
    assert (await browser.get(ACCOUNT)).status_code == 303


class TestInvited:
    """No domain is listed: a one-time link makes the account known."""

    @pytest.fixture
    def options(self):
        return {}

    async def test_a_link_is_enough_for_its_own_address(
        self, browser, issuer, make_person, make_link, database
    ):
        await make_person(password_hash=None)
        assert (await go(browser, issuer)).status_code == 403
        link = await make_link(EMAIL)
        assert f'href="{link}/oidc"' in (await browser.get(link)).text
        done = await go(browser, issuer, f"{link}/oidc")
        assert (done.status_code, done.headers["location"]) == (303, "/console")
        assert (await browser.get(link)).status_code == 404
        assert (await go(browser, issuer)).status_code == 303
        [person] = await listed(database)
        assert (person.state, person.has_password) == ("active", False)

    async def test_a_link_of_somebody_else_is_not(self, browser, issuer, make_person, make_link):
        await make_person("bo@example.com", password_hash=None)
        link = await make_link("bo@example.com")
        refused = await go(browser, issuer, f"{link}/oidc")
        assert refused.status_code == 403
        assert "bo@example.com" in refused.text
        assert (await browser.get(link)).status_code == 200, "it is not used up"


class TestRoles:
    """A claim decides what people may do."""

    @pytest.fixture
    def options(self):
        return {"oidc_domains": ("example.com",), "oidc_roles_claim": "groups"}

    async def test_roles_come_from_the_claim_each_time(
        self, browser, issuer, make_tenant, database
    ):
        for slug in ("acme", "zoo"):
            await make_tenant(slug)
        for groups, expected in (
            (["acme:admin", "zoo:viewer", "staff", "acme:boss", ":admin"], (False, 2)),
            (["acme:reviewer", "operator"], (True, 1)),
            ("acme:admin", (False, 0)),
            (None, (False, 0)),
        ):
            issuer.claims["groups"] = groups
            assert (await go(browser, issuer)).status_code == 303
            [person] = await listed(database)
            assert (person.is_operator, len(person.memberships)) == expected
            assert (await browser.get(ACCOUNT)).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another client"},
        {"aud": None},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"iss": "http://127.0.0.1:1"},
        {"iss": None},
        {"exp": LONG_AGO},
        {"exp": None},
        {"iat": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
    ],
    ids=lambda claims: "-".join(f"{name}={value}" for name, value in claims.items()),
)
async def test_a_token_for_something_else_is_refused(browser, issuer, database, claims):
    issuer.claims |= claims
    refused = await go(browser, issuer)
    assert refused.status_code == 403
    assert "tt" not in browser.cookies
    assert await listed(database) == []


async def test_a_forged_token_is_refused(browser, issuer):
    issuer.algorithm = "none"
    assert (await go(browser, issuer)).status_code == 403
    issuer.algorithm = "HS256"  # with the public key, in the hope that it is taken for a secret
    assert (await go(browser, issuer)).status_code == 403
    issuer.key, issuer.algorithm = RSAKey.generate_key(2048, {"kid": "one"}), "RS256"
    assert (await go(browser, issuer)).status_code == 403
    issuer.key = issuer.keys[0]
    assert (await go(browser, issuer)).status_code == 303


async def test_a_state_is_this_browsers_and_used_once(browser, issuer, client):
    sent = await browser.get(BEGIN)
    back = issuer.visit(sent.headers["location"])
    assert (await client.get(back)).status_code == 403, "another browser"
    cookie = browser.cookies["tt-flow"]
    assert (await browser.get(back)).status_code == 303
    browser.cookies.clear()
    assert (await browser.get(back)).status_code == 403, "again, without what was kept"
    headers = {"cookie": f"tt-flow={cookie}"}
    assert (await browser.get(back, headers=headers)).status_code == 403, "the code is used"
    flow = json.loads(urlsafe_b64decode(cookie))
    sent = await browser.get(BEGIN)
    assert parse_qs(urlsplit(sent.headers["location"]).query)["state"] != [flow["state"]]
    other = issuer.visit(sent.headers["location"])
    mixed = other.replace(parse_qs(urlsplit(other).query)["state"][0], flow["state"])
    assert (await browser.get(mixed)).status_code == 403, "a state of an earlier flow"
    for nonsense in (b"tt-flow=x", b"tt-flow=e30=", b"tt-flow=\xe4"):
        assert (await browser.get(back, headers={b"cookie": nonsense})).status_code == 403


async def test_a_code_of_another_browser_does_not_fit(browser, issuer, client):
    """A code that was caught is of no use: its verifier is with the browser that began."""
    theirs = await client.get(BEGIN)
    code = parse_qs(urlsplit(issuer.visit(theirs.headers["location"])).query)["code"][0]
    sent = await browser.get(BEGIN)
    mine = parse_qs(urlsplit(sent.headers["location"]).query)["state"][0]
    back = f"{BEGIN}/callback?code={code}&state={mine}"
    assert (await browser.get(back)).status_code == 403
    sent = await browser.get(BEGIN)
    mine = parse_qs(urlsplit(sent.headers["location"]).query)["state"][0]
    for answer in ("error=access_denied", "code=code-0&iss=http://127.0.0.1:1", ""):
        assert (await browser.get(f"{BEGIN}/callback?state={mine}&{answer}")).status_code == 403


async def test_new_keys_are_fetched_and_unknown_ones_not_for_ever(browser, issuer, monkeypatch):
    assert (await go(browser, issuer)).status_code == 303
    issuer.keys = [RSAKey.generate_key(2048, {"kid": "two"})]
    issuer.key = issuer.keys[0]
    assert (await go(browser, issuer)).status_code == 403, "it asked a moment ago"
    monkeypatch.setattr(oidc, "AGAIN_SECONDS", 0.0)
    assert (await go(browser, issuer)).status_code == 303
    assert issuer.fetched_keys == 2


async def test_an_issuer_of_another_name_is_not_asked(browser, issuer):
    issuer.named = "https://login.example.com"
    refused = await browser.get(BEGIN)
    assert refused.status_code == 503
    assert "use a password" in refused.text


async def test_without_an_issuer_there_is_a_password(settings, database, blobs, browser, client):
    environ = {"TENANTUNE_OIDC_ISSUER": "https://login.example.com"}
    with pytest.raises(SettingsError, match="PUBLIC_URL"):
        Settings.from_env(environ | {"TENANTUNE_OIDC_CLIENT_ID": "x"})
    for wrong in ("http://login.example.com", "login.example.com", "https://a b"):
        with pytest.raises(SettingsError, match="OIDC_ISSUER"):
            Settings.from_env({"TENANTUNE_OIDC_ISSUER": wrong})
    made = Settings.from_env(
        environ
        | {
            "TENANTUNE_OIDC_CLIENT_ID": "x",
            "TENANTUNE_PUBLIC_URL": "https://chat.example.com",
            "TENANTUNE_OIDC_DOMAINS": "Example.com, example.org",
        }
    )
    assert made.oidc_domains == ("example.com", "example.org")
