"""Versions in a browser: by keyboard alone, without scripts, answers as they are written, votes by keys."""

import uuid
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from server.adapters import canary, service
from server.db.models import Adapter, CanaryCount, Tenant
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from tests.browser.checks import accessibility_faults
from tests.browser.conftest import Visits
from tests.browser.site import Site
from tests.browser.test_training import press_until
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version


@pytest.fixture
def tenant(site: Site) -> Tenant:
    """A tenant of the test's own: version 1 is live, 2 passed, 3 waits for approval."""
    slug = f"r{uuid.uuid4().hex[:8]}"
    made = site.write(lambda session: tenants.create(session, TenantRequest(slug=slug)))
    for version, state in ((1, "succeeded"), (2, "succeeded"), (3, "awaiting_approval")):
        make(site, made, version, state)
    site.write(lambda session: _promote(session, slug))
    return made


async def _promote(session: Any, slug: str, version: int = 1) -> None:
    await service.promote(session, await tenants.get(session, slug), version=version, actor="test")


def make(site: Site, tenant: Tenant, version: int, state: Any) -> Adapter:
    """A version that the engine can load."""
    run = site.run(make_run(site.database, tenant, state=state))
    name = f"{tenant.slug}.{version:012x}"
    folder = site.settings.adapters / name
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return site.run(
        make_version(
            site.database,
            tenant,
            run,
            version=version,
            engine_name=name,
            base_name=site.settings.base,
            report=make_report(version=version, questions=3),
        )
    )


def release(tenant: Tenant, path: str = "") -> str:
    return f"/console/t/{tenant.slug}/release{path}"


def test_a_version_is_approved_by_keyboard_alone(visit: Visits, tenant: Tenant) -> None:
    page = visit(release(tenant), f"{tenant.slug}:admin")
    press_until(page, "Tab", ".notice a")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{tenant.slug}@3")
    press_until(page, "Tab", "#approve")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Approve {tenant.slug}@3?")
    assert not accessibility_faults(page)
    press_until(page, "Tab", "#do")
    page.keyboard.press("Enter")
    expect(page.locator(".title .chip")).to_have_text("Approved")
    expect(page.locator(".head")).to_contain_text("by Mara Lindqvist")


def test_a_version_is_promoted_and_taken_back_by_keyboard_alone(
    visit: Visits, tenant: Tenant
) -> None:
    page = visit(release(tenant, "/2"), f"{tenant.slug}:admin")
    press_until(page, "Tab", "#promote")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Make {tenant.slug}@2 live?")
    press_until(page, "Tab", "#do")
    page.keyboard.press("Enter")
    expect(page.locator(".title .chip")).to_have_text("Live")
    toast = page.locator(".toast")
    expect(toast).to_contain_text(f"{tenant.slug}@2 went live in place of {tenant.slug}@1.")
    assert not accessibility_faults(page)
    press_until(page, "Tab", "#undo")
    page.keyboard.press("Enter")
    expect(toast).to_contain_text(f"Rolled back from {tenant.slug}@2 to {tenant.slug}@1.")
    expect(page.locator("#changes + *, .list")).to_contain_text("by Mara Lindqvist")
    # and by the button of the page, to the base
    press_until(page, "Tab", "#roll-back")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Roll back to the base?")
    press_until(page, "Tab", "#do")
    page.keyboard.press("Enter")
    expect(page.locator(".card header .chip")).to_have_text("Base")


def test_without_scripts_a_version_is_approved_promoted_and_rolled_back(
    visit: Visits, tenant: Tenant
) -> None:
    who = f"{tenant.slug}:admin"
    page = visit(release(tenant, "/3"), who, java_script_enabled=False)
    page.get_by_role("link", name="Approve").click()
    page.get_by_role("button", name=f"Approve {tenant.slug}@3").click()
    expect(page.locator(".title .chip")).to_have_text("Approved")
    page.goto(release(tenant, "/2"))
    page.get_by_role("link", name="Make it live").click()
    page.get_by_role("button", name=f"Make {tenant.slug}@2 live").click()
    expect(page.locator(".title .chip")).to_have_text("Live")
    page.get_by_role("link", name="Roll back").click()
    page.get_by_role("button", name=f"Roll back to {tenant.slug}@1").click()
    expect(page.locator(".card header .chip")).to_have_text(f"{tenant.slug}@1")


def test_a_share_is_sent_by_keyboard_compared_promoted_and_taken_back(
    visit: Visits, tenant: Tenant
) -> None:
    page = visit(release(tenant, "/2"), f"{tenant.slug}:admin")
    press_until(page, "Tab", "#try")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Send a share to {tenant.slug}@2?")
    expect(page.locator("#percent")).to_have_value("10")
    assert not accessibility_faults(page)
    press_until(page, "Tab", "#do")
    page.keyboard.press("Enter")
    banner = page.locator("section:has(> header > #canary)")
    expect(banner).to_contain_text(f"{tenant.slug}@2 answers 10 % of the requests")
    expect(banner).to_contain_text("by Mara Lindqvist")
    expect(banner).to_contain_text("There are too few thumbs to tell")
    assert not accessibility_faults(page)
    press_until(page, "Tab", "#canary-promote")
    page.keyboard.press("Enter")
    expect(page.locator(".effects")).to_contain_text(
        f"The canary, {tenant.slug}@2 with 10 % of the requests, ends."
    )
    press_until(page, "Tab", "#do")
    page.keyboard.press("Enter")
    expect(page.locator(".title .chip")).to_have_text("Live")
    toast = page.locator(".toast")
    expect(toast).to_contain_text("and its canary, of 10 %, ended.")
    expect(banner).to_have_count(0)
    press_until(page, "Tab", "#undo")
    page.keyboard.press("Enter")
    expect(toast).to_contain_text(f"Rolled back from {tenant.slug}@2 to {tenant.slug}@1.")


def test_a_version_shows_by_itself_that_it_went_live(
    visit: Visits, site: Site, tenant: Tenant
) -> None:
    page = visit(release(tenant, "/3"), f"{tenant.slug}:admin")
    page.locator("#approve").click()
    page.locator("#do").click()
    chip = page.locator(".title .chip")
    expect(chip).to_have_text("Approved")
    site.write(lambda session: _promote(session, tenant.slug, version=3))
    expect(chip).to_have_text("Live")
    expect(page.locator("[hx-trigger]")).to_have_count(0)


_WATCHED = """() => {
  window.moved = []; // up or down: a figure at the end of its cell begins elsewhere when it gets longer
  new PerformanceObserver((list) => {
    for (const { node, previousRect, currentRect } of list.getEntries().flatMap((each) => each.sources))
      if (previousRect.top !== currentRect.top) window.moved.push(node?.textContent);
  }).observe({ type: "layout-shift" });
  window.readOut = [];
  new MutationObserver(() => window.readOut.push(document.getElementById("last-change").textContent))
    .observe(document.getElementById("last-change"), { characterData: true, childList: true, subtree: true });
}"""


def test_the_canarys_figures_come_by_themselves_until_it_ends(
    visit: Visits, site: Site, tenant: Tenant
) -> None:
    slug = tenant.slug
    site.write(lambda session: _try(session, slug, site.settings.base))
    page = visit(release(tenant), f"{slug}:admin")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    banner = page.locator("section:has(> header > #canary)")
    expect(banner.locator("tbody tr").first).to_have_text("Answers00")
    page.evaluate(_WATCHED)
    page.locator("#canary-change").focus()
    site.write(lambda session: _count(session, slug, canary_=12, live=108))
    expect(banner.locator("tbody tr").first).to_have_text("Answers12108")
    assert page.evaluate("document.activeElement.id") == "canary-change"
    assert page.evaluate("[window.moved, window.readOut]") == [[], []]
    # nobody sees it: it does not ask
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    asked.clear()
    page.wait_for_timeout(6_000)
    assert asked == []
    page.evaluate("delete document.hidden")
    site.write(lambda session: _end(session, slug))
    expect(banner).to_have_count(0)
    told = f"The canary {slug}@2, of 10 %, was taken back"
    expect(page.locator(".list")).to_contain_text(told)
    assert page.evaluate("window.readOut.at(-1)") == told
    assert page.locator("[hx-trigger]").count() == 0
    asked.clear()
    page.wait_for_timeout(6_000)
    assert asked == []
    page.get_by_role("link", name="What came of it: 12 answers beside 108").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(
        f"{slug}@2 answered 10 % of the requests"
    )


async def _try(session: Any, slug: str, base: str) -> None:
    owner = await tenants.get(session, slug)
    await canary.start(session, owner, version=2, percent=10, base=base, actor="test")


async def _end(session: Any, slug: str) -> None:
    await canary.end(session, await tenants.get(session, slug), actor="test")


async def _count(session: Any, slug: str, *, canary_: int, live: int) -> None:
    owner = await tenants.get(session, slug)
    for is_canary, requests in ((True, canary_), (False, live)):
        session.add(
            CanaryCount(
                tenant_id=owner.id,
                revision=owner.live_revision,
                is_canary=is_canary,
                requests=requests,
            )
        )


def said(page: Page) -> list[str]:
    return page.locator("[data-voice] [data-answer]").all_inner_texts()


def test_three_voices_answer_side_by_side_and_can_be_stopped(
    visit: Visits, site: Site, tenant: Tenant
) -> None:
    site.run(site.engine.wait_ready(20))
    page = visit(release(tenant, "/ask?version=2"), f"{tenant.slug}:reviewer")
    page.locator("#question").fill("Do you <b>ship</b>?")
    page.locator("#send").press("Enter")
    expect(page.locator("#ask-status")).to_have_text("All have answered.")
    expect(page.locator("#asked")).to_have_text("Do you <b>ship</b>?")
    answers = said(page)
    names = [site.settings.base, f"{tenant.slug}.{1:012x}", f"{tenant.slug}.{2:012x}"]
    assert [text.partition("]")[0] for text in answers] == [f"[{name}" for name in names]
    assert not accessibility_faults(page)
    expect(page.locator("#stop")).to_be_hidden()
    # one that does not come to its end
    page.route("**/ask/stream", lambda route: None)
    page.locator("#send").press("Enter")
    expect(page.locator("#stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#ask-status")).to_have_text("Stopped.")
    expect(page.locator("[data-said]")).to_have_text(["Stopped."] * 3)
    expect(page.locator("#send")).to_be_focused()
    page.unroute("**/ask/stream")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-status")).to_have_text("All have answered.")
    assert said(page) == answers


def test_without_scripts_three_voices_answer_in_one_page(
    visit: Visits, site: Site, tenant: Tenant
) -> None:
    site.run(site.engine.wait_ready(20))
    who = f"{tenant.slug}:reviewer"
    page = visit(release(tenant, "/ask"), who, java_script_enabled=False)
    page.locator("#question").fill("Do you ship?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#asked")).to_have_text("Do you ship?")
    assert all(said(page))


def test_votes_are_cast_undone_and_explained_by_keys(visit: Visits, tenant: Tenant) -> None:
    page = visit(release(tenant, "/2/vote"), f"{tenant.slug}:reviewer")
    expect(page.locator("#question")).to_be_focused()
    expect(page.locator("#question")).to_have_text("Do you ship to Switzerland?")
    page.keyboard.press("?")
    expect(page.locator("dialog[open]")).to_contain_text("Undo the last vote")
    assert not accessibility_faults(page)
    page.keyboard.press("1")  # of no effect while the help is open
    page.keyboard.press("Escape")
    expect(page.locator("#question")).to_have_text("Do you ship to Switzerland?")
    page.keyboard.press("1")
    expect(page.locator("#question")).to_have_text("My bread arrived squashed.")
    page.keyboard.press("2")
    expect(page.locator("#question")).to_have_text("Can I change the delivery day?")
    page.keyboard.press("u")
    expect(page.locator("#question")).to_have_text("My bread arrived squashed.")
    page.keyboard.press("0")
    expect(page.locator("#question")).to_have_text("Can I change the delivery day?")
    page.keyboard.press("0")
    expect(page.locator(".result")).to_contain_text("2 saw no difference")
    assert not accessibility_faults(page)
    page.keyboard.press("u")
    expect(page.locator("#question")).to_have_text("Can I change the delivery day?")
    page.get_by_role("link", name="Keys").click()
    page.get_by_role("link", name="Turn keys off").click()
    expect(page.get_by_role("link", name="Turn keys on")).to_be_visible()
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    expect(page.locator("#question")).to_have_text("Can I change the delivery day?")
