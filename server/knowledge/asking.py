"""Searches by a question in words."""

from server.embeddings.schemas import DIMENSIONS
from server.embeddings.service import EmbeddingService
from server.errors import Invalid
from server.knowledge.schemas import FoundView
from server.knowledge.search import MAX_COUNT, Found, KnowledgeSearch

MAX_QUESTION_CHARACTERS = 4_000


async def find(
    search: KnowledgeSearch,
    embeddings: EmbeddingService,
    tenant_id: str,
    question: str,
    *,
    count: int = 5,
) -> list[Found]:
    """The pieces of a tenant's articles that are nearest to a question.

    Raises:
        Invalid: the question is empty, or longer than the encoder reads; or ``count`` is out of bounds.
        TooMany: the tenant has too many requests open.
        Unavailable: the encoder is not there yet.
    """
    question = question.strip()
    if not question:
        raise Invalid("Ask something: the question is empty.", param="q")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise Invalid(f"A question has {MAX_QUESTION_CHARACTERS:,} characters at most.", param="q")
    if not 1 <= count <= MAX_COUNT:
        raise Invalid(f"A search finds 1 to {MAX_COUNT} pieces.", param="count")
    if not await search.has_articles(tenant_id):
        return []
    try:
        answer = await embeddings.embed([question], tenant=tenant_id, dimensions=DIMENSIONS)
    except Invalid as exc:
        message = "The question is longer than the encoder reads: ask in fewer words."
        raise Invalid(message, param="q", code=exc.code) from exc
    return await search.search(tenant_id, answer.vectors[0], count)


def found_view(found: Found) -> FoundView:
    """What was found, as its tenant sees it."""
    return FoundView(
        article=found.article_id,
        version=found.version,
        name=found.name,
        title=found.title,
        headings=list(found.headings),
        text=found.text,
        ordinal=found.ordinal,
        score=found.score,
    )
