"""Uploads as pages list them, drafts, and what of redaction may be shown; on both databases."""

import datetime
from typing import get_args

import msgspec
import pytest
from sqlalchemy import update

from connectors.conversation import Role
from connectors.importers import IMPORTERS, Reason, choose
from connectors.report import ImportReport
from server.cleanup import Cleaner
from server.db.models import (
    ConversationRow,
    Import,
    ImportedAgain,
    SourceFile,
    now,
)
from server.db.models.transcripts import ImportState
from server.errors import Conflict, NotFound
from server.storage.blobs import BlobStore
from server.transcripts import service, uploads
from server.transcripts.columns import Chosen, look, options_of, read_choice

TABLE = b"Ticket,From,Message\n" + b"".join(
    f"t{number},{who},{who} says {number} to mara{number}@b.example\n".encode()
    for number in range(30)
    for who in ("customer", "agent")
)


@pytest.fixture
async def acme(make_tenant):
    return await make_tenant("acme")


@pytest.fixture
def add(database):
    """Add an import of a file of its own; returns its id."""

    async def add(tenant, number: int = 0, *, size_bytes: int = 10, **fields) -> str:
        async with database.transaction() as session:
            source = SourceFile(
                tenant_id=tenant.id,
                filename=f"{number}.jsonl",
                sha256=f"{number:064x}",
                size_bytes=size_bytes,
            )
            session.add(source)
            await session.flush()
            row = Import(tenant_id=tenant.id, source_file_id=source.id, **fields)
            session.add(row)
        return str(row.id)

    return add


@pytest.fixture
def draft(database, blobs):
    """Store a table and make a draft of it."""

    async def draft(tenant, content: bytes = TABLE) -> Import:
        async def once():
            yield content

        sha256, size = await blobs.put_stream(once(), max_bytes=len(content))
        async with database.transaction() as session:
            return await uploads.add(
                session,
                await session.merge(tenant),
                sha256=sha256,
                size_bytes=size,
                filename="tickets.csv",
                head=content,
            )

    return draft


async def test_a_list_has_the_figures_of_each_upload_and_no_other_tenants(
    acme, make_tenant, add, database
):
    other = await make_tenant("other")
    report = {"read": 12, "stored": 9, "rejected": 3, "partially_rejected": 1}
    first = await add(acme, 1, state="done", importer="openai", report=report, size_bytes=77)
    second = await add(acme, 2, state="failed", error={"message": "x" * 5_000})
    await add(other, 3)
    async with database.reading() as session:
        failed, done = await uploads.list_uploads(session, acme)
        assert [each.id for each in await uploads.list_uploads(session, acme, limit=1)] == [second]
        rest = await uploads.list_uploads(session, acme, after=second)
        assert [each.id for each in rest] == [first]
        only = await uploads.list_uploads(session, acme, states=["done"])
        assert [each.id for each in only] == [first]
    assert (done.filename, done.size_bytes, done.format) == ("1.jsonl", 77, "openai")
    assert (done.kept, done.new, done.rejected, done.partially_rejected) == (12, 9, 3, 1)
    assert (failed.kept, failed.rejected) == (None, None)
    assert len(failed.problem) == uploads.CELL
    assert failed.state.word == "Failed"


async def test_unfinished_uploads_are_counted_by_state(acme, make_tenant, add, database):
    for number, state in enumerate(("draft", "queued", "queued", "running", "done", "failed")):
        await add(acme, number, state=state)
    await add(await make_tenant("other"), 9)
    async with database.reading() as session:
        counts = await uploads.count_unfinished(session, acme.id)
    assert counts == {"draft": 1, "queued": 2, "running": 1}


async def test_equal_bytes_are_found_unless_their_import_failed(acme, make_tenant, add, database):
    await add(acme, 1, state="failed")
    read = await add(acme, 2, state="done")
    other = await make_tenant("other")
    async with database.reading() as session:
        assert await uploads.find_same(session, acme, f"{1:064x}") is None
        found = await uploads.find_same(session, acme, f"{2:064x}")
        assert found is not None
        assert found.id == read
        assert await uploads.find_same(session, other, f"{2:064x}") is None


async def test_what_was_put_in_is_shown_with_the_text_around_it(acme, make_tenant, add, database):
    theirs = await add(await make_tenant("other"), 1)
    mine, earlier = await add(acme, 2), await add(acme, 3)

    def row(tenant, import_id: str, number: int, *texts: str) -> ConversationRow:
        turns = [{"role": "customer", "text": text} for text in texts]
        return ConversationRow(
            tenant_id=tenant.id,
            import_id=import_id,
            external_id="",
            digest=f"{number:064x}",
            body={"id": "", "turns": turns},
        )

    long = "before " * 50 + "[EMAIL_1] and [PHONE_12]" + " after" * 50
    async with database.transaction() as session:
        other_tenant = await session.get(Import, theirs)
        again = row(acme, earlier, 4, "ring [PHONE_1]")
        session.add_all(
            [
                row(acme, mine, 1, "nothing here", long),
                row(acme, mine, 2, "I am [NAME_1].", "[EMAIL_1]"),
                row(acme, mine, 3, "[x] [EMAIL_0] " + "y" * 30_000 + " [IBAN_1]"),
                again,
                ConversationRow(
                    tenant_id=other_tenant.tenant_id,
                    import_id=theirs,
                    external_id="",
                    digest="0" * 64,
                    body={"id": "", "turns": [{"role": "customer", "text": "[CARD_1]"}]},
                ),
            ]
        )
        await session.flush()
        session.add(ImportedAgain(tenant_id=acme.id, import_id=mine, conversation_id=again.id))
    async with database.reading() as session:
        first, named, *rest = await uploads.snippets(session, acme, mine)
    texts = ["".join(part.text for part in parts) for parts in (first, named, *rest)]
    assert [part.text for part in first if part.kind == "new"] == ["[EMAIL_1]", "[PHONE_12]"]
    assert texts[0].startswith("…")
    assert texts[0].endswith("…")
    assert len(texts[0]) < 250
    # a kind that was not shown yet comes before those that were
    assert texts[1:] == ["I am [NAME_1].", "[EMAIL_1]", "ring [PHONE_1]"]


async def test_a_draft_is_read_only_after_it_is_confirmed(acme, draft, database):
    row = await draft(acme)
    assert (row.state, row.importer) == ("draft", "csv")
    options = options_of(["Ticket", "From", "Message"], [], Chosen(columns={"text": 2}))
    async with database.transaction() as session:
        confirmed = await service.confirm(session, acme, row.id, options=options)
        assert confirmed.state == "queued"
        assert confirmed.options == {"mapping": {"text": "Message"}}
    async with database.transaction() as session:
        with pytest.raises(Conflict):
            await service.confirm(session, acme, row.id, options=options)
        with pytest.raises(NotFound):
            await service.confirm(session, acme, "0" * 32, options=options)


async def test_the_api_does_not_take_a_draft_for_an_import(acme, draft, client, operator):
    row = await draft(acme)
    answer = await client.post(
        "/admin/tenants/acme/transcripts?filename=a.csv&importer=csv",
        content=TABLE,
        headers=operator,
    )
    assert answer.json()["state"] == "queued"
    assert answer.json()["id"] != row.id


async def test_a_draft_that_nobody_confirms_goes_after_a_day_with_its_file(
    acme, draft, database, blobs
):
    young = await draft(acme, TABLE + b"t99,agent,young\n")
    old = await draft(acme)
    async with database.transaction() as session:
        before = now() - service.DRAFT_AGE - datetime.timedelta(minutes=1)
        await session.execute(update(Import).where(Import.id == old.id).values(created_at=before))
    await Cleaner(database, blobs).clean_up()
    async with database.reading() as session:
        kept = await session.get(Import, young.id)
        gone = await session.get(Import, old.id)
        sources = [await session.get(SourceFile, each.source_file_id) for each in (kept, gone)]
    assert (kept.state, gone.state) == ("draft", "failed")
    assert gone.error["code"] == "not_confirmed"
    assert [await blobs.exists(source.sha256) for source in sources] == [True, False]


async def test_a_look_at_a_table_is_redacted_and_tells_how_it_would_be_read(
    acme, draft, database, blobs, settings
):
    row = await draft(acme)
    async with database.reading() as session:
        source = await session.get(SourceFile, row.source_file_id)
    seen = await look(row, source, acme, chosen=Chosen(), blobs=blobs, settings=settings)
    assert seen.problem == ""
    assert seen.whole
    assert seen.report is not None
    assert seen.report.read == 30
    assert seen.head.columns == {"conversation": 0, "role": 1, "text": 2}
    assert seen.head.rows[0] == (2, ["t0", "customer", "customer says 0 to [EMAIL_1]"])
    assert len(seen.head.rows) == 20
    assert seen.head.roles == ["customer", "agent"]
    assert list(settings.scratch.glob("preview-*")) == []


async def test_a_look_at_a_large_table_takes_whole_lines_of_its_beginning(
    acme, draft, database, blobs, settings
):
    row = await draft(
        acme, TABLE + b"".join(b"u%d,agent,%s\n" % (n, b"x" * 900) for n in range(400))
    )
    async with database.reading() as session:
        source = await session.get(SourceFile, row.source_file_id)
    seen = await look(row, source, acme, chosen=Chosen(), blobs=blobs, settings=settings)
    assert not seen.whole
    assert seen.report is not None
    assert seen.report.rejected == 0
    assert 30 < seen.report.read < 430


async def test_roles_are_taken_for_the_column_that_they_were_chosen_for(
    acme, draft, database, blobs, settings
):
    content = b"Ticket,From,Message\n" + b"".join(
        f"{number},{who},{who} {number}\n".encode() for number in range(9) for who in ("aa", "bb")
    )
    row = await draft(acme, content)
    async with database.reading() as session:
        source = await session.get(SourceFile, row.source_file_id)
    roles = {0: Role.CUSTOMER, 1: Role.AGENT, 7: Role.BOT}
    for column, expected in ((1, {"aa": "customer", "bb": "agent"}), (2, {}), (None, {})):
        chosen = Chosen(roles=roles, role_column=column)
        seen = await look(row, source, acme, chosen=chosen, blobs=blobs, settings=settings)
        assert seen.options.roles == expected
        assert bool(seen.problem) == (not expected)


def test_a_form_is_read_and_what_makes_no_sense_is_passed_over():
    chosen = read_choice(
        {
            "column-text": "3",
            "column-role": "",
            "column-time": "-1",
            "column-nothing": "1",
            "role-0": "agent",
            "role-1": "boss",
            "role-x": "agent",
            "roles-of": "2",
            "dates": "never",
            "order": "oldest-first",
        }
    )
    assert chosen.columns == {"text": 3}
    assert chosen.roles == {0: Role.AGENT}
    assert chosen.role_column == 2
    options = options_of(["a", "b"], ["x"], chosen)
    assert options.mapping == {}  # there is no fourth column
    assert (options.dates, options.order) == (None, "oldest-first")


def test_there_are_words_for_every_state_reason_and_format():
    assert set(uploads.STATES) == set(get_args(ImportState))
    assert set(uploads.REASONS) == set(Reason)
    assert [name for name, _ in uploads.formats()] == list(IMPORTERS)


def test_what_is_for_the_command_line_is_not_on_a_page():
    message = (
        "cannot tell which column is: role; pass --map role=COLUMN, or --map question=COLUMN,"
        "answer=COLUMN for one exchange a row. The file has: No, Body"
    )
    assert uploads.as_sentence(message) == (
        "Cannot tell which column is: role. The file has: No, Body"
    )
    note = "nothing can be learnt from it; say who they are with --map 'role:VALUE=agent'"
    assert uploads.for_a_page(note) == "nothing can be learnt from it"


def test_rejected_records_are_grouped_and_defused():
    report = ImportReport(
        importer="openai",
        reasons={"bad_json": 1, "bad_role": 12},
        examples=[
            {"line": 0, "reason": "bad_role", "detail": "=1+1"},  # type: ignore[list-item]
        ],
    )
    report = msgspec.convert(msgspec.to_builtins(report), ImportReport)
    groups = uploads.rejected_groups(report)
    assert [(each.reason, each.count, len(each.examples)) for each in groups] == [
        ("bad_role", 12, 1),
        ("bad_json", 1, 0),
    ]
    assert uploads.rejected_to_csv(report) == (
        b"line,reason,extent,detail\n,bad_role,the record,'=1+1\n"
    )


async def test_an_upload_of_a_sample_is_one_that_can_be_read(blobs: BlobStore):
    assert choose(uploads.sample(), uploads.SAMPLE).name == "openai"
