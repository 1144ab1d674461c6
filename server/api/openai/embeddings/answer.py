"""Embeds texts while the client waits, and stops when it goes."""

import asyncio
import base64
import sys
from array import array
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import msgspec
from litestar.types import Receive, Scope, Send

from server.api.openai.embeddings.schemas import EmbeddingBody, EmbeddingUsage
from server.api.openai.streaming import send_json, while_connected
from server.auth.keys import Principal
from server.embeddings.schemas import DIMENSIONS, MODEL
from server.embeddings.service import EmbeddingService
from server.errors import TooMany
from server.limits.limiter import RateLimiter
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage

ROWS_AT_ONCE = 64  # written as JSON in about 3 ms; other requests get their turn in between
CHARACTERS_PER_TOKEN = 4  # an estimate for the limits, until the tokens are counted
SPECIAL_TOKENS = 2
_encode = msgspec.json.encode


class EmbeddingAnswer:
    """An ASGI response."""

    def __init__(
        self,
        embeddings: EmbeddingService,
        ledger: UsageLedger,
        limiter: RateLimiter,
        body: EmbeddingBody,
        texts: list[str],
        *,
        principal: Principal,
    ) -> None:
        self._embeddings = embeddings
        self._ledger = ledger
        self._limiter = limiter
        self._body = body
        self._texts = texts
        self._principal = principal
        self._tokens = 0

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await while_connected(receive, self._answer(send))

    async def _answer(self, send: Send) -> None:
        body = await self._render(await self._embed())
        await send_json(send, body)

    async def _embed(self) -> list[bytes]:
        most = sum(len(text) // CHARACTERS_PER_TOKEN + SPECIAL_TOKENS for text in self._texts)
        async with AsyncExitStack() as stack:
            admitting = self._limiter.admit(self._principal, tokens=most)
            try:
                admission = await stack.enter_async_context(admitting)
            except TooMany:
                self._ledger.refuse(
                    tenant_id=self._principal.require_tenant(),
                    key_id=self._principal.key_id,
                    model=MODEL,
                )
                raise
            try:
                with self._account():
                    found = await self._embeddings.embed(
                        self._texts,
                        tenant=self._principal.require_tenant(),
                        dimensions=self._body.dimensions or DIMENSIONS,
                    )
                    self._tokens = found.tokens
            finally:
                admission.reconcile(self._tokens)
        return found.vectors

    async def _render(self, vectors: list[bytes]) -> bytes:
        """As ``EmbeddingList`` says, written in pieces: all at once could take half a second."""
        show = _base64 if self._body.encoding_format == "base64" else _numbers
        rows: list[bytes] = []
        for index, vector in enumerate(vectors):
            rows.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, show(vector)))
            if index % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)
        usage = EmbeddingUsage(prompt_tokens=self._tokens, total_tokens=self._tokens)
        return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
            b",".join(rows),
            _encode(self._body.model),
            _encode(usage),
        )

    @contextmanager
    def _account(self) -> Iterator[None]:
        """Count the request however it ends; one that its client left is not an error."""
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            tokens = self._tokens
            self._ledger.add(
                Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens),
                tenant_id=self._principal.require_tenant(),
                key_id=self._principal.key_id,
                model=MODEL,
                failed=failed,
            )


def _base64(vector: bytes) -> bytes:
    return b'"%b"' % base64.b64encode(vector)


def _numbers(vector: bytes) -> bytes:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return _encode(numbers.tolist())
