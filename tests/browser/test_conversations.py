"""Conversations in a browser: by keyboard, on a small screen, and without scripts."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visits
from tests.browser.pages import TALKS
from tests.browser.seed import answer_id, talk_id
from tests.browser.test_training import press_until

SOON_GONE = "Can I skip a week?"


def at(page: Page) -> str:
    return page.url.partition("/console")[2]


def test_the_list_stays_while_conversations_are_read_by_keyboard(visit: Visits) -> None:
    page = visit(TALKS, "loaf:viewer")
    page.evaluate("document.querySelector('.talks').dataset.mine = 'yes'")
    link = page.locator("[data-talk]", has_text=SOON_GONE).first
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#talk-title")).to_have_text(SOON_GONE)
    expect(page.locator("#talk-title")).to_be_focused()
    expect(link).to_have_attribute("aria-current", "page")
    assert at(page) == f"/t/loaf/conversations/{talk_id(2)}"
    assert SOON_GONE in page.title()
    assert page.locator(".talks").get_attribute("data-mine") == "yes"
    assert page.locator("#pane time").first.get_attribute("title")
    page.go_back()
    expect(page.locator("#talk-title")).to_have_count(0)


def test_small_screens_show_the_list_and_then_the_conversation(visit: Visits) -> None:
    page = visit(TALKS, "loaf:viewer", width=360)
    expect(page.locator("#pane")).to_be_hidden()
    page.locator("[data-talk]", has_text=SOON_GONE).first.click()
    expect(page.locator("#talk-title")).to_be_visible()
    expect(page.locator(".talks")).to_be_hidden()
    page.get_by_role("link", name="All conversations").click()
    expect(page.locator(".talks")).to_be_visible()
    assert at(page) == "/t/loaf/conversations"


def test_a_better_answer_is_written_by_keyboard_and_a_mistake_takes_the_focus(
    visit: Visits,
) -> None:
    page = visit(f"{TALKS}/{talk_id(4)}", "loaf:reviewer")
    page.locator("details.more summary").focus()
    page.keyboard.press("Enter")
    field = page.get_by_label("What it should have said")
    field.fill("   ")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    summary.get_by_role("link").click()
    expect(field).to_be_focused()
    field.fill("نعم، حتى ظهر الثلاثاء.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".better")).to_contain_text("نعم، حتى ظهر الثلاثاء.")
    assert at(page).endswith(f"?done=better#m-{answer_id(4)}")
    expect(page.get_by_role("status")).to_contain_text("The next dataset version has it")


def test_who_waits_for_a_person_is_answered_and_given_back_by_keyboard_alone(
    visit: Visits,
) -> None:
    page = visit(TALKS, "loaf:reviewer")
    press_until(page, "Tab", ".pick-queue a[href*=needs_person]")
    page.keyboard.press("Enter")
    page.wait_for_url("**queue=needs_person")
    press_until(page, "Tab", "[data-talk]")
    page.keyboard.press("Enter")
    expect(page.locator("#talk-title")).to_be_focused()
    press_until(page, "Tab", "#answer")
    page.keyboard.type("It looks fine to me.")
    press_until(page, "Tab", ".reply button")
    page.keyboard.press("Enter")
    expect(page.locator("li.person").last).to_contain_text("It looks fine to me.")
    press_until(page, "Shift+Tab", "#give-back")
    page.keyboard.press("Enter")
    expect(page.locator(".handoff")).to_contain_text("Done")
    expect(page.locator(".queue")).to_contain_text("Nobody waits")
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    press_until(page, "Shift+Tab", "#toasts form button")
    page.keyboard.press("Enter")
    expect(page.locator(".handoff")).to_contain_text("Needs a person")
    expect(page.locator("nav.side [aria-current] .count")).to_have_text("1 needs a person")


def test_without_scripts_conversations_are_searched_read_and_answered(visit: Visits) -> None:
    page = visit(TALKS, "loaf:reviewer", java_script_enabled=False)
    page.get_by_role("searchbox").fill("LL-2041")
    page.get_by_role("button", name="Search").click()
    page.locator(".talks a", has_text="Ines Okafor").click()
    page.get_by_label("Answer as a person").fill("It is at your door.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("li.person")).to_contain_text("It is at your door.")
    assert "q=LL-2041" in page.url
