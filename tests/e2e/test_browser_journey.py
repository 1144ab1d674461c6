"""From an empty installation to a live assistant that learns from its mistake, in a browser.

Everything is real: the server, its worker, the trainer, vLLM, a PostgreSQL, and a shop at another origin
that carries the widget. The base is tiny and says nonsense; agents who always say the same are learnt in half
a minute, so that the visitor's answer shows what it was trained on. Each page leads to the next. Pictures of
the way lie beside the test's files.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.checks import absent
from tests.browser.conftest import chromium_path
from tests.browser.watch import Watch
from tests.browser.widget.conftest import Widget
from tests.browser.widget.shop import Shop, running_shop
from tests.e2e.up import Up
from tests.tiny import SAMPLE

pytestmark = [pytest.mark.heavy, pytest.mark.vllm, pytest.mark.timeout(400, func_only=True)]

EMAIL, PASSWORD = "mara@bakery.example", "correct horse battery"
COMPANY, SLUG = "Bricks & Crumbs", "bricks-crumbs"
UPLOADED = 60
TAUGHT = "Yes, friend, gladly."
QUESTION = "Do you bake a walnut and fig loaf for my aunt in Aberdeen?"
PERSONS_ANSWER = "Not yet, but I have put your aunt on the list."
BETTER = "Not yet, friend: walnut and fig comes in the week of the first frost."
PATIENCE_MS = 60_000
TRAINED_MS = 240_000
_POINTS = """async () => {
  const curve = await import(document.querySelector("script[src*='/curve.js']").src);
  return curve.points().map((point) => point.step);
}"""
Visit = Callable[[str], Page]


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    """Sixty of the sample's conversations, in which the agent always says the same, and a line that is none."""
    path = tmp_path / "helpdesk.jsonl"
    conversations = [json.loads(line) for line in SAMPLE.read_bytes().splitlines()[:UPLOADED]]
    for message in chain.from_iterable(each["messages"] for each in conversations):
        if message["role"] == "assistant":
            message["content"] = TAUGHT
    lines = [json.dumps(each) for each in conversations]
    path.write_text("\n".join([*lines, "{not JSON"]), encoding="utf-8")
    return path


@pytest.fixture
def shop(installation: Up) -> Iterator[Shop]:
    with running_shop(installation.url) as shop:
        yield shop


@pytest.fixture
def chromium(installation: Up) -> Iterator[Browser]:
    del installation  # its event loop must have ended before Playwright's begins
    path = chromium_path()
    if path is None:
        absent("Chromium", "`make browsers` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, installation: Up, shop: Shop) -> Iterator[Visit]:
    """Opens pages, each as somebody of their own; after the test nothing may be wrong with any."""
    watches = []

    def open_page(url: str) -> Page:
        context = chromium.new_context(
            base_url=installation.url, locale="en-GB", viewport={"width": 1280, "height": 900}
        )
        watches.append(Watch(context, allowed=[installation.url, shop.url]))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        return page

    yield open_page
    faults = [fault for watch in watches for fault in watch.faults]
    assert not faults, "\n".join(faults)


class Pictures:
    """Takes numbered pictures of the way, to look at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken = 0

    def __call__(self, page: Page, name: str) -> None:
        self._taken += 1
        page.screenshot(path=self._folder / f"{self._taken:02}-{name}.png")


@pytest.fixture
def picture(tmp_path: Path) -> Pictures:
    return Pictures(tmp_path)


def to(page: Page, name: str) -> None:
    """Go to a page of the console by its navigation."""
    page.locator("nav.side").get_by_role("link", name=name, exact=False).click()
    expect(page.locator("nav.side [aria-current=page]")).to_contain_text(name)


def begin(up: Up, page: Page, picture: Pictures) -> None:
    """From the link that ``tenantune up`` prints to the company's home."""
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Your name").fill("Mara Lindqvist")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Set the password and sign in").click()
    expect(page.locator(".steps .now")).to_contain_text("Company")
    picture(page, "nothing-yet")
    page.get_by_role("link", name="Set up a company").click()
    page.get_by_label("Name", exact=True).fill(COMPANY)
    page.get_by_label("What the assistant is told first").fill("You are a bakery's desk.")
    page.get_by_role("button", name="Set it up").click()
    expect(page.locator(".steps .now")).to_contain_text("Transcripts")
    assert page.url == f"{up.url}/console/t/{SLUG}"
    picture(page, "home")


def upload(page: Page, transcripts: Path, picture: Pictures) -> None:
    """Upload a file, and read what came of it."""
    page.get_by_role("link", name="Bring transcripts").click()
    page.get_by_label("Drop a file here, or choose one").set_input_files(transcripts)
    page.get_by_role("button", name="Upload").click()
    report = page.get_by_role("region", name="Report")
    expect(report).to_contain_text(re.compile(rf"{UPLOADED}\s*conversations kept"))
    expect(report).to_contain_text(re.compile(r"1\s*records rejected"))
    expect(page.get_by_role("region", name="Rejected")).to_contain_text("No valid JSON")
    expect(page.get_by_role("region", name="Redaction")).to_contain_text("[EMAIL_1]")
    picture(page, "report-of-the-upload")


def start_run(page: Page, *, approval: bool) -> str:
    """Start a run from its form; returns the address of its page."""
    page.get_by_role("link", name="New run").click()
    if approval:
        page.get_by_label("A person approves it before it goes live").check()
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url(re.compile(r"/training/\w{32}$"))
    return page.url


def train(page: Page, picture: Pictures) -> None:
    """Start a run from home, watch its curve without a reload, and read its report."""
    to(page, "Home")
    expect(page.locator(".steps .now")).to_contain_text("Train")
    start_run(page, approval=True)
    page.evaluate("document.body.dataset.mine = 'yes'")
    expect(page.locator("#run-stages .now")).to_be_visible()
    expect(page.locator("#run-now")).to_contain_text("step", timeout=TRAINED_MS)
    picture(page, "training")
    waits = page.locator("#run-notices").get_by_text("waits for a person")
    expect(waits).to_be_visible(timeout=TRAINED_MS)
    assert page.locator("body").get_attribute("data-mine") == "yes"
    watched = page.evaluate(_POINTS)
    assert watched == list(range(1, len(watched) + 1))
    picture(page, "trained")
    page.reload()
    assert page.evaluate(_POINTS) == watched
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page.locator("h1")).to_contain_text(f"{COMPANY}, version 1")
    expect(page.locator(".gates li")).not_to_have_count(0)
    picture(page, "report-of-the-run")
    page.go_back()


def approve(up: Up, page: Page, picture: Pictures) -> None:
    """Look at the evidence, and make the version live."""
    to(page, "Evaluate & release")
    page.get_by_role("link", name=f"Look at {SLUG}@1").click()
    expect(page.locator(".gates.evidence li")).not_to_have_count(0)
    picture(page, "evidence")
    page.locator("#approve").click()
    page.locator("#do").click()
    live = page.locator(".head .chip", has_text="Live")  # its run makes it live, in a moment
    up.wait(lambda: live.count() or not page.reload(), "the version is live")


def put_on_a_site(page: Page, shop: Shop, picture: Pictures) -> str:
    """Make the widget; returns the address of the shop's page that carries it."""
    to(page, "Widget")
    page.get_by_role("button", name="Make the widget").click()
    snippet = page.get_by_role("region", name="Line of HTML").inner_text()
    picture(page, "widget-settings")
    return shop.write(snippet)


def answer_as_a_person(page: Page, picture: Pictures) -> None:
    """Sign in, read what went wrong, say what it should have said, answer, and give it back."""
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".queue")).to_contain_text("Needs a person")
    page.locator("[data-talk]", has_text=QUESTION).click()
    expect(page.locator("#talk-title")).to_have_text(QUESTION)
    expect(page.locator(".receipt dd").first).to_have_text(f"{SLUG}@1")
    picture(page, "conversation")
    page.get_by_text("Say this instead").click()
    page.get_by_label("What it should have said").fill(BETTER)
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator(".better")).to_contain_text(BETTER)
    page.get_by_label("Answer as a person").fill(PERSONS_ANSWER)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("li.person")).to_contain_text(PERSONS_ANSWER)
    page.get_by_role("button", name="Done: give back to the assistant").click()
    expect(page.locator(".handoff")).to_contain_text("Done")
    picture(page, "given-back")


def next_version(up: Up, page: Page, picture: Pictures) -> None:
    """Start another run: the dataset version that it makes has the better answer. Then cancel it."""
    to(page, "Training")
    run = start_run(page, approval=True)
    changed = page.get_by_role("link", name="What changed")
    versions = f"/console/t/{SLUG}/data/versions"
    page.goto(versions)
    up.wait(lambda: changed.count() or not page.reload(), "the next dataset version")
    changed.click()
    expect(page.locator(".head h1")).to_contain_text("From")
    came = page.locator(".card", has=page.get_by_role("heading", name="Only in")).first
    expect(came.get_by_role("listitem")).to_have_count(1)
    expect(came).to_contain_text(QUESTION)
    picture(page, "what-changed")
    page.goto(f"{run}/cancel")
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#run-head .chip")).to_have_text("Cancelled")


def learnt(up: Up) -> list[list[str]]:
    """What examples with a better answer hold: each message of each, in all dataset versions."""
    lines = [
        json.loads(line)
        for path in sorted((up.home / "datasets").glob("*/train.jsonl"))
        for line in path.read_text("utf-8").splitlines()
        if BETTER in line
    ]
    return [[message["content"] for message in line["messages"]] for line in lines]


def test_from_an_empty_installation_to_an_assistant_that_learns_from_its_mistake(
    installation: Up, visit: Visit, shop: Shop, transcripts: Path, picture: Pictures
) -> None:
    link = re.search(r"/console/link/\w+", (installation.home / "up.log").read_text())
    assert link is not None
    admin = visit(link[0])
    begin(installation, admin, picture)
    upload(admin, transcripts, picture)
    train(admin, picture)
    approve(installation, admin, picture)

    visitor = visit(put_on_a_site(admin, shop, picture))
    widget = Widget(visitor, label="").open()
    widget.ask(QUESTION)
    answer = widget.panel.locator(".them:has(.after) .text").inner_text()
    assert answer.startswith(TAUGHT[:11])
    picture(visitor, "visitor-asks")
    widget.panel.get_by_role("button", name="Talk to a person").click()
    widget.panel.get_by_label("E-mail").fill("noor@example.com")
    widget.panel.get_by_label("E-mail").press("Enter")
    widget.panel.get_by_text("Passed on to a person at").wait_for()

    agent = visit(f"/console/t/{SLUG}/conversations?queue=needs_person")
    answer_as_a_person(agent, picture)
    visitor.reload()
    widget = Widget(visitor, label="").open()
    expect(widget.log).to_contain_text(PERSONS_ANSWER)
    widget.ask("And for me?")
    picture(visitor, "visitor-is-answered")

    next_version(installation, agent, picture)
    [messages] = learnt(installation)
    assert messages == [QUESTION, BETTER]
    to(admin, "Home")
    expect(admin.locator(".steps")).to_have_count(0)  # all four are done
    picture(admin, "home-at-the-end")
    assert shop.violations == []
