"""The widget's settings in a browser: the real panel in its preview, and forms by keyboard and without scripts."""

from playwright.sync_api import expect
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import colours, widgets
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from tests.browser.conftest import Visits
from tests.browser.pages import WIDGET
from tests.browser.site import Site

GREETING = "Hello friend! What can I do for you?"


def rgb(colour: str) -> str:
    """A colour as browsers compute it."""
    return f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:], 16)})"


def test_the_preview_is_the_panel_itself_and_answers(visit: Visits, site: Site) -> None:
    vault = site.vault

    async def make(session: AsyncSession) -> None:  # nothing is live there: the base answers
        await tenants.create(session, TenantRequest(slug="harbour", name="Harbour Books"))
        await widgets.enable(session, "harbour", vault=vault)

    site.write(make)
    page = visit("/console/t/harbour/widget", "harbour:admin")
    panel = page.frame_locator("iframe")
    expect(panel.locator("body:not([aria-busy])")).to_contain_text("Harbour Books")
    assert page.evaluate("document.activeElement.localName") == "body"  # it takes no focus
    panel.locator("#field").fill("Is anybody there?")
    panel.locator("#field").press("Enter")
    panel.locator(".them .after").first.wait_for()


def test_the_preview_follows_the_form_and_visitors_get_what_is_saved(
    visit: Visits, site: Site
) -> None:
    page = visit(WIDGET, "loaf:admin")
    key = page.locator(".code").inner_text().partition('data-key="')[2].partition('"')[0]
    panel = page.frame_locator("iframe")
    saved = page.locator("[data-saved]")
    expect(panel.locator(".text")).to_have_text(GREETING)
    expect(saved).to_have_text("as it is saved")
    page.get_by_label("Greeting").fill("Good **evening**!")
    page.get_by_label("Name").fill("The night shift")
    page.get_by_label("Accent colour").fill("#ffee00")
    expect(saved).to_have_text("not saved yet")
    expect(panel.locator(".text")).to_have_text("Good evening!")
    expect(panel.get_by_role("heading")).to_have_text("The night shift")
    theme = colours.theme("#ffee00")
    face = panel.locator(".face")
    expect(face).to_have_css("background-color", rgb(theme.light.colour))
    assert theme.light.changed
    expect(page.locator("#shades")).to_contain_text(f"Light: {theme.light.colour}")
    assert page.evaluate("document.activeElement.id") == "accent"  # the form keeps the focus
    # both schemes and both sizes, whatever this browser prefers
    page.get_by_label("Dark", exact=True).check()
    expect(face).to_have_css("background-color", rgb(theme.dark.colour))
    expect(panel.locator("body")).to_have_css("background-color", rgb(colours.DARK_SURFACES[0]))
    assert page.locator("iframe").evaluate("(frame) => frame.clientWidth") == 392
    page.get_by_label("On a phone").check()
    assert page.locator("iframe").evaluate("(frame) => frame.clientWidth") == 360
    # it is the panel itself, in another language too
    panel.locator("#more").click()
    panel.locator("#language").select_option("de")
    expect(panel.get_by_role("button", name="Mit einem Menschen sprechen")).to_be_visible()
    expect(panel.locator(".text")).to_have_text("Good evening!")
    # a visitor has none of it
    visitors = page.request.get(f"/widget/{key}/panel").text()
    assert GREETING in visitors
    assert "night shift" not in visitors
    assert page.evaluate("history.length") == 2


def test_a_colour_is_explained_before_it_is_saved(visit: Visits) -> None:
    page = visit(WIDGET, "loaf:admin")
    page.get_by_label("Accent colour").fill("#101010")
    expect(page.locator("#shades")).to_contain_text("Lighter than yours: #101010")
    expect(page.locator("#shades svg")).to_have_count(2)


def test_settings_are_saved_by_keyboard_and_the_preview_has_them(visit: Visits) -> None:
    page = visit(WIDGET, "loaf:admin")
    page.get_by_label("Greeting").fill("Good morning!")
    page.get_by_role("button", name="Save").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Saved")).to_be_visible()
    expect(page.frame_locator("iframe").locator("body")).to_contain_text("Good morning!")
    page.get_by_label("Greeting").fill(GREETING)
    page.get_by_role("button", name="Save").click()


def test_without_scripts_sites_are_allowed_and_a_mistake_is_said(visit: Visits) -> None:
    page = visit(WIDGET, "loaf:admin", java_script_enabled=False)
    page.get_by_role("textbox", name="A further site").fill("shop")
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page.locator("#origin-error")).to_be_visible()
    page.get_by_role("textbox", name="A further site").fill("https://b.example")
    page.get_by_role("button", name="Allow", exact=True).click()
    page.get_by_role("button", name="Remove https://b.example").click()
    expect(page.get_by_text("https://b.example")).to_have_count(0)


def test_a_new_secret_can_be_copied(visit: Visits) -> None:
    page = visit(
        f"{WIDGET}/secret", "loaf:admin", permissions=["clipboard-read", "clipboard-write"]
    )
    page.get_by_role("button", name="Make a new secret").click()
    secret = page.locator(".code pre").inner_text()
    page.get_by_role("button", name="Copy Secret").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
