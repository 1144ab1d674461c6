"""The pages about data, without a browser: who may do what, forms without a script, what is refused."""

import csv
import io
import json
from typing import Any

import msgspec
import pytest
from bs4 import BeautifulSoup
from sqlalchemy import select

from server.datasets import creation
from server.db.models import ConversationRow, DatasetVersion, Import, SourceFile
from server.errors import StorageFull
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.transcripts import importing, uploads
from server.web.console.figures import size
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version

PAGE = "/console/t/acme/data"
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


def chats(of: str) -> bytes:
    """Twelve conversations that differ, each with an address in it."""
    return b"".join(
        json.dumps(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": f"{of} {thing} {thing[::-1]}? Write to {thing}@b.example",
                    },
                    {"role": "assistant", "content": f"We have heard of it: {thing * 2} {of}"},
                ]
            }
        ).encode()
        + b"\n"
        for thing in THINGS
    )


CHATS = chats("Where is the")
BROKEN = CHATS + b'{"messages": [\n{"messages": [{"role": "boss", "content": "hi"}]}\n'
TABLE = b"Ticket,From,Message\n" + b"".join(
    f"t{number},{who},{who} says {number} to mara{number}@b.example\n".encode()
    for number in range(30)
    for who in ("customer", "agent")
)


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


async def rows_of(database, kind) -> list[Any]:
    async with database.reading() as session:
        return list(await session.scalars(select(kind).order_by(kind.id)))


async def stored_bytes(blobs: BlobStore) -> list[str]:
    assert blobs.folder is not None
    return [path.name for path in blobs.folder.rglob("*") if path.is_file()]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a bound on uploads that a test can reach."""
    return msgspec.structs.replace(settings, max_upload_bytes=2 << 20)


@pytest.fixture
async def tenant(make_tenant):
    return await make_tenant("acme", name="Acme")


@pytest.fixture
async def admin(sign_in, tenant):
    return await sign_in("acme", "admin")


@pytest.fixture
def send(admin):
    """Upload as a browser without a script does: by the form of the page, the token in its address."""

    async def send(content: bytes, name: str = "chats.jsonl", *, browser: Any = admin) -> Any:
        form = soup(await browser.get(PAGE)).select_one("form#upload")
        assert form is not None
        assert form["enctype"] == "multipart/form-data"
        token = browser.headers.pop("x-csrf-token", None)
        try:
            files = {"file": (name, content, "application/octet-stream")}
            return await browser.post(str(form["action"]), files=files)
        finally:
            if token:
                browser.headers["x-csrf-token"] = token

    return send


@pytest.fixture
def imported(send, database, settings):
    """Upload and have it read; the import's page."""

    async def imported(content: bytes, name: str = "chats.jsonl") -> str:
        answer = await send(content, name)
        assert answer.status_code == 303, answer.text
        where = str(answer.headers["location"])
        await importing.run_import(database, where.rpartition("/")[2], settings=settings)
        return where

    return imported


async def test_a_tenant_with_nothing_is_told_what_to_bring(admin, sign_in) -> None:
    answer = await admin.get(PAGE)
    assert answer.status_code == 200
    assert "Nothing here yet" in words(answer)
    assert "Load the sample" in words(answer)
    assert {each.text for each in soup(answer).select(".formats b")} == {
        "openai",
        "sharegpt",
        "tenantune",
        "csv",
    }
    viewer = await sign_in("acme", "viewer")
    seen = await viewer.get(PAGE)
    assert "An admin of this tenant can upload transcripts" in words(seen)
    assert not soup(seen).select("main form")


async def test_an_upload_without_a_script_is_queued_and_then_read(
    send, admin, database, settings
) -> None:
    answer = await send(CHATS, "../october.jsonl")
    assert answer.status_code == 303
    (row,) = await rows_of(database, Import)
    assert answer.headers["location"] == f"{PAGE}/imports/{row.id}"
    assert (row.state, row.importer) == ("queued", "openai")
    waiting = await admin.get(answer.headers["location"])
    assert "Waits its turn" in words(waiting)
    assert soup(waiting).select_one("#import")["hx-trigger"] == "every 2s"  # type: ignore[index]
    listed = await admin.get(PAGE)
    assert soup(listed).select_one("#uploads")["hx-trigger"] == "every 2s"  # type: ignore[index]
    await importing.run_import(database, row.id, settings=settings)
    read = await admin.get(answer.headers["location"])
    assert "12 conversations kept" in words(read)
    assert "24 messages: 12 by agents, 12 by customers" in words(read)
    assert not soup(read).select("[hx-trigger]")
    assert not soup(await admin.get(PAGE)).select("[hx-trigger]")
    assert "october.jsonl" in words(read, "h1")


async def test_a_script_is_told_where_its_upload_is(admin, database) -> None:
    answer = await admin.post(PAGE, files={"file": ("a.jsonl", CHATS, "text/plain")})
    (row,) = await rows_of(database, Import)
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"] == f"{PAGE}/imports/{row.id}"


async def test_each_rejected_record_is_there_with_its_line_and_reason(imported, admin) -> None:
    page = await imported(BROKEN)
    answer = await admin.get(page)
    assert "2 records rejected" in words(answer)
    groups = {
        " ".join(each.select("summary")[0].get_text(" ").split()): [
            [cell.get_text() for cell in row.select("td")] for row in each.select("tbody tr")
        ]
        for each in soup(answer).select("details.reason")
    }
    ((line, extent, _),) = groups["No valid JSON bad_json 1"]
    assert (line, extent) == ("13", "the record")
    assert groups["It is not clear who speaks bad_role 1"][0][0] == "14"
    table = await admin.get(f"{page}/rejected.csv")
    lines = list(csv.DictReader(io.StringIO(table.text)))
    assert [(each["line"], each["reason"]) for each in lines] == [
        ("13", "bad_json"),
        ("14", "bad_role"),
    ]


async def test_redaction_shows_what_was_put_in_and_never_what_was_taken_out(
    imported, admin
) -> None:
    answer = await admin.get(await imported(CHATS))
    put_in = [each.get_text() for each in soup(answer).select(".diff ins")]
    assert "put in: [EMAIL_1]" in put_in
    assert "E-mail addresses 12" in words(answer)
    assert "b.example" not in answer.text
    assert not soup(answer).select(".diff del")


@pytest.mark.parametrize(
    ("content", "name", "status", "said"),
    [
        (b"%PDF-1.7 and so on", "report.pdf", 422, "It is a PDF"),
        (b"PK\x03\x04 and so on", "export.xlsx", 422, "save it as CSV"),
        (b'{"a": 1}\n', "a.jsonl", 422, "is no transcript in one of the formats below"),
        (b"", "empty.csv", 422, "The file is empty."),
        (b"x" * 3_000_000, "big.csv", 413, "The file is larger than 2.0 MiB"),
    ],
)
async def test_what_cannot_be_taken_is_said_at_the_field_and_in_the_summary(
    send, database, blobs, *, content: bytes, name: str, status: int, said: str
) -> None:
    answer = await send(content, name)
    assert answer.status_code == status
    page = soup(answer)
    error = page.select_one("#file-error")
    assert error is not None
    assert said in error.get_text()
    assert said in page.select(".summary a[href='#file']")[0].get_text()
    assert page.select_one("#file")["aria-invalid"] == "true"  # type: ignore[index]
    assert await rows_of(database, Import) == []
    assert await stored_bytes(blobs) == []


async def test_a_full_disk_is_said_at_the_field(send, database, monkeypatch) -> None:
    async def full(*_args: object, **_options: object) -> None:
        raise StorageFull

    monkeypatch.setattr(BlobStore, "put_stream", full)
    answer = await send(CHATS)
    assert answer.status_code == 507
    assert "no room left" in words(answer, "#file-error")
    assert await rows_of(database, SourceFile) == []


async def test_the_same_bytes_twice_are_named_and_not_stored_again(
    imported, send, database
) -> None:
    page = await imported(CHATS, "october.jsonl")
    answer = await send(CHATS, "copy of october.jsonl")
    assert answer.status_code == 409
    said = words(answer, "#file-error")
    assert "uploaded before as 'october.jsonl', and 12 conversations were kept" in said
    assert soup(answer).select(f'main a[href="{page}"]')
    assert len(await rows_of(database, Import)) == 1


@pytest.mark.parametrize("token", ["", "?csrf_token=", "?csrf_token=wrong"])
async def test_a_form_with_another_token_is_refused_before_its_file_is_read(
    admin, database, blobs, token: str
) -> None:
    del admin.headers["x-csrf-token"]
    began: list[bytes] = []

    async def body() -> Any:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        for part in (head, CHATS, b"\r\n--x--\r\n"):
            began.append(part)
            yield part

    answer = await admin.post(
        PAGE + token, content=body(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 403
    assert began == []
    assert await rows_of(database, SourceFile) == []
    assert await stored_bytes(blobs) == []


async def test_viewers_and_reviewers_read_and_change_nothing(
    imported, sign_in, database, admin
) -> None:
    page = await imported(CHATS)
    for role in ("viewer", "reviewer"):
        browser = await sign_in("acme", role)
        for path in (PAGE, page, f"{PAGE}/versions", f"{PAGE}/uploads.csv", f"{page}/rejected.csv"):
            assert (await browser.get(path)).status_code == 200, path
        assert not soup(await browser.get(page)).select(f'a[href="{page}/delete"]')
        assert (await browser.get(f"{page}/delete")).status_code == 403
        for path in (f"{page}/delete", f"{page}/columns", f"{PAGE}/sample"):
            assert (await browser.post(path, data={})).status_code == 403, path
        files = {"file": ("a.jsonl", CHATS + b"\n", "text/plain")}
        assert (await browser.post(PAGE, files=files)).status_code == 403
    assert len(await rows_of(database, Import)) == 1


async def test_another_tenants_upload_is_not_there(imported, make_tenant, sign_in) -> None:
    import_id = (await imported(CHATS)).rpartition("/")[2]
    await make_tenant("zoo")
    other = await sign_in("zoo", "admin")
    for path in (f"/imports/{import_id}", f"/imports/{import_id}/delete"):
        assert (await other.get(f"/console/t/zoo/data{path}")).status_code == 404
    for path in (f"/imports/{import_id}/delete", f"/imports/{import_id}/columns"):
        answer = await other.post(f"/console/t/zoo/data{path}", data={})
        assert answer.status_code == 404


async def test_a_table_waits_until_its_columns_are_confirmed(
    send, admin, database, settings
) -> None:
    answer = await send(TABLE, "tickets.csv")
    page = answer.headers["location"]
    (row,) = await rows_of(database, Import)
    assert row.state == "draft"
    shown = await admin.get(page)
    assert "30 conversations" in words(shown)
    assert "The first 20 rows" in words(shown)
    assert len(soup(shown).select("table.preview tbody tr")) == 20
    used = [each.get_text(" ").split() for each in soup(shown).select("th.used")]
    assert used == [["Ticket", "Conversation"], ["From", "Who", "speaks"], ["Message", "Message"]]
    assert "customer says 0 to [EMAIL_1]" in words(shown)
    assert "b.example" not in shown.text
    del admin.headers["x-csrf-token"]
    form = {"csrf_token": soup(shown).select_one("[name=csrf_token]")["value"], "do": "import"}  # type: ignore[index]
    answer = await admin.post(f"{page}/columns", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    await importing.run_import(database, row.id, settings=settings)
    assert "30 conversations kept" in words(await admin.get(page))
    # what was confirmed is not asked again
    assert (await admin.post(f"{page}/columns", data=form)).headers["location"] == page


async def test_the_same_table_again_leads_to_where_it_waits(send, database) -> None:
    first = (await send(TABLE, "tickets.csv")).headers["location"]
    assert (await send(TABLE, "again.csv")).headers["location"] == first
    assert len(await rows_of(database, Import)) == 1


async def test_columns_and_roles_that_cannot_be_guessed_are_chosen(
    send, admin, database, settings
) -> None:
    table = b"a,b,c\n" + b"".join(
        f"{number},{who},{who} says {number}\n".encode()
        for number in range(12)
        for who in ("alpha", "beta")
    )
    page = (await send(table, "odd.csv")).headers["location"]
    shown = await admin.get(page)
    assert (
        "cannot tell which column is: conversation, role, text" in words(shown, ".notice").lower()
    )
    assert "--map" not in shown.text
    refused = await admin.post(f"{page}/columns", data={"do": "import"})
    assert refused.status_code == 422
    assert "cannot tell which column" in words(refused, ".summary").lower()
    chosen = {"column-conversation": "0", "column-role": "1", "column-text": "2"}
    shown = await admin.post(f"{page}/columns", data=chosen | {"do": "preview"})
    assert shown.status_code == 200
    assert [each.get_text() for each in soup(shown).select("#trial .choices label")] == [
        "alpha",
        "beta",
    ]
    roles = {"roles-of": "1", "role-0": "customer", "role-1": "agent"}
    shown = await admin.post(f"{page}/columns", data=chosen | roles | {"do": "preview"})
    assert "12 conversations" in words(shown)
    picked = soup(shown).select("#column-text option[selected]")
    assert [each["value"] for each in picked] == ["2"]
    # roles of another column are passed over
    other = await admin.post(
        f"{page}/columns", data=chosen | roles | {"roles-of": "2", "do": "import"}
    )
    assert other.status_code == 422
    answer = await admin.post(f"{page}/columns", data=chosen | roles | {"do": "import"})
    assert answer.status_code == 303
    (row,) = await rows_of(database, Import)
    assert row.options["mapping"] == {"conversation": "a", "role": "b", "text": "c"}
    assert row.options["roles"] == {"alpha": "customer", "beta": "agent"}
    await importing.run_import(database, row.id, settings=settings)
    assert len(await rows_of(database, ConversationRow)) == 12


async def test_names_in_a_table_are_not_shown_before_it_is_imported(send, admin) -> None:
    table = b"Ticket,From,Customer name,Message\n" + b"".join(
        f'{n},{who},Mara Lindqvist,"I am Mara Lindqvist, and {who}"\n'.encode()
        for n in range(12)
        for who in ("customer", "agent")
    )
    shown = await admin.get((await send(table, "names.csv")).headers["location"])
    assert "[NAME_1]" in words(shown)
    assert "Lindqvist" not in shown.text


async def test_deleting_names_the_upload_and_what_hangs_on_it(
    imported, admin, database, settings
) -> None:
    page = await imported(CHATS, "october.jsonl")
    (row,) = await rows_of(database, Import)
    await creation.create_version(database, row.tenant_id, settings=settings)
    asked = await admin.get(f"{page}/delete")
    assert words(asked, "h1") == "Delete october.jsonl?"
    assert "Its 12 conversations go with it" in words(asked)
    assert "Delete the dataset version made of it as well" in words(asked)
    answer = await admin.post(f"{page}/delete", data={})
    assert answer.headers["location"] == f"{PAGE}?done=deleted"
    assert "The upload was deleted" in words(await admin.get(answer.headers["location"]), "#toasts")
    assert await rows_of(database, ConversationRow) == []
    assert len(await rows_of(database, DatasetVersion)) == 1
    assert (await admin.get(page)).status_code == 404


async def test_deleting_can_take_the_dataset_versions_along(
    imported, admin, database, settings
) -> None:
    page = await imported(CHATS)
    (row,) = await rows_of(database, Import)
    await creation.create_version(database, row.tenant_id, settings=settings)
    await admin.post(f"{page}/delete", data={"datasets": "yes"})
    assert await rows_of(database, DatasetVersion) == []


async def test_the_sample_is_loaded_once(admin, database, settings) -> None:
    answer = await admin.post(f"{PAGE}/sample")
    assert answer.status_code == 303
    (row,) = await rows_of(database, Import)
    await importing.run_import(database, row.id, settings=settings)
    read = await admin.get(answer.headers["location"])
    assert f"{uploads.SAMPLE_CONVERSATIONS} conversations kept" in words(read)
    assert words(read, ".notice") == "It is read. On to the next step"  # nothing is trained yet
    assert (await admin.post(f"{PAGE}/sample")).status_code == 409


async def test_versions_are_listed_and_what_differs_between_two_is_shown(
    imported, admin, database, settings
) -> None:
    assert "No dataset version yet" in words(await admin.get(f"{PAGE}/versions"))
    page = await imported(CHATS)
    (row,) = await rows_of(database, Import)
    old = await creation.create_version(database, row.tenant_id, settings=settings)
    await imported(chats("<b>Please</b> cancel my subscription to"), "november.jsonl")
    new = await creation.create_version(database, row.tenant_id, settings=settings)
    assert old.sha256 != new.sha256
    listed = soup(await admin.get(f"{PAGE}/versions"))
    lines = [" ".join(each.get_text(" ").split()) for each in listed.select("tbody tr")]
    assert new.sha256[:8] in lines[0]
    assert "the first" in lines[1]
    link = listed.select("tbody tr:first-child a")[0]["href"]
    shown = await admin.get(str(link))
    assert words(shown, "h1") == f"From {old.sha256[:8]} to {new.sha256[:8]}"
    assert "came november.jsonl" in words(shown)
    assert "<b>Please</b> cancel my subscription" in words(shown)  # as text
    assert not soup(shown).select(".texts b")
    assert "System prompt The same in both." in words(shown)
    # the files went with the first import; the figures are still there
    await admin.post(f"{page}/delete", data={"datasets": "yes"})
    assert "No dataset version yet" in words(await admin.get(f"{PAGE}/versions"))


@pytest.mark.parametrize("chosen", [0, 1])
async def test_two_versions_are_needed_to_compare(admin, chosen: int) -> None:
    query = "&".join(["version=" + "0" * 64] * chosen)
    answer = await admin.get(f"{PAGE}/versions/compare?{query}")
    assert answer.status_code == 422
    assert "Choose two versions" in words(answer, ".summary")
    missing = await admin.get(f"{PAGE}/versions/compare?version={'1' * 64}&version={'2' * 64}")
    assert missing.status_code == 404


async def test_the_lists_are_paged(imported, admin, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "PAGE", 2)
    for number in range(3):
        await imported(chats(f"Parcel {number}"), f"{number}.jsonl")
    first = soup(await admin.get(PAGE))
    assert [each.get_text() for each in first.select("tbody td.file a")] == ["2.jsonl", "1.jsonl"]
    older = first.select_one("a[rel=next]")
    assert older is not None
    second = soup(await admin.get(str(older["href"])))
    assert [each.get_text() for each in second.select("tbody td.file a")] == ["0.jsonl"]
    assert "no older uploads" in words(await admin.get(f"{PAGE}?after={'0' * 32}"))


async def test_a_file_name_is_no_formula_in_the_csv(imported, admin) -> None:
    await imported(CHATS, "=cmd|' calc'!A0")
    answer = await admin.get(f"{PAGE}/uploads.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="acme-uploads.csv"'
    (line,) = csv.DictReader(io.StringIO(answer.text))
    assert line["file"].startswith("'=cmd")
    assert (line["kept"], line["rejected"], line["state"]) == ("12", "0", "Read")
    versions = await admin.get(f"{PAGE}/versions.csv")
    assert versions.text.startswith("version,train,validation,test,dropped,made_at,models\n")


async def test_topics_stand_beside_their_scores(
    database, tenant, admin, sign_in, make_tenant
) -> None:
    empty = await admin.get(f"{PAGE}/topics")
    assert "No topics yet" in words(empty)
    run = await make_run(database, tenant)
    await make_version(database, tenant, run, version=1, report=make_report())
    page = words(await admin.get(f"{PAGE}/topics"))
    assert "4 topics" in page
    assert "More transcripts would help most about refund, squashed" in page
    assert "No words of its own Hello, are you there?" in page
    lines = list(csv.DictReader(io.StringIO((await admin.get(f"{PAGE}/topics.csv")).text)))
    assert [(line["language"], line["conversations"]) for line in lines[:3]] == [
        ("en", "60"),
        ("de", "21"),
        ("en", "66"),
    ]
    assert (lines[0]["words"], lines[3]["new"]) == ("delivery day address", "")
    assert sum(float(line["share"]) for line in lines) == pytest.approx(1, abs=0.001)
    assert "refund, squashed 37 F1 0.36, 4 replies More 8 F1 0.15, 2 replies" in page
    await make_tenant("other")
    other = await sign_in("other", "admin")
    assert "No topics yet" in words(await other.get("/console/t/other/data/topics"))


async def test_a_failed_upload_says_why(imported, admin) -> None:
    page = await imported(b'{"messages": []}\n' * 3, "empty.jsonl")
    answer = await admin.get(page)
    assert "It could not be read, and nothing of it was stored" in words(answer)
    assert "Rejected" in words(answer)
    assert "Nothing in 'empty.jsonl'" in words(await admin.get(PAGE))


def test_sizes_are_said_in_the_unit_that_fits() -> None:
    assert [size(count) for count in (0, 1023, 1024, 1536, 200 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "200 MiB",
        "3.0 GiB",
    ]
