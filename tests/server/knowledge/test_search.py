"""The search: exact, of one tenant, and never of what is not there any more."""

import asyncio

import numpy as np
import pytest

from server.embeddings.schemas import DIMENSIONS
from server.knowledge import search as module
from server.knowledge import service
from server.knowledge.search import KnowledgeSearch
from server.knowledge.vectors import pack
from tests import knowledge_files as files
from training.retrieval import nearest

VECTOR = np.ones(DIMENSIONS, dtype="<f4").tobytes()


async def test_the_nearest_come_first_with_where_they_stand(knowledge, make_tenant):
    acme = await make_tenant()
    await knowledge.add(
        acme, "# Box\n\n## Prices\n\nThe little box costs nine.\n\n## Days\n\nOn Friday.", "box.md"
    )
    await knowledge.add(acme, "# Pay\n\nBy card or by transfer.", "pay.md")
    found = await knowledge.ask(acme, "how much costs the little box", 2)
    assert len(found) == 2
    first = found[0]
    assert (first.name, first.title, first.headings, first.version) == (
        "box.md",
        "Box",
        ("Prices",),
        1,
    )
    assert first.text == "The little box costs nine."
    assert 1 >= first.score > found[1].score


async def test_scores_and_order_are_those_of_float32_cosines(knowledge, make_tenant, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK_ROWS", 7)
    acme = await make_tenant()
    pages = {f"{n}.md": f"# P{n}\n\nWord{n % 13} and word{n % 7} tell of {n}." for n in range(40)}
    await knowledge.add(acme, files.zipped(pages), "pages.zip")
    question = "word3 and word5"
    found = await knowledge.ask(acme, question, 50)
    assert len(found) == 40
    [asked] = (
        await knowledge.encoder.embed([question], tenant=acme.id, dimensions=DIMENSIONS)
    ).vectors
    query = np.frombuffer(asked, dtype="<f4")
    for each in found:
        text = f"{each.title}\n{each.text}"
        [vector] = (
            await knowledge.encoder.embed([text], tenant=acme.id, dimensions=DIMENSIONS)
        ).vectors
        assert each.score == pytest.approx(float(np.frombuffer(vector, "<f4") @ query), abs=5e-4)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


async def test_no_other_tenants_article_is_ever_found(knowledge, make_tenant):
    acme, other = await make_tenant("acme"), await make_tenant("other")
    await knowledge.add(acme, "# A\n\nThe secret of acme.", "a.md")
    await knowledge.add(other, "# O\n\nThe secret of other.", "o.md")
    for tenant, word in ((acme, "acme"), (other, "other")):
        found = await knowledge.ask(tenant, "the secret of acme and of other", 50)
        assert [each.text for each in found] == [f"The secret of {word}."]
    nobody = await make_tenant("nobody")
    assert await knowledge.ask(nobody, "secret") == []


async def test_what_was_deleted_is_not_found_by_the_very_next_search(knowledge, make_tenant):
    acme = await make_tenant()
    await knowledge.add(acme, "# A\n\nText of a.", "a.md")
    await knowledge.add(acme, "# B\n\nText of b.", "b.md")
    assert len(await knowledge.ask(acme, "text")) == 2
    for left in (1, 0):
        listed = (await knowledge.articles(acme))[0]
        async with knowledge.database.transaction() as session:
            await service.delete_article(session, acme.id, listed.article.id)
        assert len(await knowledge.ask(acme, "text")) == left


async def test_a_piece_deleted_while_a_search_goes_on_is_not_in_its_answer(
    knowledge, make_tenant, monkeypatch
):
    acme = await make_tenant()
    await knowledge.add(acme, "# A\n\nText of a.", "a.md")
    [listed] = await knowledge.articles(acme)
    real = module._nearest
    loop = asyncio.get_running_loop()

    async def delete():
        async with knowledge.database.transaction() as session:
            await service.delete_article(session, acme.id, listed.article.id)

    def nearest(*args):
        found = real(*args)
        asyncio.run_coroutine_threadsafe(delete(), loop).result(20)
        return found

    monkeypatch.setattr(module, "_nearest", nearest)
    assert await knowledge.ask(acme, "text") == []


async def test_vectors_are_read_once_for_searches_at_the_same_time(
    knowledge, make_tenant, monkeypatch
):
    acme = await make_tenant()
    await knowledge.add(acme, "# A\n\nText of a.", "a.md")
    loads = 0
    real = module._load

    async def load(*args):
        nonlocal loads
        loads += 1
        return await real(*args)

    monkeypatch.setattr(module, "_load", load)
    found = await asyncio.gather(*(knowledge.ask(acme, "text") for _ in range(8)))
    assert all(len(each) == 1 for each in found)
    assert loads == 1
    await knowledge.add(acme, "# A\n\nOther text.", "a.md")
    assert (await knowledge.ask(acme, "text"))[0].text == "Other text."
    assert loads == 2


async def test_memory_is_bounded_by_forgetting_the_tenant_searched_longest_ago(
    knowledge, make_tenant
):
    tenants = [await make_tenant(f"t{n}") for n in range(3)]
    for tenant in tenants:
        await knowledge.add(tenant, "# A\n\nText.", "a.md")
    one = DIMENSIONS * 2 + 4 + 32
    knowledge.search.close()
    knowledge.search = KnowledgeSearch(knowledge.database, max_cached_bytes=2 * one)
    for tenant in (tenants[0], tenants[1], tenants[0], tenants[2]):
        assert len(await knowledge.ask(tenant, "text")) == 1
        assert knowledge.search.cached_bytes <= 2 * one
    assert list(knowledge.search._matrices) == [tenants[0].id, tenants[2].id]


@pytest.mark.parametrize(("vector", "count"), [(VECTOR[:-4], 1), (VECTOR, 0), (VECTOR, 51)])
async def test_a_vector_of_another_length_or_too_many_are_refused(
    knowledge, make_tenant, vector, count
):
    acme = await make_tenant()
    with pytest.raises(ValueError, match=r"float32|finds"):
        await knowledge.search.search(acme.id, vector, count)


def test_float16_keeps_what_the_encoder_says():
    rng = np.random.default_rng(3)
    vector = rng.normal(size=DIMENSIONS).astype("<f4")
    vector /= np.linalg.norm(vector)
    kept = np.frombuffer(pack(vector.tobytes()), dtype="<f2").astype(np.float32)
    assert np.abs(kept - vector).max() < 2.5e-4
