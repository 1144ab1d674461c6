"""Looks up what an answer may rest on: past exchanges in the adapter's index, and the tenant's articles."""

import asyncio
from collections import OrderedDict

import structlog

from server.embeddings.schemas import DIMENSIONS
from server.embeddings.service import EmbeddingService
from server.errors import TooMany, Unavailable
from server.knowledge.search import KnowledgeSearch
from server.retrieval.indexes import IndexCache, LoadedIndex
from server.retrieval.schemas import Grounding
from training.references import ARTICLE_SCORE, ARTICLES, Reference

log = structlog.get_logger(__name__)

WAIT_SECONDS = 20.0
"""For the encoder, which takes some ten seconds to start on two cores; an answer without references is
much worse than a late one."""

REMEMBERED_TEXTS = 4_096  # vectors of 1.5 KB: the assistant's turn was encoded before


class RetrievalService:
    """Finds what a chat is shown. Use on one event loop.

    Args:
        embeddings: encodes the turns; kept running from when the first index is used.
        indexes: those of the adapters.
        knowledge: the articles of all tenants.

    Example:
        loaded = await retrieval.index_of(adapter.path)
        grounding = await retrieval.find(
            loaded, "Where is it?", before="", tenant_id=tenant.id, slug=tenant.slug
        )
    """

    def __init__(
        self, embeddings: EmbeddingService, indexes: IndexCache, knowledge: KnowledgeSearch
    ) -> None:
        self._embeddings = embeddings
        self._indexes = indexes
        self._knowledge = knowledge
        self._vectors: OrderedDict[str, bytes] = OrderedDict()

    async def index_of(self, adapter: str) -> LoadedIndex | None:
        """The index in an adapter's folder; None where it is served without."""
        return await self._indexes.get(adapter)

    async def dataset_of(self, adapter: str) -> str | None:
        """The hash of the dataset version that the adapter in a folder was trained on, where it says."""
        return await self._indexes.dataset(adapter)

    async def has_articles(self, tenant_id: str) -> bool:
        """Whether the tenant has articles to search."""
        return await self._knowledge.has_articles(tenant_id)

    async def find(
        self,
        loaded: LoadedIndex | None,
        question: str,
        *,
        before: str,
        tenant_id: str,
        slug: str,
    ) -> Grounding:
        """What an answer is shown: past exchanges, the nearest first, and behind them articles.

        There are as many exchanges as the adapter is served with (`LoadedIndex.searched`), and an article only
        where it is near (`ARTICLE_SCORE`).

        Args:
            loaded: the adapter's index; None: only articles are looked up.
            question: the customer's turn.
            before: the assistant's turn before it; empty at the start.
            tenant_id: whose articles.
            slug: the tenant's, for its turn at the encoder.
        """
        self._embeddings.hold()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                vectors = await self._encode((question, before), tenant=slug)
        except (TimeoutError, Unavailable, TooMany) as exc:
            log.warning("answered without references", tenant=slug, error=str(exc))
            return Grounding(why_not="unavailable")
        exchanges: tuple[Reference, ...] = ()
        if loaded is not None:
            exchanges = await asyncio.to_thread(_search, loaded, vectors)
        found = await self._knowledge.search(tenant_id, vectors[0], ARTICLES)
        articles = tuple(
            each.piece.reference(each.score) for each in found if each.score >= ARTICLE_SCORE
        )
        near = loaded is not None and loaded.supports(exchanges, is_first=not before)
        return Grounding(references=exchanges + articles, supported=near or bool(articles))

    async def _encode(self, texts: tuple[str, str], *, tenant: str) -> list[bytes]:
        """A vector of each text. Texts that were encoded before are not encoded again."""
        known = {text: self._vectors[text] for text in texts if text in self._vectors}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            embedded = await self._embeddings.embed(
                missing, tenant=tenant, dimensions=DIMENSIONS, truncate=True
            )
            known |= zip(missing, embedded.vectors, strict=True)
        for text in texts:
            self._vectors[text] = known[text]
            self._vectors.move_to_end(text)
        while len(self._vectors) > REMEMBERED_TEXTS:
            self._vectors.popitem(last=False)
        return [known[text] for text in texts]


def _search(loaded: LoadedIndex, vectors: list[bytes]) -> tuple[Reference, ...]:
    import numpy as np  # noqa: PLC0415 - not before something is looked up

    from training.retrieval.index import Vectors, reference_of  # noqa: PLC0415 - loads numpy

    query: Vectors = np.frombuffer(b"".join(vectors), dtype="<f4").astype(np.float32)[None, :]
    (found,) = loaded.index.search(query, loaded.searched)
    return tuple(map(reference_of, found))
