"""Pages from templates, and errors as pages."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from jinja2 import UndefinedError
from litestar import Controller, Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from server import app as server_app
from server.errors import Forbidden, Invalid, TooMany, Unavailable
from server.web.console import rendering
from server.web.console.rendering import environment, initial, iso, page, utc
from server.web.console.session import signed_in

PART = {"hx-request": "true", "hx-request-type": "partial"}
RAISED: dict[str, Exception] = {
    "403": Forbidden("Reviewers do not start runs."),
    "422": Invalid("The bound must be above 0."),
    "429": TooMany("Too many runs.", retry_after_seconds=9),
    "500": RuntimeError("a secret of ours"),
    "503": Unavailable("The engine starts.", retry_after_seconds=7),
}


class Probe(Controller):
    path = "/console/t/{slug:str}/probe"
    guards = (signed_in("viewer"),)

    @get()
    async def show(self, request: Request[Any, Any, Any]) -> Response[str]:
        return await page(request, "probe.html", said="<b>&</b>")

    @get("/raises/{which:str}")
    async def fail(self, which: FromPath[str]) -> None:
        raise RAISED[which]

    @post()
    async def change(self) -> None:
        raise HTTPException(status_code=409, detail="It runs already.")


PROBE = """{% extends "base.html" %}{% block title %}Probe{% endblock %}
{% block content %}<p>{{ said }}</p>{{ csrf_field() }}{% endblock %}"""


@pytest.fixture
def app(settings, database, blobs, monkeypatch):
    monkeypatch.setattr(server_app, "CONSOLE", (*server_app.CONSOLE, Probe))
    made = environment().from_string(PROBE)
    found = environment().get_template
    monkeypatch.setattr(
        environment(),
        "get_template",
        lambda name, *rest: made if name == "probe.html" else found(name, *rest),
    )
    return server_app.create_app(settings, database=database, blobs=blobs)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


async def test_a_page_escapes_what_it_shows_and_names_its_tenant(sign_in, make_tenant):
    await make_tenant("acme", name="Acme <Ltd>")
    browser = await sign_in("acme", "viewer")
    answer = await browser.get("/console/t/acme/probe")
    assert answer.status_code == 200
    assert "<p>&lt;b&gt;&amp;&lt;/b&gt;</p>" in answer.text
    assert "<title>Probe · Acme &lt;Ltd&gt; · Tenantune</title>" in answer.text
    token = browser.headers["x-csrf-token"]
    assert f'<input type="hidden" name="csrf_token" value="{token}">' in answer.text
    assert f'hx-headers:inherited="{{&#34;x-csrf-token&#34;: &#34;{token}&#34;}}"' in answer.text


async def test_a_page_loads_from_this_server_alone_and_is_kept_nowhere(sign_in, make_tenant):
    await make_tenant("acme")
    headers = (await (await sign_in("acme")).get("/console/t/acme/probe")).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "frame-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("which", "status", "said"),
    [
        ("403", 403, "Reviewers do not start runs."),
        ("422", 422, "The bound must be above 0."),
        ("429", 429, "Too many runs."),
        ("500", 500, "The fault is on our side"),
        ("503", 503, "The engine starts."),
    ],
)
async def test_an_error_is_a_page_or_a_part_of_one(sign_in, make_tenant, which, status, said):
    await make_tenant("acme")
    browser = await sign_in("acme")
    whole = await browser.get(f"/console/t/acme/probe/raises/{which}")
    part = await browser.get(f"/console/t/acme/probe/raises/{which}", headers=PART)
    for answer in (whole, part):
        assert answer.status_code == status
        assert said in answer.text
        assert "secret" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        told = answer.headers["x-request-id"] in answer.text
        assert told is (status >= 500)
    assert whole.text.startswith("<!doctype html>")
    assert "<html" not in part.text
    wait = {"429": "9", "503": "7"}.get(which)
    assert whole.headers.get("retry-after") == wait


async def test_addresses_that_lead_nowhere_are_pages_below_the_console_only(sign_in, make_tenant):
    await make_tenant("acme")
    browser = await sign_in("acme")
    for path in ("/console/nothing", "/console/t/acme/nothing", "/console/t/nobody/probe"):
        missing = await browser.get(path)
        assert missing.status_code == 404
        assert "There is no such page" in missing.text
    wrong = await browser.post("/console/t/acme/probe/raises/500")
    assert wrong.status_code == 405
    assert "POST" not in wrong.headers["allow"]
    assert "<h1" in wrong.text
    busy = await browser.post("/console/t/acme/probe")
    assert busy.status_code == 409
    assert "This is not possible now" in busy.text
    for path, kind in (
        ("/v1/nothing", "application/json"),
        ("/admin/nothing", "application/problem+json"),
        ("/consolex", "application/problem+json"),
    ):
        other = await browser.get(path)
        assert (other.status_code, other.headers["content-type"]) == (404, kind)


async def test_a_page_is_compressed_for_those_who_take_it(sign_in, make_tenant):
    await make_tenant("acme")
    browser = await sign_in("acme")
    for path in ("/console/t/acme/probe", "/console/nothing"):
        small = await browser.get(path, headers={"accept-encoding": "gzip"})
        plain = await browser.get(path, headers={"accept-encoding": "identity"})
        assert small.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert {answer.headers["vary"] for answer in (small, plain)} == {"accept-encoding"}
        assert int(small.headers["content-length"]) < len(plain.content) / 2
        assert "</html>" in small.text


def test_what_a_template_lacks_is_an_error_unless_a_dict_may_lack_it():
    made = environment()
    assert made.from_string("{{ item.note }}{% if item.state %}x{% endif %}").render(item={}) == ""
    assert made.from_string("{% for each in item.parts %}x{% endfor %}").render(item={}) == ""
    for text in ("{{ nothing }}", "{% if nothing %}{% endif %}", "{{ item.note }}"):
        with pytest.raises(UndefinedError):
            made.from_string(text).render(item=object())


def test_moments_are_said_in_utc():
    moment = datetime(2026, 11, 9, 23, 5, 1, tzinfo=timezone(timedelta(hours=-2)))
    assert iso(moment) == "2026-11-10T01:05:01Z"
    assert utc(moment) == "10 Nov 2026, 01:05"
    assert utc(moment, "day") == "10 Nov 2026"
    assert utc(moment.astimezone(UTC), "clock") == "01:05"


@pytest.mark.parametrize(
    ("name", "letter"), [("Lumen & Loaf", "L"), ("“émile”", "É"), ("--", "?"), ("日本", "日")]
)
def test_a_letter_stands_for_a_name(name, letter):
    assert initial(name) == letter


def test_every_template_can_be_read():
    names = rendering.environment().list_templates()
    assert "base.html" in names
    for name in names:
        assert environment().get_template(name)
