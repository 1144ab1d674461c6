"""Makes a request that does not fit into the model's context fit, as far as it may be changed."""

from typing import Any

from server.chat.completions import TextRequest
from server.chat.schemas import ChatMessage, ChatRequest
from server.errors import EngineRejected

CLIENT_ERRORS = (400, 413, 422)
_CONTEXT_PARAMS = ("input_tokens", "input_text")
DROPPED_SHARE = 8  # an eighth of the turns at a time: few attempts, and little is lost in vain


def is_too_long(exc: EngineRejected) -> bool:
    """Whether the engine refused a request because it does not fit."""
    return exc.status in CLIENT_ERRORS and (
        exc.param in _CONTEXT_PARAMS or "context length" in exc.message
    )


def make_room(
    exc: EngineRejected, body: dict[str, Any], request: ChatRequest | TextRequest
) -> None:
    """Change the engine's request, so that it may fit the next time; each time it gets smaller.

    Our default limit goes first, since the context's end is nearer then; after it the oldest turns,
    where the caller said so.

    Raises:
        EngineRejected: the refusal itself, where it is about something else or nothing may go.
    """
    ours = request.sampling.max_tokens is None and "max_tokens" in body
    # a limit above the whole context is refused before anybody looks at the prompt
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
