"""Signing in, as people do it: without scripts, and by keyboard alone."""

import re

from playwright.sync_api import Page, expect

from server.accounts import links, service
from server.accounts.sessions import end_all
from tests.browser.checks import accessibility_faults, sideways
from tests.browser.conftest import Visits
from tests.browser.site import Site

PASSWORD = "correct horse battery"


def link_of(site: Site, email: str) -> str:
    """The path of a new one-time link of a person who is invited now."""

    async def make(session):
        person = await service.invite(session, email, is_operator=True)
        return await links.make(session, person, valid=links.INVITATION)

    return f"/console/link/{site.write(make)}"


def sign_in(page: Page, email: str, password: str) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("textbox", name="Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_without_scripts_from_a_link_to_an_invitation_and_out(visit: Visits, site: Site) -> None:
    boss = visit(link_of(site, "boss@example.com"), java_script_enabled=False)
    boss.get_by_label("Your name").fill("Bea Boss")
    boss.get_by_role("textbox", name="Password").fill(PASSWORD)
    boss.get_by_role("button", name="Set the password").click()
    expect(boss.get_by_role("heading", level=1)).to_have_text("Tenants")
    boss.get_by_role("link", name="People").first.click()
    boss.get_by_role("link", name="Invite a person").click()
    boss.get_by_label("E-mail address").fill("rae@example.com")
    boss.get_by_label("Tenant", exact=True).select_option("loaf")
    boss.get_by_label("Reviewer").check()
    boss.get_by_role("button", name="Make the link").click()
    shown = boss.get_by_role("region", name="One-time link").inner_text()
    path = re.search(r"/console/link/\w+", shown)
    assert path is not None

    rae = visit(path[0], java_script_enabled=False)
    rae.get_by_role("textbox", name="Password").fill("short")
    rae.get_by_role("textbox", name="Password").evaluate(
        "node => node.removeAttribute('minlength')"
    )
    rae.get_by_role("button", name="Set the password").click()
    expect(rae.get_by_role("alert")).to_contain_text("at least 12")
    rae.get_by_role("textbox", name="Password").fill(PASSWORD)
    rae.get_by_role("button", name="Set the password").click()
    expect(rae).to_have_url(re.compile(r"/console/t/loaf$"))
    rae.get_by_role("button", name="Sign out").first.click()
    sign_in(rae, "rae@example.com", "not the password")
    expect(rae.get_by_role("alert")).to_contain_text("do not belong together")
    sign_in(rae, "rae@example.com", PASSWORD)
    expect(rae).to_have_url(re.compile(r"/console/t/loaf$"))
    visit.forgive()  # the browser notes each 422


def test_by_keyboard_alone_and_on_to_the_page_that_was_wanted(visit: Visits, site: Site) -> None:
    page = visit(link_of(site, "key@example.com"))
    page.keyboard.press("Tab")  # skip link
    page.get_by_label("Your name").focus()
    page.keyboard.type("Kit Key")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")
    page.goto("/console/account")

    async def sign_out(session):
        await end_all(session, (await service.get_by_email(session, "key@example.com")).id)

    site.write(sign_out)
    page.get_by_label("Your name").focus()
    page.keyboard.type("!")
    page.keyboard.press("Enter")  # the form finds nobody signed in any more
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.goto("/console/account")
    page.get_by_label("E-mail address").focus()
    page.keyboard.type("key@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    assert not accessibility_faults(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # from the summary to the field
    expect(page.get_by_label("E-mail address")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
    visit.forgive()  # the browser notes the 422


def test_a_link_is_shown_once_and_can_be_copied(visit: Visits, site: Site) -> None:
    page = visit(link_of(site, "lou@example.com"))
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Set the password").click()
    page.goto("/console/people")
    everybody = page.get_by_role("region", name="Everybody")
    everybody.get_by_role("link", name="lou@example.com").click()
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        "Send this link to lou@example.com"
    )
    expect(page.get_by_role("button", name="Copy One-time link")).to_be_visible()
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert not accessibility_faults(page)
        assert not sideways(page)
