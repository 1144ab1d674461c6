"""What is done to every answer on its way out, as Litestar's ``before_send`` hooks.

``x-request-id`` is added in ``problems.py``, ``Vary`` in ``cors.py``.
"""

from litestar.datastructures import MutableScopeHeaders
from litestar.types import BeforeMessageSendHookHandler, Message, Scope

from server.limits.limiter import RateLimiter
from server.metrics import Metrics

# where answers carry the state of the caller's limits
GENERATION = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


def add_rate_limits(limiter: RateLimiter) -> BeforeMessageSendHookHandler:
    """The hook that puts OpenAI's ``x-ratelimit-*`` headers on what models answer."""

    async def add(message: Message, scope: Scope) -> None:
        if (
            message["type"] == "http.response.start"
            and scope["path"].rstrip("/") in GENERATION
            and scope.get("method") == "POST"
            and (principal := scope.get("state", {}).get("principal")) is not None
        ):
            headers = MutableScopeHeaders.from_message(message)
            for name, value in limiter.headers(principal):
                headers[name] = value

    return add


def count_answers(metrics: Metrics) -> BeforeMessageSendHookHandler:
    """The hook that counts answers by method, route and status, errors included."""

    async def count(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            route = scope.get("path_template") or "unknown"  # never the path: it has no bound
            metrics.count_answer(str(scope.get("method", "")), route, status=message["status"])

    return count
