"""The page "Engine & workers" keeps itself up to date, while somebody looks."""

from playwright.sync_api import Request, expect
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import WorkerProcess, now
from tests.browser.conftest import Visits
from tests.browser.site import Site

NOW = "/console/engine/now"
NAME = "a-new-one:/home"
ASK = """async () => {
  document.getElementById("now").dispatchEvent(new CustomEvent("every"));
  await new Promise((done) => setTimeout(done, 100));
}"""


async def add_worker(session: AsyncSession) -> None:
    session.add(WorkerProcess(name=NAME, host="a-new-one", pid=1, jobs_at_once=1, seen_at=now()))


async def remove_worker(session: AsyncSession) -> None:
    await session.execute(delete(WorkerProcess).where(WorkerProcess.name == NAME))


def test_what_changes_comes_by_itself_and_not_while_the_page_is_hidden(
    visit: Visits, site: Site
) -> None:
    page = visit("/console/engine", "operator")
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith(NOW):
            asked.append(request.url)

    expect(page.get_by_text("a-new-one", exact=True)).to_have_count(0)
    site.write(add_worker)
    try:
        expect(page.get_by_text("a-new-one", exact=True)).to_be_visible()
    finally:
        site.write(remove_worker)
    expect(page.get_by_text("a-new-one", exact=True)).to_have_count(0)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.on("request", note)
    for _ in range(3):
        page.evaluate(ASK)
    assert asked == []
    with page.expect_request(lambda request: request.url.endswith(NOW)):
        page.evaluate("delete document.hidden")
        page.evaluate(ASK)


def test_fields_of_own_limits_are_there_where_they_apply(visit: Visits) -> None:
    page = visit("/console/t/loaf/usage/limits", "operator")
    field = page.get_by_label("Requests a minute")
    expect(field).to_have_value("600")
    page.get_by_label("The installation's").check()
    expect(field).to_be_hidden()
    page.get_by_label("Limits of its own").check()
    expect(field).to_be_visible()
