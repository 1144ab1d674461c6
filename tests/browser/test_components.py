"""What components do when somebody uses them, with a mouse or with the keyboard."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visits

GALLERY = "/console/t/loaf/gallery"
ADMIN = "loaf:admin"


def focused(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    return found


@pytest.mark.parametrize("javascript", [True, False], ids=["htmx", "no script"])
def test_a_form_comes_back_with_its_errors(visit: Visits, javascript: bool) -> None:
    page = visit(GALLERY, ADMIN, java_script_enabled=javascript)
    page.get_by_role("button", name="Save").click()
    summary = page.locator(".summary")
    expect(summary).to_contain_text("There are mistakes in the form")
    name = page.get_by_label("Name", exact=True)
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(name).to_have_accessible_description("What people see Give the tenant a name.")
    expect(summary).to_be_focused()
    assert page.url.endswith("/gallery" if javascript else "/gallery/invalid")
    summary.get_by_role("link", name="Give the tenant a name.").click()
    expect(name).to_be_focused()


def test_a_form_without_its_token_is_refused(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN, java_script_enabled=False)
    page.locator("#form [name=csrf_token]").evaluate("node => { node.value = 'x' }")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not do this")


def test_htmx_sends_the_token_of_the_session(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    token = page.locator("#form [name=csrf_token]").input_value()
    with page.expect_request(re.compile("/gallery/invalid$")) as sent:
        page.get_by_role("button", name="Save").click()
    assert sent.value.all_headers()["x-csrf-token"] == token
    assert sent.value.all_headers()["sec-fetch-site"] == "same-origin"


def test_an_answer_of_5xx_replaces_nothing_and_is_told(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    page.route(
        re.compile("/gallery/invalid$"),
        lambda route: route.fulfill(
            status=503, headers={"x-request-id": "req_1"}, body="<p>no</p>"
        ),
    )
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#toasts")).to_contain_text("(503). Try again; the request was req_1.")
    expect(page.get_by_label("Name", exact=True)).to_be_visible()
    visit.forgive()  # htmx logs an answer of 5xx


def test_a_message_waits_while_somebody_looks_at_it(visit: Visits) -> None:
    page = _with_clock(visit)
    toast = page.locator("[data-toast]")
    expect(toast).to_contain_text("The run was cancelled.")
    assert page.locator("#toasts").get_attribute("role") == "status"
    page.clock.run_for(6_000)
    toast.hover()
    page.clock.run_for(60_000)
    expect(toast).to_be_visible()
    page.mouse.move(0, 0)
    page.clock.run_for(3_000)
    expect(toast).to_be_visible()
    page.clock.run_for(2_000)
    expect(toast).to_have_count(0)


def test_a_message_can_be_kept_and_closed_by_the_keyboard(visit: Visits) -> None:
    page = _with_clock(visit)
    toast = page.locator("[data-toast]")
    keep = toast.get_by_role("button", name="Keep this message")
    keep.focus()
    page.keyboard.press("Enter")
    expect(keep).to_have_attribute("aria-pressed", "true")
    page.locator("#name").focus()
    page.clock.run_for(60_000)
    expect(toast).to_be_visible()
    toast.get_by_role("button", name="Close this message").press("Enter")
    expect(toast).to_have_count(0)


def test_a_dialog_opens_names_the_thing_and_gives_the_focus_back(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    link = page.get_by_role("link", name="Delete the version")
    link.press("Enter")
    dialog = page.get_by_role("dialog", name="Delete loaf@1?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(link).to_be_focused()
    link.click()
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()


def test_menus_close_by_escape_and_by_a_click_beside_them(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    menu = page.locator("details.menu")
    button = menu.locator("summary")
    button.press("Enter")
    expect(menu.get_by_role("link", name="Log")).to_be_visible()
    page.keyboard.press("Tab")
    assert "#log" in focused(page)
    page.keyboard.press("Escape")
    expect(menu).not_to_have_attribute("open", "")
    expect(button).to_be_focused()
    button.click()
    page.get_by_role("heading", level=1).click()
    expect(menu).not_to_have_attribute("open", "")


def test_the_menu_of_a_small_screen_has_every_page(visit: Visits) -> None:
    wide, small = visit(GALLERY, ADMIN), visit(GALLERY, ADMIN, width=360)
    pages = wide.locator(".side .nav a").all_inner_texts()
    small.locator(".topbar summary").first.click()
    menu = small.locator(".topbar nav")
    expect(menu).to_be_visible()
    assert menu.locator(".nav a").all_inner_texts() == pages
    expect(menu.get_by_role("button", name="Sign out")).to_be_visible()


def test_the_first_stop_of_the_keyboard_leads_past_the_navigation(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize(
    ("zone", "clock", "day"),
    [
        ("UTC", "14:02", "29 Nov 2026"),
        ("Asia/Tokyo", "23:02", "29 Nov 2026"),
        ("Pacific/Auckland", "03:02", "30 Nov 2026"),
    ],
)
def test_moments_are_in_the_viewers_zone(visit: Visits, zone: str, clock: str, day: str) -> None:
    page = visit(GALLERY, ADMIN, timezone_id=zone)
    expect(page.locator("time[data-time=clock]").first).to_have_text(clock)
    expect(page.locator("time[data-time=day]").first).to_have_text(day)
    expect(page.locator("time[data-time=ago]").first).to_have_text("5 minutes ago")
    title = page.locator("time[data-time=clock]").first.get_attribute("title") or ""
    assert clock in title


def test_without_scripts_moments_are_in_utc(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN, timezone_id="Asia/Tokyo", java_script_enabled=False)
    moment = page.locator("time[data-time=clock]").first
    expect(moment).to_have_text("14:02")
    expect(moment).to_have_attribute("title", "29 Nov 2026, 14:02 UTC")


def test_code_is_copied(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the snippet").click()
    expect(page.locator("[data-copy]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("<script async src=")
    without = visit(GALLERY, ADMIN, java_script_enabled=False)
    expect(without.locator("[data-copy]")).to_be_hidden()


def test_an_upload_shows_its_progress_and_its_errors(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    page.locator("[data-upload]").evaluate("node => { node.action = 'gallery/upload' }")
    form = page.locator("[data-upload]")
    form.locator("input[type=file]").set_input_files(
        {"name": "talk.jsonl", "mimeType": "text/plain", "buffer": b"x" * 300_000}
    )
    form.get_by_role("button", name="Upload").click()
    expect(page.locator("main h1")).to_have_text("This cannot be used")
    expect(page.locator("main")).to_contain_text("talk.jsonl: 300000 bytes are no transcript")


def test_files_can_be_dropped(visit: Visits) -> None:
    page = visit(GALLERY, ADMIN)
    data = page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.items.add(new File(['x'], 'a.csv')); return data; }"
    )
    zone = page.locator("[data-drop]")
    zone.dispatch_event("dragover", {"dataTransfer": data})
    expect(zone).to_have_class(re.compile("over"))
    zone.dispatch_event("drop", {"dataTransfer": data})
    expect(zone).not_to_have_class(re.compile("over"))
    assert zone.locator("input").evaluate("node => node.files[0].name") == "a.csv"


def _with_clock(visit: Visits) -> Page:
    """The gallery, its clock ours from the first script on."""
    page = visit("/console", ADMIN)
    page.clock.install()
    page.goto(GALLERY)
    page.clock.run_for(200)
    return page
