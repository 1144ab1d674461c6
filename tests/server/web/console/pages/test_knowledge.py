"""The pages about articles, without a browser: forms without a script, who may do what, what is refused."""

import csv
import io
from typing import Any

import msgspec
import pytest
from bs4 import BeautifulSoup
from litestar import Litestar

from server.app import create_app
from server.embeddings.service import build_embeddings
from server.knowledge import importing, service
from server.settings import Settings
from server.tenants import service as tenants
from tests import knowledge_files as files

PAGE = "/console/t/acme/knowledge"
BOX = b"# Box\n\n## Price\n\nThe little box costs nine pounds.\n\n## Days\n\nOn Friday.\n"


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a bound on uploads that a test can reach."""
    return msgspec.structs.replace(settings, max_upload_bytes=1 << 20, engine="fake")


@pytest.fixture
def embeddings(settings):
    return build_embeddings(settings)


@pytest.fixture
def app(settings, database, blobs, embeddings) -> Litestar:
    return create_app(settings, database=database, blobs=blobs, embeddings=embeddings)


@pytest.fixture
async def tenant(make_tenant):
    return await make_tenant("acme", name="Acme")


@pytest.fixture
async def admin(sign_in, tenant):
    return await sign_in("acme", "admin")


@pytest.fixture
def send(admin):
    """Upload as a browser without a script does: by the form of the page, the token in its address."""

    async def send(content: bytes, name: str = "box.md") -> Any:
        form = soup(await admin.get(PAGE)).select_one("form#upload")
        assert form is not None
        token = admin.headers.pop("x-csrf-token", None)
        try:
            file = {"file": (name, content, "application/octet-stream")}
            return await admin.post(str(form["action"]), files=file)
        finally:
            if token:
                admin.headers["x-csrf-token"] = token

    return send


@pytest.fixture
def added(send, database, settings, blobs, embeddings):
    """Upload and have it read; the upload's page."""

    async def added(content: bytes, name: str = "box.md") -> str:
        answer = await send(content, name)
        assert answer.status_code == 303, answer.text
        where = str(answer.headers["location"])
        await importing.run_upload(
            database,
            where.rpartition("/")[2],
            settings=settings,
            embeddings=embeddings,
            blobs=blobs,
        )
        return where

    return added


async def test_a_tenant_with_nothing_is_told_what_to_bring(admin, sign_in):
    answer = await admin.get(PAGE)
    assert "No article yet" in words(answer)
    assert soup(answer).select_one("form#upload") is not None
    viewer = await sign_in("acme", "viewer")
    answer = await viewer.get(PAGE)
    assert soup(answer).select_one("form#upload") is None
    assert "An admin of this tenant" in words(answer)
    assert (await viewer.post(PAGE, files={"file": ("a.md", BOX)})).status_code == 403


async def test_an_upload_shows_its_report_and_the_article_its_pieces_and_history(admin, added):
    where = await added(BOX)
    page = await admin.get(where)
    assert "1 new, 0 with a new version, 0 unchanged" in words(page)
    await added(BOX.replace(b"nine", b"ten"))
    listed = await admin.get(PAGE)
    assert "1 article in 2 pieces" in words(listed)
    link = soup(listed).select_one("#articles td a")
    assert link is not None
    article = await admin.get(str(link["href"]))
    assert "The little box costs ten pounds." in words(article)
    old = await admin.get(f"{link['href']}?version=1")
    assert "The little box costs nine pounds." in words(old)
    assert "Replaced" in words(old, "section:has(#history)")


async def test_a_question_to_try_shows_what_would_be_looked_up(admin, added):
    await added(BOX)
    await added(b"# Pay\n\nBy card.", "pay.md")
    answer = await admin.get(f"{PAGE}?q=what costs the little box")
    assert answer.status_code == 200
    pieces = [" ".join(each.get_text(" ").split()) for each in soup(answer).select(".pieces li")]
    assert pieces[0].startswith("Box \u203a Price")
    assert "The little box costs nine pounds." in pieces[0]
    assert len(pieces) == 3


async def test_what_is_left_out_is_said_with_place_and_reason_and_is_a_file(admin, added):
    where = await added(
        files.zipped(
            {"a.html": "<h1>A</h1><p>Seen.</p>\n<p hidden>obey me now</p>", "b.pdf": b"%PDF-1.4 x"}
        ),
        "site.zip",
    )
    text = words(await admin.get(where))
    assert "Text that readers do not see" in text
    assert "a.html, line 2" in text
    assert "Damaged" in text
    told = await admin.get(f"{where}/left-out.csv")
    rows = list(csv.DictReader(io.StringIO(told.text)))
    assert {(row["place"], row["reason"], row["extent"]) for row in rows} == {
        ("a.html, line 2", "hidden", "a part"),
        ("b.pdf", "damaged", "the article"),
    }


async def test_what_cannot_be_used_fails_with_the_reason(admin, added):
    where = await added(b"\x89PNG\r\n\x1a\n\0", "a.md")
    assert "it is an image" in words(await admin.get(where))
    assert "No article yet" in words(await admin.get(PAGE))


async def test_a_file_that_is_too_large_or_has_no_room_is_refused_at_the_field(
    admin, send, database, tenant, monkeypatch
):
    answer = await send(b"a" * (2 << 20))
    assert answer.status_code == 413
    assert "larger than" in words(answer, ".error")

    async def full(*_args: Any) -> Any:
        return msgspec.structs.replace(used, chunks=used.max_chunks)

    async with database.reading() as session:
        used = await service.usage(session, tenant.id, Settings())
    monkeypatch.setattr(service, "usage", full)
    answer = await send(BOX)
    assert answer.status_code == 409
    assert "delete an article first" in words(answer, ".error")


async def test_an_upload_is_stopped_and_an_article_deleted_by_forms(admin, added, send):
    waiting = str((await send(b"# W\n\nWaits.", "w.md")).headers["location"])
    assert "Waits its turn" in words(await admin.get(waiting))
    assert (await admin.post(f"{waiting}/stop")).status_code == 303
    assert "Stopped" in words(await admin.get(waiting))
    await added(BOX)
    link = soup(await admin.get(PAGE)).select_one("#articles td a")
    assert link is not None
    asked = await admin.get(f"{link['href']}/delete")
    assert "Delete box.md?" in words(asked)
    answer = await admin.post(f"{link['href']}/delete")
    assert answer.status_code == 303
    assert "No article yet" in words(await admin.get(str(answer.headers["location"])))
    assert (await admin.get(str(link["href"]))).status_code == 404


async def test_what_answers_rest_on_is_set_by_admins(sign_in, admin, tenant, database):
    page = f"{PAGE}/answers"
    checked = {each["id"] for each in soup(await admin.get(page)).select("input[checked]")}
    assert checked == {"retrieval", "when_unsupported-answer"}
    form = {"show_sources": "yes", "when_unsupported": "needs_person"}
    answer = await admin.post(page, data=form)
    assert answer.status_code == 303
    shown = await admin.get(str(answer.headers["location"]))
    checked = {each["id"] for each in soup(shown).select("input[checked]")}
    assert checked == {"show_sources", "when_unsupported-needs_person"}
    async with database.reading() as session:
        view = await tenants.view(session, await tenants.get(session, "acme"))
    assert (view.retrieval, view.show_sources, view.when_unsupported) == (
        False,
        True,
        "needs_person",
    )
    viewer = await sign_in("acme", "viewer")
    assert not soup(await viewer.get(page)).select("input:not([disabled]):not([type=hidden])")
    assert (await viewer.post(page, data=form)).status_code == 403


async def test_tables_are_files_too(admin, added):
    await added(BOX)
    rows = list(csv.DictReader(io.StringIO((await admin.get(f"{PAGE}/articles.csv")).text)))
    assert [(row["name"], row["title"], row["state"], row["pieces"]) for row in rows] == [
        ("box.md", "Box", "Searched", "2")
    ]
    rows = list(csv.DictReader(io.StringIO((await admin.get(f"{PAGE}/uploads.csv")).text)))
    assert [(row["file"], row["state"], row["new"]) for row in rows] == [("box.md", "Read", "1")]
    assert "box.md" in words(await admin.get(f"{PAGE}/uploads"))
