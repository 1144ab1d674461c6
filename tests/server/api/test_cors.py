"""What browsers ask before and after a page's request: preflights, and headers to read."""

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from server.api.cors import EXPOSED_HEADERS
from server.db.session import Database
from server.origins import origins
from server.settings import Settings
from tests.server.serving import QUESTION, Serving, database_url, server, serving

__all__ = ["database_url", "server"]

PAGE = "https://app.example.com"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


@pytest_asyncio.fixture
async def open_server(settings: Settings, database: Database) -> AsyncIterator[Serving]:
    """A server that two pages may call."""
    allowed = msgspec.structs.replace(settings, cors_origins=(PAGE, "http://localhost:3000"))
    async with serving(allowed, database, tokens_per_second=2000) as made:
        yield made


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/v1/models", "/nowhere"])
async def test_a_preflight_of_an_allowed_page_is_answered_without_a_key(
    open_server: Serving, path: str
) -> None:
    async with open_server.session.options(open_server.url + path, headers=PREFLIGHT) as answer:
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "content-type", "x-stainless-lang"} <= set(allowed)
        assert int(answer.headers["access-control-max-age"]) > 0
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


async def test_another_page_is_not_let_in(open_server: Serving) -> None:
    for page in ("https://evil.example.com", f"{PAGE}.evil.com", "null", "http://app.example.com"):
        said = {**PREFLIGHT, "origin": page}
        async with open_server.session.options(f"{open_server.url}/v1/models", headers=said) as no:
            assert no.status == 400
            assert "access-control-allow-origin" not in no.headers
            assert no.headers["vary"] == "Origin"
        async with open_server.session.get(f"{open_server.url}/health/live", headers=said) as no:
            assert "access-control-allow-origin" not in no.headers
            assert no.headers["vary"] == "Origin"


async def test_answers_errors_and_streams_may_be_read_by_an_allowed_page(
    open_server: Serving,
) -> None:
    await open_server.tenant(limits={"requests_per_minute": 100})
    await open_server.adapter()
    key = await open_server.key()
    for headers, body, status in (
        ({}, {}, 401),
        ({"authorization": f"Bearer {key}"}, {"model": "nobody", "messages": [QUESTION]}, 404),
        ({"authorization": f"Bearer {key}"}, {"model": "acme", "messages": [QUESTION]}, 200),
        (
            {"authorization": f"Bearer {key}"},
            {"model": "acme", "messages": [QUESTION], "stream": True},
            200,
        ),
    ):
        async with open_server.session.post(
            f"{open_server.url}/v1/chat/completions", json=body, headers={**headers, "origin": PAGE}
        ) as answer:
            text = await answer.text()
            assert answer.status == status, text
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["vary"] == "Origin"
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert exposed == sorted(EXPOSED_HEADERS)
            for name in answer.headers:
                if name.lower().startswith("x-r"):
                    assert name.lower() in exposed


async def test_no_page_may_call_a_server_that_allows_none(server: Serving) -> None:
    async with server.session.options(f"{server.url}/v1/models", headers=PREFLIGHT) as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    async with server.session.get(f"{server.url}/health/live", headers=PREFLIGHT) as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_every_page_may_where_that_is_said(settings: Settings, database: Database) -> None:
    allowed = msgspec.structs.replace(settings, cors_origins=("*",))
    async with serving(allowed, database) as open_server:
        said = {**PREFLIGHT, "origin": "https://anything.example"}
        url = f"{open_server.url}/v1/models"
        async with open_server.session.options(url, headers=said) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")
        async with open_server.session.get(url, headers=said) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, "*")
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("https://App.Example.com:443", (PAGE,)),
        ("http://localhost:3000, https://app.example.com", ("http://localhost:3000", PAGE)),
        (f"{PAGE} {PAGE}:8443", (PAGE, f"{PAGE}:8443")),
        ("http://[0:0::1]:80", ("http://[::1]",)),
        ("chrome-extension://abcdefgh", ("chrome-extension://abcdefgh",)),
        ("*", ("*",)),
    ],
)
def test_origins_are_read_in_the_form_that_browsers_send(text: str, found: tuple[str, ...]) -> None:
    assert origins(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("app.example.com", "did you mean https://app.example.com?"),
        ("https://app.example.com/", "did you mean https://app.example.com?"),
        ("https://app.example.com/chat", "did you mean https://app.example.com?"),
        ("https://*.example.com", "stands alone"),
        (f"* {PAGE}", "name it alone"),
        ("null", "any page can be of the origin 'null'"),
        ("https://me@example.com", "write scheme://host"),
        ("https://bücher.example", "punycode"),
        ("https://a.example:99999", "65535"),
        ("http://[::g]", "no origin"),
    ],
)
def test_what_is_no_origin_is_refused_with_advice(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="origin") as refused:
        origins(text)
    assert words in str(refused.value)
