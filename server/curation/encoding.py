"""Vectors of a scan's texts, from the encoder that all tenants share."""

import asyncio

import structlog

from server.embeddings.schemas import DIMENSIONS
from server.embeddings.service import EmbeddingService
from server.errors import TooMany, Unavailable

log = structlog.get_logger(__name__)

MAX_SECONDS = 40.0
"""Of one scan, the start of the encoder's process included: somebody waits at the page."""
TEXTS_A_REQUEST = 128


class ScanEncoder:
    """Embeds what one scan asks for, while there is time.

    Other tenants take turns with it, batch by batch, as with every request to the encoder.

    Args:
        embeddings: The server's.
        tenant_id: Whose scan it is.
        max_seconds: All that its requests may take together.
    """

    def __init__(
        self, embeddings: EmbeddingService, tenant_id: str, *, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._embeddings = embeddings
        self._tenant_id = tenant_id
        self._left = max_seconds

    async def embed(self, texts: list[str]) -> list[bytes]:
        """Vectors of the first texts; of none where the encoder is not there or the time is over.

        Of a long text, the beginning is read.
        """
        vectors: list[bytes] = []
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left):
                for start in range(0, len(texts), TEXTS_A_REQUEST):
                    answer = await self._embeddings.embed(
                        texts[start : start + TEXTS_A_REQUEST],
                        tenant=self._tenant_id,
                        dimensions=DIMENSIONS,
                        truncate=True,
                    )
                    vectors += answer.vectors
        except (TimeoutError, TooMany, Unavailable) as exc:
            log.warning(
                "a scan compares by wording", reason=repr(exc), of=len(texts), embedded=len(vectors)
            )
        self._left = max(0.0, self._left - (loop.time() - began))
        return vectors
