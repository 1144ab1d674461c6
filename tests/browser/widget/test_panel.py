"""The conversation in the panel, with the real server."""

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Request, Response, Route, expect

from server.schemas import WidgetBudgets
from tests.browser.widget.conftest import GREETING, PLENTY, Chat, Visitors, Widget, until
from tests.browser.widget.stream import answer_with
from tests.browser.widget.tracing import traced_tasks

PANEL_BYTES = 20_480
QUESTION = "Can I skip a week?"
LONG = tuple(f"Paragraph {number}: {'bread and butter ' * 12}\n\n" for number in range(12))
LONGEST_TASK = 50  # ms, which browsers call a long task

_SAID = """
window.said = [];
addEventListener("DOMContentLoaded", () => {
  const status = document.querySelector("#status");
  if (status) new MutationObserver(() => status.textContent && said.push(status.textContent))
    .observe(status, { childList: true, characterData: true, subtree: true });
});
"""


def test_the_panel_has_twenty_kilobytes_at_most(
    chat: Chat, visitor: Visitors, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {}
    for lang in ("en", "de", "es", "fr", "ar", "ja"):
        widget = visitor(chat.page(lang=lang))
        loaded: list[Response] = []
        widget.page.on("response", partial(_keep, loaded))
        widget.open()
        widget.page.wait_for_load_state("networkidle")
        size = 0
        for response in loaded:
            if response.request.method == "GET":
                assert response.ok, response.url
                size += len(gzip.compress(response.body(), 9))
        sizes[lang] = size
    with capsys.disabled():
        print(f"\npanel, gz: {sizes}")
    assert max(sizes.values()) <= PANEL_BYTES


def test_a_visitor_asks_stops_asks_again_and_comes_back(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    expect(widget.field).to_be_focused()
    assert widget.page.evaluate("localStorage.length") == 0  # nothing is kept before a message
    widget.panel.get_by_role("button", name="Skip a week").click()
    widget.panel.get_by_role("button", name="Stop the answer").click()
    widget.panel.get_by_text("Stopped", exact=True).wait_for()
    widget.panel.get_by_role("button", name="Ask again").click()
    widget.panel.get_by_role("button", name="Good answer").wait_for()
    assert widget.page.evaluate("Object.keys(localStorage)") == [f"tenantune:{chat.keys['loaf']}"]
    said = widget.panel.locator(".text").all_inner_texts()[1:]
    widget.page.reload()
    widget = Widget(widget.page).open()
    again = widget.panel.locator(".text").all_inner_texts()
    assert again[1].startswith(said[1])  # the server had a few words more when it heard of the stop
    assert [again[0], *again[2:]] == [said[0], *said[2:]]
    assert widget.panel.get_by_text(GREETING).count() == 0


def test_what_is_asked_before_the_session_is_there_stands_below_the_greeting(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page())
    held: list[Route] = []
    widget.page.route("**/session", partial(_hold, held))
    widget.button.click()
    widget.say(QUESTION)
    widget.page.wait_for_timeout(200)
    assert held
    held[0].continue_()
    widget.panel.get_by_role("button", name="Good answer").wait_for()
    assert widget.panel.locator(".text").all_inner_texts()[:2] == [GREETING, QUESTION]


def test_the_field_keeps_line_breaks_and_composed_characters(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.field.press_sequentially("one")
    widget.field.press("Shift+Enter")
    widget.field.press_sequentially("two")
    assert widget.field.input_value() == "one\ntwo"
    widget.field.evaluate(
        "(field) => field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    assert widget.panel.locator(".me").count() == 0
    assert widget.field.evaluate("(field) => getComputedStyle(field).fontSize") == "16px"


def test_opinions_are_given_taken_back_and_kept(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.ask(QUESTION)
    good = widget.panel.get_by_role("button", name="Good answer")
    poor = widget.panel.get_by_role("button", name="Poor answer")
    good.click()
    widget.panel.get_by_text("Thank you!").first.wait_for()
    poor.click()
    assert [good.get_attribute("aria-pressed"), poor.get_attribute("aria-pressed")] == [
        "false",
        "true",
    ]
    widget.panel.get_by_label("Something is missing").check()
    widget.panel.get_by_role("textbox", name="Anything to add?").fill("How long?")
    with widget.page.expect_response("**/opinion") as given:
        widget.panel.locator(".why").get_by_role("button", name="Send").click()
    assert given.value.json()["opinion"] == {"vote": "down", "reasons": ["incomplete"]}
    expect(poor).to_be_focused()
    widget.page.reload()
    widget = Widget(widget.page).open()
    poor = widget.panel.get_by_role("button", name="Poor answer")
    assert poor.get_attribute("aria-pressed") == "true"
    with widget.page.expect_response("**/opinion") as given:
        poor.click()
    assert given.value.json()["opinion"] is None


def test_a_person_is_there_before_the_first_message(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.panel.get_by_role("button", name="Talk to a person").click()
    email = widget.panel.get_by_label("E-mail")
    expect(email).to_be_focused()
    widget.panel.get_by_text("Usually within 2 hours, until 18:00").wait_for()
    send = widget.panel.get_by_role("button", name="Send to a person")
    for text, fault in (
        ("", "We need an address to answer to"),
        ("noor", "This is not an e-mail address"),
        ("noor@example", "This address has no ending, such as .com"),
    ):
        email.fill(text)
        send.click()
        widget.panel.get_by_text(fault).wait_for()
        expect(email).to_be_focused()
        assert email.get_attribute("aria-invalid") == "true"
    email.fill("noor@example.com")
    widget.panel.get_by_label("Anything to add?").fill("The button is greyed out for me.")
    send.click()
    widget.panel.get_by_role("log").get_by_text("Passed on to a person at").wait_for()
    widget.page.reload()
    Widget(widget.page).open().panel.get_by_text("noor@example.com").wait_for()


def test_while_a_person_has_the_conversation_the_assistant_says_nothing(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    widget.ask(QUESTION)
    widget.panel.get_by_role("button", name="Talk to a person").click()
    shown = widget.panel.locator("#passed-on")
    shown.get_by_text(QUESTION).wait_for()
    shown.get_by_text("2 messages").wait_for()
    widget.panel.get_by_label("E-mail").fill("noor@example.com")
    widget.panel.get_by_label("E-mail").press("Enter")
    widget.panel.get_by_role("log").get_by_text("Passed on to a person at").wait_for()
    widget.say("Are you there?")
    widget.panel.get_by_text("Your message goes to the person too").wait_for()
    assert widget.panel.locator(".me").count() == 2
    assert widget.panel.locator(".them").count() == 2  # the greeting and the one answer


def test_what_was_written_offline_is_kept_and_sent_when_the_connection_is_back(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    sent = _messages(widget)
    widget.page.context.set_offline(True)
    widget.say("Something else")
    alert = widget.panel.get_by_role("alert").filter(has_text="sent when you are online again")
    alert.wait_for()
    widget.field.fill(QUESTION)  # taken back, and written anew
    widget.page.context.set_offline(False)
    widget.page.wait_for_timeout(200)
    widget.page.context.set_offline(True)
    widget.field.press("Enter")
    alert.wait_for()
    assert widget.field.input_value() == QUESTION
    widget.page.context.set_offline(False)
    widget.panel.get_by_role("button", name="Good answer").wait_for()
    assert alert.count() == 0
    assert widget.field.input_value() == ""
    assert widget.panel.locator(".me .text").all_inner_texts() == [QUESTION]
    assert [message["text"] for message in sent] == [QUESTION]


def test_a_message_whose_connection_broke_is_sent_after_a_reload_and_stored_once(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    sent = _messages(widget)
    for number, broken in enumerate((_abort, _lose), 1):
        widget.page.route("**/messages", broken, times=1)
        widget.say(QUESTION)
        widget.panel.get_by_role("button", name="Try again").wait_for()
        assert widget.field.input_value() == QUESTION
        widget.page.reload()
        widget = Widget(widget.page).open()
        expect(widget.panel.get_by_role("button", name="Good answer")).to_have_count(number)
        assert widget.field.input_value() == ""
        assert widget.panel.locator(".me .text").all_inner_texts() == [QUESTION] * number
    lost, again, heard = sent  # what the server had heard was not sent again
    assert lost == again
    assert heard["client_id"] != lost["client_id"]
    visitor.forgive("net::ERR_FAILED")


def test_what_waited_for_more_than_an_hour_is_sent_by_hand_alone(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page())
    sent = _messages(widget)
    for hours, count in ((2, 0), (0, 1)):
        widget.page.evaluate(
            """([key, text, hours]) => localStorage.setItem(`tenantune:${key}`, "\\n" + JSON.stringify(
                { text, client_id: crypto.randomUUID(), at: Date.now() - hours * 3_600_000 }))""",
            [chat.keys["loaf"], QUESTION, hours],
        )
        widget.page.reload()
        widget = Widget(widget.page).open()
        expect(widget.panel.get_by_role("button", name="Good answer")).to_have_count(count)
        assert widget.field.input_value() == ("" if count else QUESTION)
        assert len(sent) == count


def test_without_a_connection_the_button_says_so_and_the_panel_stays_until_there_is_one(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page(offline="No connection"))
    button = widget.page.locator("tenantune-chat button")
    widget.page.context.set_offline(True)
    button.click()
    expect(button).to_have_text("No connection")
    assert widget.page.locator("tenantune-chat iframe").count() == 0
    widget.page.context.set_offline(False)
    # and one that broke between the document and its session
    widget.page.route("**/session", lambda route: route.abort(), times=1)
    button.click()
    expect(button).to_have_text("Questions?")
    again = widget.panel.get_by_role("button", name="Try again")
    again.wait_for()
    widget.field.fill(QUESTION)
    widget.page.context.set_offline(True)
    again.click()
    widget.panel.locator("#more").click()
    widget.panel.locator("#language").select_option("de")
    expect(widget.panel.locator("#language")).to_have_value("en")
    widget.page.context.set_offline(False)
    widget.panel.get_by_role("button", name="Where is my order?").wait_for()
    expect(again).to_have_count(0)
    expect(widget.field).to_have_value(QUESTION)
    visitor.forgive("net::ERR_FAILED")


def test_a_message_that_fails_goes_back_to_the_field_and_is_stored_once(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    widget.page.route("**/messages", lambda route: route.abort(), times=1)
    widget.say(QUESTION)
    again = widget.panel.get_by_role("button", name="Try again")
    again.wait_for()
    assert widget.field.input_value() == QUESTION
    again.click()
    widget.panel.get_by_role("button", name="Good answer").wait_for()
    assert widget.panel.locator(".me").count() == 1
    visitor.forgive("net::ERR_FAILED")


def test_an_engine_that_is_down_leads_to_a_person(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    answer_with(widget.frame, error="engine_unavailable")
    widget.say(QUESTION)
    expect(widget.panel.get_by_label("E-mail")).to_be_focused()
    alert = widget.panel.locator("#handoff-alert")
    expect(alert).to_have_text("The assistant cannot answer at the moment. A person can.")


def test_an_answer_that_nothing_supports_is_followed_by_the_offer_of_a_person(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    answer_with(widget.frame, "We sell bicycles.", handoff=True)
    widget.say(QUESTION)
    note = widget.panel.locator(".note")
    expect(note).to_contain_text("This answer may be wrong. A person can help.")
    expect(widget.panel.locator("#status")).to_contain_text("A person can help.")
    note.get_by_role("button", name="Talk to a person").click()
    expect(widget.panel.get_by_label("E-mail")).to_be_focused()


def test_a_conversation_that_was_passed_on_says_so_below_the_answer(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    passed_on = {
        "number": 12,
        "created_at": "2026-11-30T12:00:00Z",
        "email": "noor@example.com",
        "expected": "within a day",
        "state": "open",
    }
    answer_with(widget.frame, "We sell bicycles.", passed_on=passed_on)
    widget.say(QUESTION)
    note = widget.panel.locator(".note")
    expect(note).to_contain_text("number 12. The answer comes by e-mail to noor@example.com.")
    expect(widget.panel.locator("#status")).to_contain_text("number 12")
    expect(widget.field).to_have_attribute("placeholder", "Write to the person")
    expect(widget.panel.get_by_role("button", name="Good answer")).to_be_visible()


def test_a_limit_says_when_it_works_again(chat: Chat, visitor: Visitors) -> None:
    chat.change("northgate", budgets=WidgetBudgets(visitor_messages_per_minute=1))
    widget = visitor(chat.page("northgate")).open()
    widget.ask(QUESTION)
    widget.say("And the week after?")
    widget.panel.get_by_text("That is the limit for now. It works again at").wait_for()
    assert widget.field.input_value() == "And the week after?"
    chat.change("northgate", budgets=PLENTY)


def test_a_session_that_has_ended_is_renewed_unseen(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.page.route(
        "**/messages",
        lambda route: route.fulfill(status=401, json={"code": "session_expired", "status": 401}),
        times=1,
    )
    widget.ask(QUESTION)
    assert widget.panel.get_by_role("alert").filter(visible=True).count() == 0


def test_a_visitor_who_is_not_known_any_more_starts_anew_with_the_draft_kept(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(chat.page()).open()
    widget.ask(QUESTION)
    refused = {"status": 401, "json": {"code": "session_expired", "status": 401}}
    widget.page.route("**/messages", lambda route: route.fulfill(**refused), times=1)
    widget.page.route("**/renew", lambda route: route.fulfill(**refused), times=1)
    widget.page.evaluate(
        "(key) => localStorage.setItem(key, 'x'.repeat(43))", f"tenantune:{chat.keys['loaf']}"
    )
    widget.say("And the week after?")
    widget.panel.locator("body[data-greeting]:not([aria-busy])").wait_for()
    expect(widget.field).to_have_value("And the week after?")
    widget.ask("And the week after?")


def test_a_long_answer_is_read_from_its_beginning(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    answer_with(widget.frame, *LONG, pause=20)
    jump = widget.panel.get_by_role("button", name="New answer")
    widget.say(QUESTION)
    jump.wait_for()
    widget.panel.get_by_role("button", name="Good answer").wait_for(state="attached")
    top = "document.querySelector('.me').getBoundingClientRect().top - document.querySelector('#log').getBoundingClientRect().top"
    assert 0 <= widget.frame.evaluate(top) < 40
    jump.click()
    expect(jump).to_be_hidden()
    until(widget.frame, "log.scrollHeight - log.scrollTop - log.clientHeight < 2")


@pytest.mark.parametrize(("distance", "follows"), [(60, True), (70, False)])
def test_the_stream_is_followed_near_the_end_only(
    chat: Chat, visitor: Visitors, distance: int, follows: bool
) -> None:
    widget = visitor(chat.page()).open()
    answer_with(widget.frame, *LONG, *LONG, pause=60)
    widget.say(QUESTION)
    until(widget.frame, "log.scrollHeight > 2 * log.clientHeight")
    widget.frame.evaluate(f"log.scrollTop = log.scrollHeight - log.clientHeight - {distance}")
    widget.panel.get_by_role("button", name="Good answer").wait_for(state="attached")
    left = "log.scrollHeight - log.scrollTop - log.clientHeight"
    assert (widget.frame.evaluate(left) < 2) == follows
    assert widget.panel.locator("#jump").is_visible() != follows


def test_a_screen_reader_hears_an_answer_once(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page(), script=_SAID).open()
    log = widget.panel.get_by_role("log", name="Conversation")
    assert log.get_attribute("aria-live") == "off"
    until(widget.frame, "said.length === 1")
    answer_with(widget.frame, *LONG[:6], pause=30)
    widget.say(QUESTION)
    until(widget.frame, "log.ariaBusy === 'true'")
    until(widget.frame, "said.length === 3")
    greeting, writing, answer = widget.frame.evaluate("said")
    assert (greeting, writing) == (GREETING, "Writing an answer")
    assert answer.startswith("Paragraph 0: bread")
    assert answer.endswith("… The whole answer is in the conversation.")
    assert log.get_attribute("aria-busy") is None
    widget.field.press("Escape")
    widget.page.evaluate("Tenantune.open()")
    assert widget.frame.evaluate("said.length") == 3


def test_nothing_is_read_aloud_while_it_is_closed(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page(), script=_SAID).open()
    until(widget.frame, "said.length === 1")
    widget.say(QUESTION)
    until(widget.frame, "said.length === 2")
    widget.page.evaluate("Tenantune.close()")
    widget.panel.locator(".them .after").wait_for(state="attached")
    widget.page.wait_for_timeout(300)
    assert widget.frame.evaluate("said.length") == 2


def test_the_conversation_can_be_downloaded(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.ask(QUESTION)
    widget.panel.get_by_role("button", name="More").click()
    with widget.page.expect_download() as started:
        widget.panel.get_by_role("button", name="Download the conversation").click()
    assert QUESTION in Path(started.value.path()).read_text(encoding="utf-8")


def test_the_language_is_the_pages_and_can_be_changed_with_the_draft_kept(
    chat: Chat, visitor: Visitors
) -> None:
    widget = visitor(
        chat.shop.write(chat.shop.tag(chat.keys["loaf"], label="Questions?"), lang="ar")
    )
    widget.open()
    assert widget.panel.locator("html").get_attribute("dir") == "rtl"
    widget.panel.get_by_role("button", name="التحدث مع موظف").wait_for()
    widget.field.fill("LL-2041")
    widget.panel.locator("#more").click()
    widget.panel.locator("#language").select_option("de")
    widget.panel.get_by_role("button", name="Mit einem Menschen sprechen").wait_for()
    expect(widget.field).to_have_value("LL-2041")
    widget.page.evaluate("Tenantune.setLanguage('ja')")
    widget.panel.get_by_role("button", name="担当者と話す").wait_for()


def test_sound_is_off_until_it_is_wanted(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.panel.get_by_role("button", name="More").click()
    sound = widget.panel.get_by_role("switch", name="Sound with new answers")
    assert sound.get_attribute("aria-checked") == "false"
    sound.click()
    assert sound.get_attribute("aria-checked") == "true"


def test_who_the_site_says_it_is_reaches_the_server(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page())
    widget.page.evaluate("Tenantune.identify({name: 'Noor', email: 'noor@example.com'})")
    with widget.page.expect_request("**/session") as begun:
        widget.open()
    sent = begun.value.post_data_json
    assert sent is not None
    assert sent["said"] == {"name": "Noor", "email": "noor@example.com"}
    with widget.page.expect_response("**/renew") as renewed:
        widget.page.evaluate("Tenantune.identify({token: 'not a token'})")
    assert renewed.value.status == 401  # refused, not taken for less


def test_signing_out_forgets(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.ask(QUESTION)
    with widget.page.expect_response("**/sign-out"):
        widget.page.evaluate("Tenantune.signOut()")
    widget.panel.get_by_text(GREETING).wait_for()
    expect(widget.panel.locator(".me")).to_have_count(0)
    until(widget.page, "localStorage.length === 0")


def test_two_thousand_tokens_cost_no_long_task(
    chat: Chat, visitor: Visitors, chromium: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    widget = visitor(chat.page()).open()
    words = (
        "bread ",
        "**and** ",
        "[butter](https://example.com) ",
        "`x`, ",
        "jam.\n\n",
        "- loaf\n",
        "1 ",
    )
    answer_with(widget.frame, *(words[at % len(words)] for at in range(2000)), pause=1)
    widget.frame.evaluate("""() => {
      window.redrawn = 0;
      new MutationObserver((list) => list.forEach(({ target, removedNodes }) => {
        if (target.closest(".live .text")) redrawn += removedNodes.length;
      })).observe(log, { childList: true, subtree: true });
    }""")
    with traced_tasks(chromium) as tasks:
        widget.say(QUESTION)
        widget.panel.get_by_role("button", name="Good answer").wait_for(
            state="attached", timeout=60_000
        )
    with capsys.disabled():
        print(f"\n2,000 tokens: {len(tasks)} tasks, the longest {max(tasks):.1f} ms of its thread")
    assert len(tasks) > 100
    assert widget.frame.evaluate("redrawn") == 0
    assert max(tasks) < LONGEST_TASK


def _messages(widget: Widget) -> list[Any]:
    """What is sent to the server from now on, as messages."""
    sent: list[Any] = []

    def note(request: Request) -> None:
        if request.url.endswith("/messages"):
            sent.append(request.post_data_json)

    widget.page.on("request", note)
    return sent


def _abort(route: Route) -> None:
    """The server never hears of it."""
    route.abort()


def _lose(route: Route) -> None:
    """The server answers, and the browser never hears of it."""
    route.fetch()
    route.abort()


def _hold(held: list[Route], route: Route) -> None:
    held.append(route)


def _keep(loaded: list[Response], response: Response) -> None:
    loaded.append(response)


def test_by_keyboard_alone(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page())
    keys = widget.page.keyboard
    keys.press("Tab")  # the page's own button
    keys.press("Tab")
    keys.press("Enter")
    expect(widget.field).to_be_focused()
    keys.type(QUESTION)
    keys.press("Enter")
    widget.panel.get_by_role("button", name="Good answer").wait_for()
    for _ in range(5):
        keys.press("Shift+Tab")
        if widget.frame.evaluate("document.activeElement.ariaLabel") == "Good answer":
            break
    keys.press("Space")
    widget.panel.get_by_text("Thank you!").first.wait_for()
    while widget.frame.evaluate("document.activeElement.id") != "to-person":
        keys.press("Tab")
    keys.press("Enter")
    expect(widget.panel.get_by_label("E-mail")).to_be_focused()
    keys.type("noor@example.com")
    keys.press("Enter")
    widget.panel.get_by_role("log").get_by_text("Passed on to a person at").wait_for()
    expect(widget.field).to_be_focused()
    keys.press("Escape")
    expect(widget.panel.locator("#field")).to_be_hidden()
    # back on the button, which opens it again
    keys.press("Enter")
    expect(widget.field).to_be_focused()
