"""Looks up what others were answered who asked the like, in the index of the adapter that answers."""

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from server.embeddings.schemas import DIMENSIONS
from server.embeddings.service import EmbeddingService
from server.errors import TooMany, Unavailable
from server.retrieval.indexes import IndexCache, LoadedIndex
from server.retrieval.schemas import Grounding
from training.references import Reference

if TYPE_CHECKING:
    from training.retrieval.index import Vectors

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

    Example:
        loaded = await retrieval.index_of(adapter.path)
        if loaded is not None:
            grounding = await retrieval.find(loaded, "Where is it?", before="", tenant="acme")
    """

    def __init__(self, embeddings: EmbeddingService, indexes: IndexCache) -> None:
        self._embeddings = embeddings
        self._indexes = indexes
        self._vectors: OrderedDict[str, bytes] = OrderedDict()

    async def index_of(self, adapter: str) -> LoadedIndex | None:
        """The index in an adapter's folder; None where it is served without."""
        return await self._indexes.get(adapter)

    async def find(
        self, loaded: LoadedIndex, question: str, *, before: str, tenant: str
    ) -> Grounding:
        """What an answer is shown: as many references as the adapter was trained with, the nearest first.

        Args:
            loaded: the adapter's index.
            question: the customer's turn.
            before: the assistant's turn before it; empty at the start.
            tenant: whose turn it is at the encoder.
        """
        self._embeddings.hold()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                query = await self._encode((question, before), tenant=tenant)
        except (TimeoutError, Unavailable, TooMany) as exc:
            log.warning("answered without references", tenant=tenant, error=str(exc))
            return Grounding(why_not="unavailable")
        references = await asyncio.to_thread(_search, loaded, query)
        near = bool(references) and references[0].score >= loaded.index.threshold
        return Grounding(references=references, supported=near)

    async def _encode(self, texts: tuple[str, str], *, tenant: str) -> "Vectors":
        """(1, 2 x dimensions). Texts that were encoded before are not encoded again."""
        import numpy as np  # noqa: PLC0415 - not before something is looked up

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
        joined = b"".join(known[text] for text in texts)
        query: Vectors = np.frombuffer(joined, dtype="<f4").astype(np.float32)[None, :]
        return query


def _search(loaded: LoadedIndex, query: "Vectors") -> tuple[Reference, ...]:
    from training.retrieval.index import reference_of  # noqa: PLC0415 - loads numpy

    (found,) = loaded.index.search(query, loaded.references)
    return tuple(map(reference_of, found))
