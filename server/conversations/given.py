"""What the answers of a conversation were given, as the tenant reads it: from their receipts.

A receipt holds the texts themselves, so it is whole after what it names was deleted.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.knowledge import service as knowledge
from server.retrieval import receipts
from server.retrieval.schemas import Ungrounded
from training.references import Reference, shown_texts


class GivenReference(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an answer was given, as much of it as the model read.

    ``article``: the id of the article that it is a piece of, null of an exchange, and where the article
    was deleted since. ``number``: of the article's version; ``piece``: its place there, from 0.
    ``is_quoted``: its reply is the answer, word for word.
    """

    kind: Literal["exchange", "article"]
    title: str
    text: str
    score: float
    is_deleted: bool = False
    article: str | None = None
    number: int = 0
    piece: int = 0
    is_quoted: bool = False


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer was given, from its receipt; see `server.retrieval.schemas.ReceiptView`."""

    supported: bool | None
    why_not: Ungrounded | None
    version: int | None
    dataset: str | None
    is_quoted: bool
    references: list[GivenReference]


async def given_to(
    session: AsyncSession, tenant_id: str, answer_ids: Sequence[str]
) -> dict[str, Given]:
    """What answers were given, by the answer's id."""
    found = await receipts.of_answers(session, tenant_id, answer_ids)
    articles = {
        receipts.article_of(each)
        for receipt in found.values()
        for each in receipt.references
        if each.kind == "article"
    }
    there = await knowledge.existing(session, tenant_id, articles)
    return {
        answer_id: Given(
            supported=receipt.supported,
            why_not=receipt.why_not,
            version=receipt.version,
            dataset=receipt.dataset,
            is_quoted=receipt.quoted is not None,
            references=[
                _reference(each, there, is_quoted=each.id == receipt.quoted)
                for each in receipt.references
            ],
        )
        for answer_id, receipt in found.items()
    }


def _reference(reference: Reference, there: Collection[str], *, is_quoted: bool) -> GivenReference:
    title, text = shown_texts(reference)
    given = GivenReference(
        kind=reference.kind,
        title=title,
        text=text,
        score=reference.score,
        is_quoted=is_quoted,
    )
    if reference.kind == "exchange":
        return given
    article, number, piece = receipts.place_of(reference)
    if article not in there:
        return msgspec.structs.replace(given, is_deleted=True)
    return msgspec.structs.replace(given, article=article, number=number, piece=piece)
