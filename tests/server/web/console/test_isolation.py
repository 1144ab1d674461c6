"""Every page of the console, those of later included: who is let in, and to which tenants."""

import re

import pytest
from litestar.routes import HTTPRoute

from server import app as server_app
from server.web.console.session import SAFE_METHODS, from_anonymous_form
from tests.server.web.console.test_session import Probe

OPEN = {  # for people who are not signed in
    "/console/sign-in",
    "/console/sign-in/oidc",
    "/console/sign-in/oidc/callback",
    "/console/link/{token}",
    "/console/link/{token}/oidc",
}


@pytest.fixture
def app(settings, database, blobs, monkeypatch):
    """The application, with a page of a tenant that both reads and changes."""
    monkeypatch.setattr(server_app, "CONSOLE", (*server_app.CONSOLE, Probe))
    return server_app.create_app(settings, database=database, blobs=blobs)


def console_routes(app):
    """(path, handler, method) of all that is under ``/console``."""
    return [
        (route.path_format, handler, str(method))
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path_format.startswith("/console")
        for handler in route.route_handlers
        for method in sorted(handler.http_methods)
        if method != "OPTIONS"
    ]


def filled(path, slug):
    """A path with a tenant's slug, and something for every other parameter."""
    return re.sub(r"\{\w+\}", "0" * 32, path.replace("{slug}", slug))


def guards_of(handler):
    return handler.resolve_guards()


def test_every_page_has_a_guard(app):
    routes = console_routes(app)
    assert len(routes) > 20
    for path, handler, method in routes:
        guards = guards_of(handler)
        if path in OPEN:
            assert from_anonymous_form in guards, (method, path)
        else:
            roles = [guard.role for guard in guards if hasattr(guard, "role")]
            assert roles, f"{method} {path} has no signed_in(...) among its guards"
            assert "{slug}" not in path or roles[-1] != "operator" or len(roles) > 1


async def test_nobody_sees_a_page_without_signing_in(app, client, make_tenant):
    await make_tenant("acme")
    for path, _handler, method in console_routes(app):
        if path not in OPEN:
            headers = {"sec-fetch-site": "same-origin"}
            answer = await client.request(method, filled(path, "acme"), headers=headers)
            assert answer.status_code == 303, (method, path)
            assert answer.headers["location"].startswith("/console/sign-in"), (method, path)


async def test_another_tenants_pages_are_not_there(app, sign_in, make_tenant):
    await make_tenant("acme")
    await make_tenant("zoo")
    browser = await sign_in("zoo", "admin")
    seen = 0
    for path, _handler, method in console_routes(app):
        if "{slug}" not in path:
            continue
        seen += 1
        theirs = await browser.request(method, filled(path, "acme"))
        nobodys = await browser.request(method, filled(path, "nobody"))
        assert (theirs.status_code, nobodys.status_code) == (404, 404), (method, path)
        assert theirs.text.replace("acme", "nobody") == nobodys.text, (method, path)
    assert seen > 1


async def test_pages_of_the_installation_are_the_operators(app, sign_in, make_tenant):
    await make_tenant("zoo")
    browser = await sign_in("zoo", "admin")
    for path, handler, method in console_routes(app):
        if "operator" in [getattr(guard, "role", None) for guard in guards_of(handler)]:
            answer = await browser.request(method, filled(path, "zoo"))
            assert answer.status_code == 403, (method, path)


async def test_no_page_takes_a_form_from_elsewhere(app, sign_in, make_tenant):
    await make_tenant("acme")
    boss = await sign_in()
    token = boss.headers.pop("x-csrf-token")
    unsafe = [
        (path, method)
        for path, _handler, method in console_routes(app)
        if method not in SAFE_METHODS
    ]
    assert unsafe
    for path, method in unsafe:
        url = filled(path, "acme")
        assert (await boss.request(method, url)).status_code == 403, (method, path)
        for headers in (
            {"sec-fetch-site": "cross-site", "x-csrf-token": token},
            {"sec-fetch-site": "same-site", "x-csrf-token": token},
        ):
            answer = await boss.request(method, url, headers=headers)
            assert answer.status_code == 403, (method, path, headers)


async def test_no_page_is_for_other_sites_frames_or_caches(app, sign_in):
    boss = await sign_in()
    for path, _handler, method in console_routes(app):
        if method == "GET" and "{" not in path:
            answer = await boss.get(path)
            if answer.status_code == 303:
                continue
            assert answer.status_code == 200 or path in OPEN, path
            assert answer.headers["cache-control"] == "no-store", path
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy, path
            script = "default-src 'none'" if path.endswith(".csv") else "script-src 'self';"
            assert script in policy, path
