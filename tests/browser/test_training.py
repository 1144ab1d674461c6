"""Runs in a browser: the curve while it grows, over reloads, restarts and gaps; by keyboard; without scripts."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from server.db.models import Job, Tenant
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from tests.browser.checks import accessibility_faults
from tests.browser.conftest import Visits
from tests.browser.seed import LOAF
from tests.browser.site import Site, running_site
from tests.server.jobs.fake_runs import happen, make_run, move, step, validation

_POINTS = """async () => {
  const curve = await import(document.querySelector("script[src*='/curve.js']").src);
  return curve.points().map((point) => [point.step, point.loss, point.validation]);
}"""


class Run:
    """A run that a test moves on, and the page of it."""

    def __init__(self, site: Site, tenant: Tenant, **fields: Any) -> None:
        self._site = site
        self.job: Job = site.run(make_run(site.database, tenant, **fields))
        self.path = f"/console/t/{tenant.slug}/training/{self.job.id}"

    def steps(self, first: int, last: int) -> None:
        """Take steps, with a validation after each tenth."""
        for number in range(first, last + 1):
            self._site.run(step(self._site.database, self.job, number))
            if number % 10 == 0:
                loss = 4 - number / 20
                self._site.run(validation(self._site.database, self.job, number, loss=loss))

    def move(self, *states: Any) -> None:
        """Change its state."""
        for state in states:
            self._site.run(move(self._site.database, self.job, state))

    def happen(self, kind: str, **body: Any) -> None:
        """Add an event."""
        self._site.run(happen(self._site.database, self.job, kind, **body))


def points(page: Page) -> list[list[float | None]]:
    """What the curve on the page holds: step, loss, validation."""
    found: list[list[float | None]] = page.evaluate(_POINTS)
    return found


def wait_for_points(page: Page, last: int) -> list[list[float | None]]:
    """Wait until the curve has this step, and its validation; each before must be there once."""
    for _ in range(150):
        found = points(page)
        if found and found[-1][0] == last and (last % 10 or found[-1][2] is not None):
            assert [point[0] for point in found] == list(range(1, last + 1))
            return found
        page.wait_for_timeout(100)
    raise AssertionError(f"the curve has {points(page)}")


def make_tenant(site: Site) -> Tenant:
    """A tenant of the test's own."""
    slug = f"t{uuid.uuid4().hex[:8]}"
    return site.write(lambda session: tenants.create(session, TenantRequest(slug=slug)))


@pytest.fixture
def tenant(site: Site) -> Tenant:
    return make_tenant(site)


@pytest.fixture
def run(site: Site, tenant: Tenant) -> Run:
    return Run(site, tenant)


def test_a_curve_grows_and_is_the_same_after_a_reload_in_mid_run(
    visit: Visits, run: Run, tenant: Tenant
) -> None:
    run.steps(1, 12)
    page = visit(run.path, f"{tenant.slug}:viewer")
    assert len(wait_for_points(page, 12)) == 12
    run.steps(13, 25)
    grown = wait_for_points(page, 25)
    assert [point[0] for point in grown if point[2] is not None] == [10, 20]
    page.reload()
    assert points(page) == grown
    run.steps(26, 30)
    longer = wait_for_points(page, 30)
    page.reload()
    assert points(page) == longer
    assert longer[:25] == grown


def test_a_curve_misses_nothing_over_three_seconds_without_a_network(
    visit: Visits, run: Run, tenant: Tenant
) -> None:
    run.steps(1, 3)
    page = visit(run.path, f"{tenant.slug}:viewer")
    wait_for_points(page, 3)
    run.steps(4, 4)
    wait_for_points(page, 4)
    page.context.set_offline(True)
    run.steps(5, 9)
    page.wait_for_timeout(3_000)
    page.context.set_offline(False)
    run.steps(10, 12)
    seen = wait_for_points(page, 12)
    visit.forgive()  # the browser says on its console that it was offline
    page.reload()
    assert points(page) == seen


def test_a_curve_goes_on_after_the_servers_restart(chromium: Browser, tmp_path: Path) -> None:
    with running_site(tmp_path) as first:
        tenant = make_tenant(first)
        run = Run(first, tenant)
        run.steps(1, 5)
        visits = Visits(chromium, first)
        page = visits(run.path, f"{tenant.slug}:viewer")
        wait_for_points(page, 5)
        port = int(first.url.rpartition(":")[2])
    with running_site(tmp_path, port=port) as second:
        run._site = second
        run.steps(6, 14)
        seen = wait_for_points(page, 14)
        page.reload()
        assert points(page) == seen
        visits.close()


def test_a_repeated_step_after_a_pause_replaces_the_one_before(
    visit: Visits, run: Run, tenant: Tenant
) -> None:
    run.steps(1, 6)
    page = visit(run.path, f"{tenant.slug}:viewer")
    wait_for_points(page, 6)
    run.move("paused", "queued", "running")
    run.happen("resumed", at=1_780_000_100.0, step=4)
    run.happen("step", at=1_780_000_110.0, step=5, steps=40, loss=0.5, tokens=1, eta_seconds=9.0)
    expect(page.locator("#run-log")).to_contain_text("Went on from the checkpoint at step 4")
    expect(page.locator("#run-table")).to_be_visible()
    for _ in range(50):
        if points(page)[4][1] == 0.5:
            break
        page.wait_for_timeout(100)
    grown = points(page)
    assert [point[0] for point in grown] == [1, 2, 3, 4, 5, 6]
    assert grown[4][1] == 0.5
    page.reload()
    assert points(page) == grown


def test_the_words_follow_the_run_and_keep_the_focus_and_the_open_table(
    visit: Visits, run: Run, tenant: Tenant
) -> None:
    run.steps(1, 2)
    page = visit(run.path, f"{tenant.slug}:admin")
    page.get_by_text("Show as a table").click()
    page.locator("#act-pause").focus()
    assert page.locator("#run-status").inner_text() == ""
    run.steps(3, 20)
    expect(page.locator("#run-stages")).to_contain_text("step 20 of 40")
    expect(page.locator("#run-said")).to_contain_text("Best validation so far: 3.00 at step 20.")
    expect(page.locator("#run-points tbody tr")).to_have_count(20)
    expect(page.locator("#run-status")).to_have_text("Training, 50 % done.")
    assert page.locator("#run-table").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.id") == "act-pause"
    run.move("evaluating")
    expect(page.locator("#run-head .chip")).to_have_text("Evaluating")
    expect(page.locator("#run-status")).to_have_text("Evaluating.")
    assert not accessibility_faults(page)
    expect(page.locator("#count-side-train")).to_have_text("1 running")
    run.move("succeeded")
    expect(page.locator("#act-pause")).to_have_count(0)
    expect(page.locator("#count-side-train")).to_have_text("")
    expect(page.locator("#menu-words")).to_have_text(", menu")
    # what held the focus is gone: it is not lost
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_page_holds_one_connection_and_lets_go_of_it(
    visit: Visits, site: Site, run: Run, tenant: Tenant
) -> None:
    feed = site.app.state.job_feed
    before = feed._following
    page = visit(run.path, f"{tenant.slug}:viewer")
    run.steps(1, 3)
    wait_for_points(page, 3)
    assert feed._following == before + 1
    page.goto(f"/console/t/{tenant.slug}/training")
    for _ in range(100):
        if feed._following == before:
            return
        page.wait_for_timeout(100)
    raise AssertionError("the connection is still open")


def test_a_run_that_has_ended_opens_no_connection(
    visit: Visits, site: Site, tenant: Tenant
) -> None:
    ended = Run(site, tenant, state="failed")
    page = visit(ended.path, f"{tenant.slug}:viewer")
    assert page.locator("#curve").get_attribute("data-events") == ""
    loaded = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    assert [name for name in loaded if name.endswith("/curve.js")]
    assert not [name for name in loaded if "/events" in name]


def press_until(page: Page, key: str, focused: str) -> None:
    """Press a key until what has the focus matches a selector."""
    for _ in range(80):
        if page.evaluate("(it) => document.activeElement.matches(it)", focused):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{key} does not lead to {focused}")


def test_a_run_is_started_and_cancelled_by_keyboard_alone(visit: Visits) -> None:
    page = visit(f"/console/t/{LOAF}/training", f"{LOAF}:admin")
    press_until(page, "Tab", f"a[href='/console/t/{LOAF}/training/new']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/training/new")
    press_until(page, "Tab", "input[name=recipe]")
    page.keyboard.press("ArrowDown")
    press_until(page, "Tab", "#seed")
    page.keyboard.press("Control+a")
    page.keyboard.type("soon")
    press_until(page, "Tab", "button.main")
    page.keyboard.press("Enter")
    # what is wrong takes the focus, and leads to its field
    expect(page.locator(".summary")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#seed")).to_be_focused()
    assert not accessibility_faults(page)
    page.keyboard.press("Control+a")
    page.keyboard.type("23")
    press_until(page, "Tab", "#approval")
    page.keyboard.press("Space")
    press_until(page, "Tab", "button.main")
    page.keyboard.press("Enter")
    expect(page.locator("#run-head .chip")).to_have_text("Queued")
    expect(page.locator("#run-head")).to_contain_text("by Mara Lindqvist")
    expect(page.locator("#run-head")).to_contain_text("Seed23")
    expect(page.locator("#run-head")).to_contain_text("cpu-demo")
    press_until(page, "Tab", "#act-cancel")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    expect(dialog).to_contain_text("Cancel the run of")
    assert not accessibility_faults(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator("#act-cancel")).to_be_focused()
    page.keyboard.press("Enter")
    press_until(page, "Tab", "dialog button.danger")
    page.keyboard.press("Enter")
    expect(page.locator("#run-head .chip")).to_have_text("Cancelled")


def test_without_scripts_a_run_is_started_read_and_cancelled(
    visit: Visits, run: Run, tenant: Tenant
) -> None:
    run.steps(1, 12)
    page = visit(run.path, f"{tenant.slug}:viewer", java_script_enabled=False)
    expect(page.locator("#curve polyline.cand")).to_be_visible()
    expect(page.locator("#run-said")).to_contain_text("Training loss fell from 3.60")
    page.get_by_role("link", name="Memory").click()
    expect(page.get_by_role("heading", name="Memory, GiB")).to_be_visible()
    page = visit(f"/console/t/{LOAF}/training/new", f"{LOAF}:admin", java_script_enabled=False)
    page.get_by_role("button", name="Start the run").click()
    expect(page.locator("#run-head .chip")).to_have_text("Queued")
    page.get_by_role("link", name="Cancel run").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#run-head .chip")).to_have_text("Cancelled")


def test_the_pointer_reads_the_curve(visit: Visits, run: Run, tenant: Tenant) -> None:
    run.steps(1, 40)
    page = visit(run.path, f"{tenant.slug}:viewer")
    box = page.locator("#curve .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#curve .reading")).to_have_text("step 20 · 1.74 · validation 3.00")


def test_two_tenants_see_nothing_of_each_others_runs(
    visit: Visits, site: Site, run: Run, tenant: Tenant
) -> None:
    other = make_tenant(site)
    visit(run.path, f"{other.slug}:admin", status=404)
    page = visit(f"/console/t/{other.slug}/training", f"{other.slug}:admin")
    expect(
        page.get_by_role("heading", name="No run yet, and too little to learn from")
    ).to_be_visible()
    answer = page.request.get(f"{run.path}/events")
    assert answer.status == 404
    del tenant
