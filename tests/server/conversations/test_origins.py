"""Which sites may show a widget."""

import pytest

from server.conversations import origins
from server.errors import Invalid


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://Shop.Example", "https://shop.example"),
        (" https://shop.example:443 ", "https://shop.example"),
        ("http://shop.example:8080", "http://shop.example:8080"),
        ("https://*.Shop.example", "https://*.shop.example"),
        ("http://[0:0::1]:80", "http://[::1]"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(written: str, kept: str) -> None:
    assert origins.normal(written) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop.example",
        "https://shop.example/path",
        "https://a.example https://b.example",
        "null",
        "https://*",
        "https://*.example",
        "https://*.127.0.0.1",
        "https://a.*.example.com",
        "chrome-extension://abcdef",
        "https://shop.example; script-src *",
        "https://shop.example\r\nx: y",
        "'unsafe-inline'",
        "https://" + "a" * 300,
    ],
)
def test_what_is_no_site_is_refused_at_its_field(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        origins.normal(text)
    assert refused.value.param == "origin"


def test_the_header_names_the_sites_and_the_visitors_own_machine_while_allowed() -> None:
    assert origins.frame_ancestors([], localhost=False) == "frame-ancestors 'self'"
    sites = origins.frame_ancestors(["https://a.example"], localhost=True)
    assert sites == (
        "frame-ancestors 'self' https://a.example http://localhost:* https://localhost:* "
        "http://127.0.0.1:* https://127.0.0.1:*"
    )


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example", True),
        ("https://a.example:8443", False),
        ("http://a.example", False),
        ("https://x.shop.example", True),
        ("https://x.y.shop.example", True),
        ("https://shop.example", False),
        ("https://evilshop.example", False),
        ("https://a.example.evil.example", False),
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://localhost.evil.example:80", False),
    ],
)
def test_a_page_is_allowed_where_the_header_allows_it(origin: str, allowed: bool) -> None:
    sites = ["https://a.example", "https://*.shop.example"]
    assert origins.allows(sites, origin, localhost=True) is allowed


def test_localhost_is_no_exception_once_it_is_turned_off() -> None:
    assert not origins.allows(["https://a.example"], "http://localhost:3000", localhost=False)
    assert origins.allows(["*"], "http://anything.example", localhost=False)


def test_the_origin_of_a_page_is_read_from_its_address_or_is_none() -> None:
    assert origins.of_page("https://Shop.example/a?b#c") == "https://shop.example"
    assert origins.of_page("about:blank") is None
    assert origins.of_page("https://[broken") is None
    assert origins.of_page("") is None
