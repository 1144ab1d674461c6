"""From an upload of articles to pieces that are searched: versions, quotas, crashes."""

import msgspec
import pytest

from server.db.models import ArticleChunk, ArticleVersion
from server.db.scope import of_tenant
from server.errors import Conflict
from server.knowledge import importing, service
from server.knowledge.vectors import VECTOR_BYTES
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch
from tests import knowledge_files as files

RETURNS = "# Returns\n\n## How long\n\nYou have thirty days.\n\n## Cost\n\nReturns are free.\n"


async def test_an_upload_becomes_pieces_with_vectors_and_its_file_goes(knowledge, make_tenant):
    acme = await make_tenant()
    upload = await knowledge.add(acme, RETURNS, "returns.md")
    assert (upload.state, upload.chunks, upload.embedded, upload.error) == ("done", 2, 2, None)
    assert upload.report["new"] == 1
    assert upload.removed_at is not None
    assert not await knowledge.blobs.exists(upload.sha256)
    [listed] = await knowledge.articles(acme)
    assert listed.article.name == "returns.md"
    assert (listed.current.number, listed.current.title, listed.coming) == (1, "Returns", None)
    async with knowledge.database.reading() as session:
        chunks = await service.list_chunks(session, acme.id, listed.current.id)
    assert [(each.headings, each.text) for each in chunks] == [
        (["How long"], "You have thirty days."),
        (["Cost"], "Returns are free."),
    ]
    assert {len(each.vector or b"") for each in chunks} == {VECTOR_BYTES}
    assert knowledge.encoder.texts[0] == "Returns\nHow long\nYou have thirty days."


async def test_the_same_content_again_changes_nothing(knowledge, make_tenant):
    acme = await make_tenant()
    await knowledge.add(acme, RETURNS, "returns.md")
    [before] = await knowledge.articles(acme)
    calls = knowledge.encoder.calls
    again = await knowledge.add(acme, RETURNS.replace("\n\n", "\n\n\n"), "returns.md")
    [after] = await knowledge.articles(acme)
    assert (again.state, again.report["unchanged"], again.report["new"]) == ("done", 1, 0)
    assert after.current.id == before.current.id
    assert knowledge.encoder.calls == calls


async def test_a_new_version_takes_the_place_of_the_one_before_which_stays_to_be_read(
    knowledge, make_tenant
):
    acme = await make_tenant()
    await knowledge.add(acme, RETURNS, "returns.md")
    upload = await knowledge.add(acme, RETURNS.replace("thirty", "sixty"), "returns.md")
    assert (upload.report["replaced"], upload.report["new"]) == (1, 0)
    [listed] = await knowledge.articles(acme)
    async with knowledge.database.reading() as session:
        new, old = await service.list_versions(session, acme.id, listed.article.id)
        told = await service.list_chunks(session, acme.id, old.id)
    assert [(each.number, each.state) for each in (new, old)] == [(2, "current"), (1, "replaced")]
    assert old.replaced_at is not None
    assert told[0].text == "You have thirty days."
    assert told[0].vector is None
    assert "sixty" in (await knowledge.ask(acme, "thirty days how long"))[0].text
    # what was said before the last change is a version of its own
    await knowledge.add(acme, RETURNS, "returns.md")
    [listed] = await knowledge.articles(acme)
    assert listed.current.number == 3


async def test_until_it_is_embedded_the_version_before_is_searched(knowledge, make_tenant):
    acme = await make_tenant()
    await knowledge.add(acme, RETURNS, "returns.md")
    upload = await knowledge.queue(acme, RETURNS.replace("thirty", "sixty").encode(), "returns.md")
    knowledge.encoder.down = 10_000
    failed = await knowledge.run(upload)
    assert (failed.state, failed.error["code"]) == ("failed", "encoder_unavailable")
    knowledge.encoder.down = 0
    [listed] = await knowledge.articles(acme)
    assert (listed.current.number, listed.coming) == (1, None)
    assert "thirty" in (await knowledge.ask(acme, "thirty days"))[0].text


async def test_an_encoder_that_starts_is_waited_for(knowledge, make_tenant):
    acme = await make_tenant()
    knowledge.encoder.down = 3
    assert (await knowledge.add(acme, RETURNS)).state == "done"


async def test_a_worker_killed_at_any_point_leaves_nothing_that_the_next_does_twice(
    knowledge, make_tenant, monkeypatch
):
    acme = await make_tenant()
    await knowledge.add(acme, "# One\n\nOld text.", "docs", name="")
    page = files.zipped({f"{n}.md": f"# Page {n}\n\nText {n}." for n in range(4)})
    upload = await knowledge.queue(acme, page, "pages.zip")
    points = ["_store", "_keep_vectors", "_make_current", "end_upload"]

    class Killed(BaseException):
        pass

    for point in points:
        for when in (0, 2):
            real = getattr(importing, point)
            count = 0

            async def die(*args, real=real, when=when, **kwargs):
                nonlocal count
                count += 1
                if count > when:
                    raise Killed
                return await real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(importing, point, die)
                try:
                    await knowledge.run(upload)
                except Killed:
                    continue
    done = await knowledge.run(upload)
    assert (done.state, done.chunks, done.embedded) == ("done", 4, 4)
    assert (done.report["articles"], done.report["new"]) == (4, 4)
    names = sorted(each.article.name for each in await knowledge.articles(acme))
    assert names == ["0.md", "1.md", "2.md", "3.md", "docs"]
    async with knowledge.database.reading() as session:
        rows = list(await session.scalars(of_tenant(acme.id).select(ArticleChunk)))
        versions = list(await session.scalars(of_tenant(acme.id).select(ArticleVersion)))
    assert len(rows) == len(versions) == 5
    assert all(row.vector is not None for row in rows)


async def test_a_cancelled_upload_leaves_what_was_searched_before(knowledge, make_tenant):
    acme = await make_tenant()
    await knowledge.add(acme, RETURNS, "returns.md")
    upload = await knowledge.queue(
        acme,
        files.zipped({"returns.md": "# R\n\nNew.", "b.md": "# B\n\nNew."}),
        "all.zip",
    )
    real = knowledge.encoder.embed

    async def cancel(texts, **options):
        async with knowledge.database.transaction() as session:
            await service.cancel_upload(session, acme.id, upload.id)
        return await real(texts, **options)

    knowledge.encoder.embed = cancel
    ended = await knowledge.run(upload)
    knowledge.encoder.embed = real
    assert ended.state == "cancelled"
    assert not await knowledge.blobs.exists(ended.sha256)
    [listed] = await knowledge.articles(acme)
    assert (listed.article.name, listed.current.number, listed.coming) == ("returns.md", 1, None)
    with pytest.raises(Conflict):
        async with knowledge.database.transaction() as session:
            await service.cancel_upload(session, acme.id, upload.id)


async def test_an_article_deleted_while_it_is_embedded_does_not_come_back(knowledge, make_tenant):
    acme = await make_tenant()
    upload = await knowledge.queue(acme, RETURNS.encode(), "returns.md")
    real = knowledge.encoder.embed

    async def delete(texts, **options):
        [listed] = await knowledge.articles(acme)
        async with knowledge.database.transaction() as session:
            await service.delete_article(session, acme.id, listed.article.id)
        return await real(texts, **options)

    knowledge.encoder.embed = delete
    assert (await knowledge.run(upload)).state == "done"
    assert await knowledge.articles(acme) == []


async def test_what_does_not_fit_the_quota_is_left_out_and_named(knowledge, make_tenant):
    acme = await make_tenant()
    knowledge.settings = msgspec.structs.replace(knowledge.settings, knowledge_chunks=3)
    pages = {"a.md": RETURNS, "b.md": RETURNS.replace("days", "weeks"), "c.md": "# C\n\nShort."}
    upload = await knowledge.add(acme, files.zipped(pages), "pages.zip")
    assert (upload.state, upload.report["new"], upload.report["skipped"]) == ("done", 2, 1)
    [example] = upload.report["examples"]
    assert (example["place"], example["reason"]) == ("b.md", "quota")
    assert "3 are the most" in example["detail"]
    names = sorted(each.article.name for each in await knowledge.articles(acme))
    assert names == ["a.md", "c.md"]
    with pytest.raises(Conflict) as info:
        await knowledge.queue(acme, b"# D\n\nMore.", "d.md")
    assert info.value.code == "knowledge_full"
    # a version takes the place of the one before, so that it has room
    async with knowledge.database.transaction() as session:
        [each] = [each for each in await knowledge.articles(acme) if each.article.name == "c.md"]
        await service.delete_article(session, acme.id, each.article.id)
    upload = await knowledge.add(acme, RETURNS.replace("days", "years"), "a.md")
    assert upload.report["replaced"] == 1


async def test_old_versions_count_as_bytes_until_they_are_trimmed(
    knowledge, make_tenant, monkeypatch
):
    monkeypatch.setattr(importing, "KEPT_VERSIONS", 2)
    acme = await make_tenant()
    for number in range(5):
        await knowledge.add(acme, f"# A\n\nText {number}.", "a.md")
    [listed] = await knowledge.articles(acme)
    async with knowledge.database.reading() as session:
        versions = await service.list_versions(session, acme.id, listed.article.id)
        used = await service.usage(session, acme.id, knowledge.settings)
    assert [each.number for each in versions] == [5, 4, 3]
    assert (used.articles, used.chunks, used.text_bytes) == (1, 1, 21)


async def test_a_text_longer_than_the_encoder_reads_is_shortened_and_counted(
    knowledge, make_tenant
):
    acme = await make_tenant()
    text = "a.b,c;d-" * 80  # each mark is a token, and none is estimated as less
    heading = "x;" * 100
    upload = await knowledge.add(acme, f"# T\n\n## {heading}\n\n### {heading}y\n\n{text}")
    assert upload.state == "done"
    assert upload.report["shortened"] > 0
    assert upload.embedded == upload.chunks


async def test_nothing_usable_fails_with_the_reason_and_keeps_the_report(knowledge, make_tenant):
    acme = await make_tenant()
    upload = await knowledge.add(acme, b"\x89PNG\r\n\x1a\n\0", "a.md")
    assert (upload.state, upload.error["code"]) == ("failed", "unknown_format")
    assert "image" in upload.error["message"]
    assert upload.report["skipped"] == 1
    assert await knowledge.articles(acme) == []


async def test_personal_details_never_reach_the_database(knowledge, make_tenant):
    acme = await make_tenant(allowlist=["help@acme.example"])
    text = "# Ask\n\nWrite to help@acme.example, not to vera@post.example."
    upload = await knowledge.add(acme, text)
    assert upload.report["redacted"] == {"EMAIL": 1}
    found = await knowledge.ask(acme, "write")
    assert found[0].text == "Write to help@acme.example, not to [EMAIL_1]."


async def test_a_tenant_s_own_rules_hold_for_its_articles(knowledge, make_tenant):
    acme = await make_tenant(
        masked_terms=("Project Falcon",), custom_patterns={"order": "ORD-[0-9]+"}
    )
    text = "# Falcon\n\n## Project Falcon\n\nORD-77 was of project falcon."
    upload = await knowledge.add(acme, text)
    assert upload.report["redacted"] == {"TERM": 2, "ORDER": 1}
    found = await knowledge.ask(acme, "order")
    assert found[0].text == "[ORDER_1] was of [TERM_1]."
    assert found[0].headings == ("[TERM_1]",)


async def test_an_article_is_masked_by_a_word_that_was_listed_after_it_when_it_comes_again(
    knowledge, make_tenant
):
    acme = await make_tenant()
    text = "# A\n\nProject Falcon is late."
    await knowledge.add(acme, text)
    async with knowledge.database.transaction() as session:
        await tenants.update(session, "acme", TenantPatch(masked_terms=("Project Falcon",)))
        acme = await tenants.get(session, "acme")
    upload = await knowledge.add(acme, text)
    assert upload.report["replaced"] == 1
    assert (await knowledge.ask(acme, "late"))[0].text == "[TERM_1] is late."


async def test_articles_of_a_deleted_tenant_are_gone(knowledge, make_tenant):
    acme = await make_tenant()
    await knowledge.add(acme, RETURNS)
    assert await knowledge.ask(acme, "returns")
    async with knowledge.database.transaction() as session:
        await tenants.delete(session, "acme")
    assert await knowledge.ask(acme, "returns") == []
