"""Uploads in a browser: by keyboard, by drop, without scripts; what is shown while they are read."""

import json
import re
import uuid
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from server.db.models import Import, Tenant
from server.db.scope import of_tenant
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from server.transcripts import importing
from tests.browser.checks import accessibility_faults, sideways
from tests.browser.conftest import Visits
from tests.browser.site import Site
from tests.browser.test_training import press_until

THINGS = [
    "hat",
    "lamp",
    "sofa",
    "kettle",
    "ladder",
    "mirror",
    "carpet",
    "drill",
    "teapot",
    "bicycle",
    "violin",
    "anchor",
]
CHATS = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Where is the {thing}? Write to {thing}@b.example"},
                {"role": "assistant", "content": f"We have heard of it: {thing * 2}"},
            ]
        }
    )
    + "\n"
    for thing in THINGS
)
TABLE = "a,b,c\n" + "".join(
    f"{number},{who},{who} says {number}\n" for number in range(12) for who in ("alpha", "beta")
)
PATIENCE = 20_000  # ms, for what a process of its own does on a busy machine
_DROP = """([selector, text, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  const zone = document.querySelector(selector);
  for (const type of ["dragenter", "dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture
def tenant(site: Site) -> Tenant:
    """A tenant of the test's own."""
    slug = f"t{uuid.uuid4().hex[:8]}"
    return site.write(lambda session: tenants.create(session, TenantRequest(slug=slug)))


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "october.jsonl"
    path.write_text(CHATS)
    return path


def read_all(site: Site, tenant: Tenant) -> None:
    """What a worker does."""

    async def work() -> None:
        async with site.database.reading() as session:
            ids = list(await session.scalars(of_tenant(tenant.id).select(Import.id)))
        for import_id in ids:
            await importing.run_import(site.database, import_id, settings=site.settings)

    site.run(work())


def expect_kept(page: Page, count: int) -> None:
    """Wait until the page says how many conversations were read, or would be."""
    figures = page.locator(".now-line")
    expect(figures).to_contain_text(re.compile(rf"{count}\s*conversations"), timeout=PATIENCE)


def check(page: Page) -> None:
    """Nothing is wrong with the page as it is, wide and narrow."""
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert not accessibility_faults(page)
        assert not sideways(page)


def test_a_file_is_uploaded_by_keyboard_and_its_report_comes_by_itself(
    visit: Visits, site: Site, tenant: Tenant, chats: Path
) -> None:
    page = visit(f"/console/t/{tenant.slug}/data", f"{tenant.slug}:admin")
    with page.expect_file_chooser() as chooser:
        # moving there meanwhile: the page's process hears of keys and of what is expected by two ways,
        # and a key alone may overtake, so that the browser opens a chooser of its own
        press_until(page, "Tab", "#file")
        page.keyboard.press("Enter")
    chooser.value.set_files(chats)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Upload")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("october.jsonl")
    expect(page.get_by_text("Waits its turn", exact=True)).to_be_visible()
    check(page)
    read_all(site, tenant)
    expect_kept(page, 12)
    expect(page.locator(".diff ins").first).to_contain_text("[EMAIL_1]")
    assert "b.example" not in page.content()
    check(page)
    page.go_back()
    expect(page.get_by_role("link", name="october.jsonl")).to_be_visible()


def test_a_list_shows_by_itself_that_an_upload_was_read(
    visit: Visits, site: Site, tenant: Tenant, chats: Path
) -> None:
    page = visit(f"/console/t/{tenant.slug}/data", f"{tenant.slug}:admin")
    page.set_input_files("#file", chats)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("october.jsonl")
    page.goto(f"/console/t/{tenant.slug}/data")
    link = page.get_by_role("link", name="october.jsonl")
    link.focus()
    expect(page.locator("#count-side-data")).to_have_text("1 being read")
    read_all(site, tenant)
    expect(page.locator("#uploads .chip")).to_have_text("Read")
    for where in ("side", "top"):
        expect(page.locator(f"#count-{where}-data")).to_have_text("")
    expect(page.locator("#menu-words")).to_have_text(", menu")
    expect(link).to_be_focused()
    assert page.locator("#uploads[hx-trigger]").count() == 0


def test_a_file_is_dropped_and_a_mistake_is_said_at_the_field(
    visit: Visits, tenant: Tenant
) -> None:
    page = visit(f"/console/t/{tenant.slug}/data", f"{tenant.slug}:admin")
    page.evaluate(_DROP, ["[data-drop]", "%PDF-1.7", "report.pdf"])
    page.get_by_role("button", name="Upload").click()
    summary = page.locator(".summary")
    expect(summary).to_be_focused()
    expect(summary).to_contain_text("It is a PDF")
    expect(page.locator("#file-error")).to_contain_text("It is a PDF")
    check(page)
    # the form that came with the answer works as the first one
    page.evaluate(_DROP, ["[data-drop]", CHATS, "october.jsonl"])
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("october.jsonl")


def test_a_file_that_is_too_large_is_not_even_sent(visit: Visits, tenant: Tenant) -> None:
    page = visit(f"/console/t/{tenant.slug}/data", f"{tenant.slug}:admin")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.evaluate("() => Object.defineProperty(File.prototype, 'size', { get: () => 3 * 2 ** 30 })")
    page.evaluate(_DROP, ["[data-drop]", CHATS, "october.jsonl"])
    message = page.locator("#file").evaluate("(input) => input.validationMessage")
    assert message == "This file is larger than 2.0 GiB."
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#file:invalid")).to_be_visible()
    assert "POST" not in sent


def test_columns_are_chosen_and_the_preview_follows(
    visit: Visits, site: Site, tenant: Tenant
) -> None:
    page = visit(f"/console/t/{tenant.slug}/data", f"{tenant.slug}:admin")
    page.evaluate(_DROP, ["[data-drop]", TABLE, "odd.csv"])
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("It cannot be read like this yet.")).to_be_visible(timeout=PATIENCE)
    check(page)
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".summary")).to_be_focused()
    for label, column in (("Conversation", "a"), ("Who speaks", "b"), ("Message", "c")):
        page.get_by_label(label, exact=True).select_option(label=column)
    page.get_by_label("alpha").select_option(label="Customer")
    page.get_by_label("beta").select_option(label="Agent")
    expect_kept(page, 12)
    check(page)
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("Waits its turn", exact=True)).to_be_visible()
    read_all(site, tenant)
    expect_kept(page, 12)


def test_uploading_choosing_and_deleting_work_without_scripts(
    visit: Visits, site: Site, tenant: Tenant, tmp_path: Path
) -> None:
    page = visit(
        f"/console/t/{tenant.slug}/data", f"{tenant.slug}:admin", java_script_enabled=False
    )
    table = tmp_path / "tickets.csv"
    table.write_text(TABLE.replace("alpha", "customer").replace("beta", "agent"))
    page.set_input_files("#file", table)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("tickets.csv")
    for label, column in (("Conversation", "a"), ("Who speaks", "b"), ("Message", "c")):
        page.get_by_label(label, exact=True).select_option(label=column)
    page.get_by_role("button", name="Show the preview").click()
    expect_kept(page, 12)
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("Waits its turn", exact=True)).to_be_visible()
    read_all(site, tenant)
    page.reload()
    expect_kept(page, 12)
    page.goto(f"/console/t/{tenant.slug}/data")
    page.set_input_files("#file", table)
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#file-error")).to_contain_text("uploaded before as 'tickets.csv'")
    page.get_by_role("link", name="See tickets.csv").click()
    page.get_by_role("link", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Delete tickets.csv?")
    page.get_by_role("button", name="Delete tickets.csv").click()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
