"""What the script does to the page that includes it."""

import gzip
from datetime import UTC, datetime, timedelta

import pytest

from server.web.static import static_files
from tests.browser.widget.conftest import Chat, Visitors, Widget, until

LOADER_BYTES = 2048
SUGGESTED = "Where is my order?"

_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
_BLOCKED = """
Object.defineProperty(window, "localStorage", { get() { throw new DOMException("blocked", "SecurityError"); } });
"""


def test_the_loader_has_two_kilobytes_at_most() -> None:
    assert len(gzip.compress(static_files()["widget.js"].content, 9)) <= LOADER_BYTES


def test_nothing_but_the_loader_is_asked_for_before_the_first_click(
    chat: Chat, visitor: Visitors
) -> None:
    asked: list[str] = []
    widget = visitor(chat.page())
    widget.page.on("request", lambda request: asked.append(request.url))
    widget.page.reload()
    widget.button.wait_for()
    widget.page.wait_for_load_state("networkidle")
    assert [url.removeprefix(chat.site.url) for url in asked[1:]] == ["/widget.js"]
    assert widget.page.context.cookies() == []
    assert widget.page.evaluate("localStorage.length") == 0


def test_it_works_under_the_strictest_policy(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()  # the shop's pages have it, and Watch listens
    widget.ask("Can I skip a week?")
    assert (
        widget.page.evaluate(
            "document.querySelector('tenantune-chat').shadowRoot.adoptedStyleSheets.length"
        )
        == 1
    )
    assert widget.page.locator("style, link").count() == 0


def test_included_twice_it_is_there_once(chat: Chat, visitor: Visitors) -> None:
    tag = chat.shop.tag(chat.keys["loaf"])
    widget = visitor(chat.shop.write(tag, tag))
    widget.page.wait_for_load_state("networkidle")
    assert widget.page.locator("tenantune-chat").count() == 1


def test_a_second_tenant_stands_beside_the_first(chat: Chat, visitor: Visitors) -> None:
    place = "inset-block-end: 100px"
    tags = (
        chat.shop.tag(chat.keys["loaf"], label="Questions?"),
        chat.shop.tag(chat.keys["northgate"], label="Parcels?", instance="parcels", theme=place),
    )
    page = visitor(chat.shop.write(*tags)).page
    page.locator("tenantune-chat").nth(1).wait_for(state="attached")
    page.evaluate("Tenantune.all.parcels.open()")
    panel = page.frame_locator("tenantune-chat iframe")
    panel.get_by_role("heading", name="Northgate Parcel Logistics").wait_for()
    assert page.locator("tenantune-chat iframe").count() == 1
    page.get_by_role("button", name="Questions?").click()
    first = page.get_by_role("region", name="Questions?").locator("iframe").content_frame
    first.get_by_role("heading", name="Lumen & Loaf").wait_for()


def test_it_survives_a_page_that_replaces_its_body(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.ask("Can I skip a week?")
    widget.page.evaluate(
        "document.documentElement.replaceChild(document.createElement('body'), document.body)"
    )
    assert widget.panel.locator(".me").count() == 1
    widget.ask("And the week after?")
    assert widget.page.locator("tenantune-chat").count() == 1


def test_it_can_be_taken_away_and_included_again(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.page.evaluate("Tenantune.destroy()")
    assert widget.page.locator("tenantune-chat").count() == 0
    assert widget.page.evaluate("typeof Tenantune") == "undefined"


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_on_the_page_moves(chat: Chat, visitor: Visitors, width: int) -> None:
    widget = visitor(chat.page(teaser="Bread not rising?"), width=width, script=_SHIFTS).open()
    widget.field.press("Escape")
    widget.page.wait_for_timeout(200)  # entries come with the next frame
    assert widget.page.evaluate("shifts") == 0


def test_blocked_storage_costs_the_resuming_and_nothing_else(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page(teaser="Bread not rising?"), script=_BLOCKED).open()
    widget.ask("Can I skip a week?")
    widget.page.reload()
    widget = Widget(widget.page).open()
    widget.panel.get_by_text(SUGGESTED).wait_for()
    assert widget.panel.locator(".me").count() == 0


def test_the_teaser_takes_no_focus_and_stays_away_for_a_week(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page(teaser="Bread not rising?"))
    teaser = widget.page.get_by_text("Bread not rising?")
    teaser.wait_for()
    assert widget.page.evaluate("document.activeElement === document.body")
    widget.page.get_by_role("button", name="OK").click()
    assert teaser.count() == 0
    dismissed = datetime.now(UTC)
    for days, shown in ((6, 0), (8, 1)):
        widget.page.clock.set_fixed_time(dismissed + timedelta(days=days))
        widget.page.reload()
        widget.button.wait_for()
        assert teaser.count() == shown, days


def test_escape_closes_and_the_focus_returns(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page())
    widget.button.focus()
    widget.page.keyboard.press("Enter")
    widget.panel.locator("#field:focus").wait_for()
    assert widget.button.get_attribute("aria-expanded") == "true"
    widget.page.keyboard.press("Escape")
    until(widget.page, "document.activeElement.shadowRoot?.activeElement?.ariaExpanded === 'false'")


def test_on_a_small_screen_the_page_behind_is_inert_and_does_not_scroll(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page(), width=360)
    widget.page.evaluate("document.documentElement.style.overflow = 'clip'")
    widget.open()
    box = widget.page.locator("tenantune-chat dialog")
    assert box.evaluate("(box) => box.matches(':modal')")
    assert box.bounding_box() == {"x": 0, "y": 0, "width": 360, "height": 740}
    assert widget.page.evaluate("document.documentElement.style.overflow") == "hidden"
    widget.page.evaluate("document.querySelector('#basket').focus()")
    assert widget.page.evaluate("document.activeElement.id") != "basket"
    widget.field.press("Escape")
    box.wait_for(state="hidden")
    assert widget.page.evaluate("document.documentElement.style.overflow") == "clip"
    widget.page.evaluate("document.querySelector('#basket').focus()")
    assert widget.page.evaluate("document.activeElement.id") == "basket"


def test_on_a_wide_screen_the_page_goes_on(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    assert not widget.page.locator("tenantune-chat dialog").evaluate(
        "(box) => box.matches(':modal')"
    )
    widget.page.locator("#basket").click()
    assert widget.page.evaluate("document.activeElement.id") == "basket"
    widget.page.evaluate("Tenantune.close()")
    assert widget.page.evaluate("document.activeElement.id") == "basket"  # not taken away


def test_the_page_hears_what_happens(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page())
    widget.page.evaluate("""() => {
      window.heard = [];
      for (const name of ["open", "close", "message", "answer", "handoff", "unread", "error"])
        Tenantune.on(name, (detail) => heard.push(name));
    }""")
    widget.open()
    widget.say("Can I skip a week?")
    until(widget.page, "heard.includes('message')")
    widget.page.evaluate("Tenantune.close()")
    until(widget.page, "heard.includes('unread')")
    assert widget.page.evaluate("heard") == ["open", "message", "close", "answer", "unread"]
    assert widget.button.get_attribute("aria-label") == "Questions?, 1 unread message"
    widget.open()
    assert widget.button.get_attribute("aria-label") == "Questions?"


def test_a_click_leads_to_a_field_soon(
    chat: Chat, visitor: Visitors, capsys: pytest.CaptureFixture[str]
) -> None:
    widget = visitor(chat.page())
    times = []
    for _ in range(2):
        before = widget.page.evaluate("performance.now()")
        widget.button.click()
        widget.panel.locator("#field:focus").wait_for()
        times.append(widget.page.evaluate("performance.now()") - before)
        widget.field.press("Escape")
        widget.panel.locator("#field").wait_for(state="hidden")
    with capsys.disabled():
        print(f"\nclick to usable field: cold {times[0]:.0f} ms, warm {times[1]:.0f} ms")
