"""The checks that every browser test makes find what they are for."""

import pytest

from tests.browser.checks import accessibility_faults, sideways, small_targets
from tests.browser.conftest import Visits

GALLERY = "/console/t/loaf/gallery"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (
            "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
            "content security policy: script-src-elem refused inline",
        ),
        (
            "document.body.setAttribute('style', 'color: red')",
            "content security policy: style-src-attr refused inline",
        ),
        (
            "document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.example/x.png'}))",
            "content security policy: img-src refused https://elsewhere.example/x.png",
        ),
        (
            "document.body.append(Object.assign(new Image(), {src: '/static/0/nothing.svg'}))",
            "404 for the image",
        ),
        ("setTimeout(() => { throw new Error('lost') })", "not caught: lost"),
        ("console.error('told')", "console: told"),
        (
            "location.assign('http://elsewhere.example/')",
            "foreign request: http://elsewhere.example/",
        ),
    ],
)
def test_what_is_wrong_with_a_page_is_seen(visit: Visits, script: str, fault: str) -> None:
    page = visit(GALLERY, "loaf:admin")
    page.route("**://elsewhere.example/**", lambda route: route.fulfill(body="x"))
    assert not visit.faults
    page.evaluate(script)
    page.wait_for_timeout(300)
    assert any(fault in found for found in visit.faults), visit.faults
    visit.forgive()


def test_what_cannot_be_read_or_hit_is_found(visit: Visits) -> None:
    page = visit(GALLERY, "loaf:admin", width=360)
    page.evaluate(
        """() => {
          const button = document.createElement("button");
          button.style.cssText = "inline-size: 400px; block-size: 10px; padding: 0; color: #bbb";
          document.querySelector("main").append(button);
        }"""
    )
    assert sideways(page)[0] == "416 of 360 px"
    assert [fault[:10] for fault in small_targets(page)] == ["400 x 10: "]
    assert any("button-name" in fault for fault in accessibility_faults(page))
