"""Keys and webhooks in a browser: a key by keyboard from its form to its end, and secrets shown once."""

from urllib.parse import urlsplit

import httpx2
from playwright.sync_api import Page, expect
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import WebhookDelivery
from server.db.scope import of_tenant
from server.tenants import service as tenants
from tests.browser.checks import accessibility_faults, sideways
from tests.browser.conftest import Visits
from tests.browser.pages import HOOKS, KEYS
from tests.browser.seed import LOAF
from tests.browser.site import Site


def press(page: Page, role: str, name: str) -> None:
    """Go to a link or a button by its name, and press Enter."""
    page.get_by_role(role, name=name).first.focus()  # type: ignore[arg-type] # a role
    page.keyboard.press("Enter")


def assert_fits(page: Page) -> None:
    """What holds for every page, of one that only answers a form."""
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert not sideways(page)
    assert not accessibility_faults(page)


def test_a_key_is_made_by_keyboard_used_and_refused_when_it_is_revoked(
    visit: Visits, site: Site
) -> None:
    page = visit(
        "/console/t/northgate/keys",
        "northgate:admin",
        permissions=["clipboard-read", "clipboard-write"],
    )
    press(page, "link", "Make a key")
    expect(page.get_by_role("heading", level=1)).to_have_text("Make a key")
    expect(page.get_by_label("The last day")).to_be_hidden()
    page.get_by_label("When it expires").select_option("day")
    page.get_by_label("The last day").fill("2099-12-31")
    page.get_by_label("Label").focus()
    page.keyboard.type("Parcel app")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Copy this key now")
    press(page, "button", "Copy Key")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    key = page.evaluate("navigator.clipboard.readText()")
    assert page.locator(".code pre").first.inner_text() == key
    assert_fits(page)

    def models() -> int:
        header = {"authorization": f"Bearer {key}"}
        return httpx2.get(f"{site.url}/v1/models", headers=header).status_code

    assert models() == 200
    press(page, "link", "Done")
    press(page, "link", "Revoke Parcel app")
    press(page, "button", "Revoke it")
    expect(page.get_by_role("status").filter(has_text="Parcel app is revoked.")).to_be_visible()
    assert models() == 401
    press(page, "button", "Undo")
    expect(page.get_by_role("status").filter(has_text="Parcel app works again.")).to_be_visible()
    assert models() == 200


def test_a_webhook_is_added_without_scripts_and_its_test_is_followed_with_them(
    visit: Visits, site: Site
) -> None:
    page = visit(f"{HOOKS}/new", "loaf:admin", java_script_enabled=False)
    page.get_by_label("Address").fill("http://hooks.loaf.example")
    page.get_by_role("button", name="Add the webhook").click()
    expect(page.locator("#url-error")).to_have_text("It must begin with https://")
    page.get_by_label("Address").fill("https://hooks.loaf.example/events")
    page.get_by_role("button", name="Add the webhook").click()
    expect(page.locator(".code pre").first).to_contain_text("whsec_")
    page.get_by_role("link", name="Done").click()
    page = visit(page.url, "loaf:admin")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    hook = urlsplit(page.url).path.rpartition("/")[2]

    async def answer(session: AsyncSession) -> None:  # tests reach no receiver
        scope = of_tenant((await tenants.get(session, LOAF)).id)
        took = scope.update(WebhookDelivery).where(WebhookDelivery.endpoint_id == hook)
        await session.execute(took.values(state="delivered", response_status=202))

    site.write(answer)
    expect(page.locator("tbody tr")).to_contain_text("Delivered")  # without a reload
    page.get_by_role("link", name="Delete the webhook").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("https://hooks.loaf.example/events")).to_have_count(0)


def test_a_rotated_key_is_shown_once_and_says_until_when_the_old_one_works(visit: Visits) -> None:
    page = visit(KEYS, "loaf:admin")
    page.get_by_role("link", name="Rotate Help page").click()
    page.get_by_role("button", name="Make the new key").click()
    expect(page.get_by_text("The old one works until")).to_be_visible()
    assert_fits(page)
