"""Receipts of answers: what they rest on, for the tenant to look up."""

from collections.abc import Collection
from datetime import timedelta

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Receipt, now
from server.db.scope import across_tenants, of_tenant
from server.errors import NotFound
from server.knowledge import service as knowledge
from server.retrieval.schemas import Grounding, ReceiptView, Source, sources_of
from server.tenants import service as tenants
from training.references import Reference

log = structlog.get_logger(__name__)

KEPT_FOR = timedelta(days=30)
"""As long as stored completions: they are of the same answers."""


def row(answer_id: str) -> str:
    """The name under which a receipt waits to be written (``server/db/write_behind.py``)."""
    return f"receipt {answer_id}"


async def keep(
    session: AsyncSession,
    tenant_id: str,
    answer_id: str,
    *,
    model: str,
    version: int | None,
    dataset: str | None,
    grounding: Grounding,
) -> None:
    """Keep what an answer rests on, in place of what was kept before; nothing of a tenant that is gone."""
    if not await tenants.exists_for_update(session, tenant_id):
        log.info("receipt of a tenant that is gone was not kept", tenant_id=tenant_id)
        return
    mine = of_tenant(tenant_id)
    await session.execute(mine.delete(Receipt).where(Receipt.answer_id == answer_id))
    session.add(
        Receipt(
            tenant_id=tenant_id,
            answer_id=answer_id,
            model=model,
            version=version,
            dataset=dataset,
            grounding=msgspec.to_builtins(grounding),
        )
    )
    await session.flush()


async def get(session: AsyncSession, tenant_id: str, answer_id: str) -> ReceiptView:
    """The receipt of one answer, by the answer's id.

    Raises:
        NotFound: there is none: the answer continued a text, is older than `KEPT_FOR`, or is another
            tenant's.
    """
    found = (await of_answers(session, tenant_id, [answer_id])).get(answer_id)
    if found is None:
        raise NotFound(
            f"There is no receipt of '{answer_id}'. They are kept for {KEPT_FOR.days} days, of chat "
            "completions, responses and the widget's messages.",
            code="receipt_not_found",
        )
    return found


async def of_answers(
    session: AsyncSession, tenant_id: str, answer_ids: Collection[str]
) -> dict[str, ReceiptView]:
    """The receipts of answers, by the answer's id; answers without one are absent."""
    query = of_tenant(tenant_id).select(Receipt).where(Receipt.answer_id.in_(answer_ids))
    return {row.answer_id: _view(row) for row in await session.scalars(query)}


async def sources_of_answers(
    session: AsyncSession, tenant_id: str, answer_ids: Collection[str]
) -> dict[str, tuple[Source, ...]]:
    """The articles that answers were given, by the answer's id, without those deleted since."""
    found = {
        answer_id: [each for each in receipt.references if each.kind == "article"]
        for answer_id, receipt in (await of_answers(session, tenant_id, answer_ids)).items()
    }
    articles = {article_of(each) for references in found.values() for each in references}
    there = await knowledge.existing(session, tenant_id, articles)
    return {
        answer_id: sources_of(each for each in references if article_of(each) in there)
        for answer_id, references in found.items()
    }


def article_of(reference: Reference) -> str:
    """The id of the article that a reference is a piece of."""
    return place_of(reference)[0]


def place_of(reference: Reference) -> tuple[str, int, int]:
    """(article's id, number of its version, place in it from 0) of a piece of an article."""
    article, _, place = reference.id.partition("@")
    number, _, piece = place.partition("#")
    return article, int(number), int(piece)


def _view(row: Receipt) -> ReceiptView:
    found = msgspec.convert(row.grounding, Grounding)
    return ReceiptView(
        id=row.answer_id,
        created_at=row.created_at,
        model=row.model,
        version=row.version,
        dataset=row.dataset,
        supported=found.supported,
        why_not=found.why_not,
        references=found.references,
        quoted=found.quoted,
        images=found.images,
    )


async def delete_expired(session: AsyncSession) -> None:
    """Delete what was kept for `KEPT_FOR`, of all tenants."""
    old = across_tenants("a sweep of what was kept").delete(Receipt)
    await session.execute(old.where(Receipt.created_at < now() - KEPT_FOR))
