"""Requests that wait for the encoder: tenants take turns, batch by batch."""

import asyncio
from array import array
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from server.embeddings.encoder import Encoder, shorten
from server.embeddings.schemas import Embedded, EmbedRequest, TooLong
from training.data.batching import length_batches

P = ParamSpec("P")
R = TypeVar("R")

BATCH_TOKENS = 1024  # about 0.4 s of one core; twice as much is not quicker in all
BATCH_TEXTS = 64
COUNTED_TEXTS = 256  # tokenised together, some milliseconds each


class TextTooLong(Exception):
    """A text has more tokens than the model reads; ``where`` says which."""

    def __init__(self, where: TooLong) -> None:
        super().__init__(f"text {where.index} has {where.tokens} tokens")
        self.where = where


class RoundRobinQueue:
    """Who is next. Each tenant's requests take turns among themselves, and the tenants do.

    So a request of a few texts waits for at most one batch of each other tenant, however much they
    brought. Beside a tenant that embeds 300 long texts, one short text took 0.33 s (0.37 at most),
    alone 0.02 s: two cores, one thread.
    """

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, deque[asyncio.Event]] = OrderedDict()
        self._busy = False

    async def turn(self, tenant: str, work: Callable[[], Awaitable[R]]) -> R:
        """Do one piece of work when it is this tenant's turn."""
        if self._busy:
            called = asyncio.Event()
            self._tenants.setdefault(tenant, deque()).append(called)
            try:
                await called.wait()
            except asyncio.CancelledError:
                self._leave(tenant, called)
                raise
        self._busy = True
        try:
            return await work()
        finally:
            self._next(tenant)

    def _next(self, served: str) -> None:
        if served in self._tenants:
            self._tenants.move_to_end(served)
        self._busy = bool(self._tenants)
        if self._tenants:
            tenant, waiting = self._tenants.popitem(last=False)
            waiting.popleft().set()
            if waiting:
                self._tenants[tenant] = waiting

    def _leave(self, tenant: str, called: asyncio.Event) -> None:
        if called.is_set():  # it was our turn already
            self._next(tenant)
            return
        waiting = self._tenants[tenant]
        waiting.remove(called)
        if not waiting:
            del self._tenants[tenant]


class EncodingService:
    """Answers requests with one encoder, in one thread: its tokenizer is not safe in two."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._line = RoundRobinQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def embed(self, request: EmbedRequest) -> Embedded:
        """All of a request's texts; cancelling leaves the line after the batch under way.

        Raises:
            TextTooLong: one of them is; nothing was encoded then.
        """
        if len(request.texts) <= BATCH_TEXTS:  # the common case waits for its turn only once
            lengths, rows = await self._do(request, self._both, request.texts, request.dimensions)
            if rows is not None:
                return Embedded(vectors=rows, tokens=sum(lengths))
        else:
            lengths = []
            for start in range(0, len(request.texts), COUNTED_TEXTS):
                texts = request.texts[start : start + COUNTED_TEXTS]
                lengths += await self._do(request, self._count, texts, start)
        vectors: list[bytes] = [b""] * len(request.texts)
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            texts = [request.texts[i] for i in batch]
            rows = await self._do(request, self._encode, texts, request.dimensions)
            for i, row in zip(batch, rows, strict=True):
                vectors[i] = row
        return Embedded(vectors=vectors, tokens=sum(lengths))

    def _both(self, texts: Sequence[str], dimensions: int) -> tuple[list[int], list[bytes] | None]:
        """Lengths, and the vectors too where all texts are one batch."""
        lengths = self._count(texts, 0)
        if max(lengths) * len(lengths) > BATCH_TOKENS:
            return lengths, None
        return lengths, self._encode(texts, dimensions)

    def _count(self, texts: Sequence[str], first: int) -> list[int]:
        """Tokens of each text, which are those from number ``first`` on."""
        lengths = self._encoder.count(texts)
        limit = self._encoder.max_tokens
        for index, tokens in enumerate(lengths, first):
            if tokens > limit:
                raise TextTooLong(TooLong(index=index, tokens=tokens, limit=limit))
        return lengths

    def _encode(self, texts: Sequence[str], dimensions: int) -> list[bytes]:
        found: list[array[float]] = self._encoder.encode(texts)
        return [shorten(vector, dimensions) for vector in found]

    async def _do(
        self, request: EmbedRequest, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        def begin() -> Awaitable[R]:
            return asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))

        return await self._line.turn(request.tenant, begin)
