"""Every state of the widget, for checks and screenshots: how to bring it about."""

from collections.abc import Callable

from tests.browser.widget.conftest import Widget
from tests.browser.widget.stream import answer_with, refuse_with

ANSWER = (
    "Of course! You have until **Tuesday noon**:\n\n1. Open [My Basket](https://shop.example/basket)\n"
    "2. Press **Skip this week**\n\nNo fee, and you can undo it."
)
RICH = (
    "# Rye or wheat\n\n| loaf | hours |\n|---|---|\n| rye | 24 |\n| wheat | 4 |\n\n```\nflour 500\nwater 350\n```\n\n"
    "> A quote\n\n- [x] milled\n- [ ] baked, see `LL-2041`\n"
)
SOURCES = (
    {"title": "Keeping bread > Rye", "url": "https://shop.example/rye"},
    {"title": "Flour", "url": None},
)


def closed(widget: Widget) -> None:
    """A button and a teaser."""


def unread(widget: Widget) -> None:
    """A button with a badge."""
    widget.open()
    answer_with(widget.frame, "Yes.", pause=100)
    widget.say("Can I skip a week?")
    widget.page.evaluate("Tenantune.close()")
    widget.page.locator("tenantune-chat b", has_text="1").wait_for()


def fresh(widget: Widget) -> None:
    """A greeting and suggestions."""
    widget.open()


def menu(widget: Widget) -> None:
    """The menu is open."""
    widget.open()
    widget.panel.locator("#more").click()


def writing(widget: Widget) -> None:
    """An answer is being written."""
    answered(widget)
    answer_with(widget.frame, "Yes, it does. Skipping holds for one week only, ", "so", pause=3000)
    widget.say("And the week after that, does it start again by itself?")
    widget.panel.locator(".live p").wait_for()


def answered(widget: Widget) -> None:
    """An answer and an opinion."""
    widget.open()
    answer_with(widget.frame, ANSWER)
    widget.say("Can I skip a week?")
    widget.panel.locator(".after .icon").first.wait_for()


def rich(widget: Widget) -> None:
    """A table, code, a quote, a list, and sources."""
    widget.open()
    answer_with(widget.frame, RICH, sources=SOURCES)
    widget.say("Rye?")
    widget.panel.locator(".from summary").click()
    widget.panel.locator(".after .icon").first.wait_for(state="attached")


def stopped(widget: Widget) -> None:
    """The visitor stopped the answer."""
    writing(widget)
    widget.panel.locator("#send").click()
    widget.panel.locator(".after .link").wait_for()


def poor(widget: Widget) -> None:
    """Why an answer was poor."""
    widget.open()
    widget.ask("Can I skip a week?")
    widget.panel.locator(".after .icon").nth(2).click()
    widget.panel.locator(".why").wait_for()


def offline(widget: Widget) -> None:
    """No connection; the draft is kept."""
    answered(widget)
    widget.page.context.set_offline(True)
    widget.say("And after that?")
    widget.panel.locator(".note.bad").wait_for()


def limited(widget: Widget) -> None:
    """Too much for now."""
    widget.open()
    refuse_with(widget.frame, 429, code="limit_reached", retry_after=600)
    widget.say("And after that?")
    widget.panel.locator(".note.bad").wait_for()


def down(widget: Widget) -> None:
    """The engine does not answer: the form for a person."""
    widget.open()
    answer_with(widget.frame, error="engine_unavailable")
    widget.say("Can I skip a week?")
    widget.panel.locator("#handoff-alert .note").wait_for()


def unsupported(widget: Widget) -> None:
    """Nothing supports the answer: a person is offered below it."""
    widget.open()
    answer_with(widget.frame, "We also sell bicycles, from Monday on.", handoff=True)
    widget.say("Do you sell bicycles?")
    widget.panel.locator(".note .link").wait_for()


def person(widget: Widget) -> None:
    """The form for a person, with a wrong address."""
    widget.open()
    widget.ask("Can I skip a week?")
    widget.panel.locator("#to-person").click()
    widget.panel.locator("#passed-on dd").first.wait_for()
    widget.panel.locator("#email").fill("noor@example")
    widget.panel.locator(".go").click()
    widget.panel.locator("#email-error svg").wait_for()


def handed_over(widget: Widget) -> None:
    """A person has the conversation."""
    person(widget)
    widget.panel.locator("#email").fill("noor@example.com")
    widget.panel.locator(".go").click()
    widget.panel.locator(".note").wait_for()


def long(widget: Widget) -> None:
    """More below than fits."""
    widget.open()
    answer_with(widget.frame, *(f"Paragraph {at}: {'bread ' * 40}\n\n" for at in range(9)))
    widget.say("Tell me all")
    widget.panel.locator("#jump:not([hidden])").wait_for()


STATES: tuple[Callable[[Widget], None], ...] = (
    closed,
    unread,
    fresh,
    menu,
    writing,
    answered,
    rich,
    stopped,
    poor,
    offline,
    limited,
    down,
    unsupported,
    person,
    handed_over,
    long,
)
