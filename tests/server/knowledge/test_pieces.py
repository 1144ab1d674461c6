"""What is frozen for a training job is what is searched at that time, of one tenant, in a file that does not change."""

import os
from pathlib import Path

import numpy as np
import pytest

from server.db.models import Tenant
from server.embeddings.schemas import DIMENSIONS
from server.knowledge import service
from server.knowledge.pieces import freeze, kept
from training.adapters.package import KnowledgeRef
from training.references import ARTICLE_SCORE, ARTICLES
from training.retrieval.articles import ArticleIndex, sha256_of

BREAD = "# Bread\n\n## Rye\n\nDo you bake rye bread? Rye bread is baked on Fridays."
PAGE = "https://example.com/help/milk"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder."""
    return tmp_path / "jobs" / "1"


async def frozen(knowledge, tenant: Tenant, folder: Path) -> ArticleIndex:
    path = await freeze(knowledge.database, tenant, folder)
    assert path is not None
    return loaded(path)


def loaded(path: Path) -> ArticleIndex:
    """The one file in its folder."""
    assert [path] == list(path.parent.iterdir())
    return ArticleIndex.load(path)


async def delete(knowledge, tenant: Tenant, name: str) -> None:
    (found,) = [each for each in await knowledge.articles(tenant) if each.article.name == name]
    async with knowledge.database.transaction() as session:
        await service.delete_article(session, tenant.id, found.article.id)


async def test_a_question_finds_the_same_piece_as_at_serving(knowledge, make_tenant, job):
    acme = await make_tenant()
    await knowledge.add(acme, BREAD, "bread.md")
    await knowledge.add(acme, "# Milk\n\nIs there milk? Milk is sold out.", "milk.md", name=PAGE)
    articles = await frozen(knowledge, acme, job)
    assert len(articles) == 2
    for question in ("do you bake rye bread", "is there milk", "zebra quantum volcano"):
        answer = await knowledge.encoder.embed([question], tenant=acme.id, dimensions=DIMENSIONS)
        found = await knowledge.search.search(acme.id, answer.vectors[0], ARTICLES)
        shown = [each.piece.reference(each.score) for each in found if each.score >= ARTICLE_SCORE]
        vectors = np.frombuffer(answer.vectors[0], dtype="<f4")[None, :]
        assert articles.search(vectors) == [shown]
    assert {piece.url for piece in articles.pieces} == {None, PAGE}


async def test_no_other_tenants_piece_is_in_it(knowledge, make_tenant, job):
    acme, other = await make_tenant("acme"), await make_tenant("other")
    await knowledge.add(acme, "# A\n\nThe secret of acme.", "a.md")
    await knowledge.add(other, "# A\n\nThe secret of other.", "a.md")
    for tenant in (acme, other):
        articles = await frozen(knowledge, tenant, job / tenant.slug)
        assert [piece.text for piece in articles.pieces] == [f"The secret of {tenant.slug}."]
    nobody = await make_tenant("nobody")
    assert await freeze(knowledge.database, nobody, job) is None


async def test_only_what_is_searched_is_in_it(knowledge, make_tenant, job):
    acme = await make_tenant()
    await knowledge.add(acme, "# A\n\nOld text.", "a.md")
    await knowledge.add(acme, "# A\n\nNew text.", "a.md")
    await knowledge.queue(acme, b"# B\n\nNot read yet.", "b.md")
    articles = await frozen(knowledge, acme, job)
    assert [piece.text for piece in articles.pieces] == ["New text."]


async def test_the_next_time_what_was_removed_is_gone(knowledge, make_tenant, job):
    acme = await make_tenant()
    await knowledge.add(acme, BREAD, "bread.md")
    await knowledge.add(acme, "# B\n\nText of b.", "b.md")
    first = await freeze(knowledge.database, acme, job)
    assert first is not None
    assert await freeze(knowledge.database, acme, job) == first  # the same: one file
    ref = KnowledgeRef(sha256=sha256_of(first), pieces=2)
    assert kept(job, ref) == first
    await delete(knowledge, acme, "bread.md")
    articles = await frozen(knowledge, acme, job)  # which looks that nothing else is left
    assert [piece.text for piece in articles.pieces] == ["Text of b."]
    assert kept(job, ref) is None
    assert kept(job, None) is None


async def test_a_tenant_that_has_switched_retrieval_off_is_shown_none(knowledge, make_tenant, job):
    acme = await make_tenant()
    await knowledge.add(acme, BREAD, "bread.md")
    await frozen(knowledge, acme, job)
    acme.retrieval = False
    assert await freeze(knowledge.database, acme, job) is None
    assert not list(job.iterdir())


async def test_one_that_is_killed_while_it_writes_leaves_no_file_of_that_name(
    knowledge, make_tenant, job, monkeypatch
):
    acme = await make_tenant()
    await knowledge.add(acme, BREAD, "bread.md")

    class Killed(BaseException):
        pass

    def killed(_: object) -> None:
        raise Killed

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(Killed):
        await freeze(knowledge.database, acme, job)
    assert not list(job.glob("knowledge-*"))
    monkeypatch.undo()
    await frozen(knowledge, acme, job)
