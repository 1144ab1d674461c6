"""``/v1/embeddings``."""

from typing import Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from server.api.guards import needs, provide_principal
from server.api.openai.embeddings.answer import EmbeddingAnswer
from server.api.openai.embeddings.request import parse, texts_of
from server.api.openai.embeddings.schemas import EmbeddingBody, EmbeddingList
from server.embeddings.service import EmbeddingService
from server.limits.limiter import RateLimiter
from server.usage.ledger import UsageLedger


class EmbeddingController(Controller):
    """Embeddings, for tenants' keys with the scope ``chat``."""

    path = "/v1/embeddings"
    tags = ("embeddings",)
    guards = (needs("chat"),)

    @post(
        status_code=200,
        opt={"body": EmbeddingBody},
        responses={200: ResponseSpec(EmbeddingList, description="The vectors.")},
    )
    async def create_embedding(
        self,
        request: Request[Any, Any, Any],
        embeddings: NamedDependency[EmbeddingService],
        ledger: NamedDependency[UsageLedger],
        limiter: NamedDependency[RateLimiter],
    ) -> ASGIApp:
        """A vector for each text, to compare by their dot product."""
        principal = provide_principal(request)
        principal.require_tenant()
        body = parse(await request.body())
        texts = texts_of(body)
        return EmbeddingAnswer(embeddings, ledger, limiter, body, texts, principal=principal)
