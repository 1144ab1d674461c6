"""Turns the engine's chunks into ours.

Each payload is decoded into a struct that has no place for what only engines say, so that token
ids, hidden prompts and transfer parameters cannot pass.
"""

from typing import get_args

import msgspec

from server.chat.schemas import Chunk, ChunkChoice, Completion, FinishReason, Usage
from server.errors import StreamBroken

_FINISHED: frozenset[str] = frozenset(get_args(FinishReason))
_BROKEN = frozenset({"abort", "error"})  # vLLM: somebody else ended it, or a computation failed
_chunks = msgspec.json.Decoder(Chunk)
_completions = msgspec.json.Decoder(Completion)


class Progress:
    """What has been seen of one streamed answer.

    ``usage`` is None until the engine says it; ``tokens`` counts chunks with text until then.
    """

    def __init__(self, choices: int) -> None:
        self._unfinished = set(range(choices))
        self._begun: set[int] = set()
        self.usage: Usage | None = None
        self.tokens = 0

    def take(self, payload: bytes) -> list[ChunkChoice]:
        """What a payload adds to the answer: maybe nothing.

        The role is said once, at the beginning of each choice, and each choice finishes once.

        Raises:
            StreamBroken: the payload makes no sense, or says that the engine gave up.
        """
        try:
            chunk = _chunks.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StreamBroken("the engine sent a chunk that makes no sense") from exc
        if chunk.usage is not None:
            self.usage = chunk.usage
        return [choice for choice in chunk.choices if self._adds(choice)]

    def finish(self) -> None:
        """Check that nothing is missing.

        Raises:
            StreamBroken: a choice has no end.
        """
        if self._unfinished:
            raise StreamBroken("the engine ended the answer before it was complete")

    def _adds(self, choice: ChunkChoice) -> bool:
        index, delta = choice.index, choice.delta
        if index not in self._unfinished:
            return False
        if delta.content:
            self.tokens += 1
        if index in self._begun:
            delta.role = None
            if choice.finish_reason is None:
                return bool(delta.content) or choice.logprobs is not None
        else:
            self._begun.add(index)
            delta.role = "assistant"
            delta.content = delta.content or ""
        if choice.finish_reason is not None:
            choice.finish_reason = _finish_reason(choice.finish_reason)
            self._unfinished.discard(index)
        return True


def read_completion(data: bytes) -> Completion:
    """Read an answer that came in one piece.

    Raises:
        StreamBroken: it makes no sense, or says that the engine gave up.
    """
    try:
        answer = _completions.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StreamBroken("the engine's answer makes no sense") from exc
    for choice in answer.choices:
        choice.finish_reason = _finish_reason(choice.finish_reason)
    return answer


def _finish_reason(reason: str) -> str:
    if reason in _BROKEN:
        raise StreamBroken("the engine gave up in the middle of the answer")
    return reason if reason in _FINISHED else "stop"
