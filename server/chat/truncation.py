"""Shortens a request that does not fit into the model's context, as far as it may be changed.

What it was shown beside it has gone before (``grounding.without_references``).
"""

from typing import Any

from server.chat.completions import TextRequest
from server.chat.schemas import ChatMessage, ChatRequest
from server.errors import EngineRejected

CLIENT_ERRORS = (400, 413, 422)
_CONTEXT_PARAMS = ("input_tokens", "input_text")
DROPPED_SHARE = (
    8  # an eighth of the turns at a time: few attempts, and little is dropped needlessly
)


def is_too_long(exc: EngineRejected) -> bool:
    """Whether the engine rejected a request because it does not fit."""
    return exc.status in CLIENT_ERRORS and (
        exc.param in _CONTEXT_PARAMS or "context length" in exc.message
    )


def shorten(exc: EngineRejected, body: dict[str, Any], request: ChatRequest | TextRequest) -> None:
    """Change the engine's request so that it may fit the next time; each time it gets smaller.

    Our default limit of the answer is dropped first: the answer then ends where the context does.
    After it the oldest turns are, where the caller allows that.

    Args:
        exc: why the engine rejected the request.
        body: the engine's request, changed in place.
        request: what the caller asked for.

    Raises:
        EngineRejected: ``exc`` itself, where it is about something else or nothing may be dropped.
    """
    ours = request.sampling.max_tokens is None and "max_tokens" in body
    # a limit above the whole context is rejected before the prompt is looked at
    if ours and (is_too_long(exc) or exc.param == "max_tokens"):
        del body["max_tokens"]
        return
    if not is_too_long(exc):
        raise exc
    if not isinstance(request, ChatRequest) or not request.drop_oldest:
        raise exc
    system, *turns = body["messages"]
    kept = _newer(turns)
    if not kept:
        raise exc
    body["messages"] = [system, *kept]


def _newer(turns: list[ChatMessage]) -> list[ChatMessage]:
    """The turns without the oldest; they begin with a user's where there is one among them."""
    kept = turns[max(1, len(turns) // DROPPED_SHARE) :]
    start = next((place for place, turn in enumerate(kept) if turn.role == "user"), 0)
    kept = kept[start:]
    while kept and kept[0].role == "tool":  # its call is gone
        kept = kept[1:]
    return kept
