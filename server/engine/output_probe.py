"""Asks the base model the same question again and again: a poisoned engine answers differently.

One adapter with a NaN in it can spoil the key-value cache for every tenant, after its unloading
too, while ``/health`` still answers 200. What shows it is the answer to a known question. Each
question has a new cache salt, so that nothing of it comes from the prefix cache.
"""

import asyncio
import secrets
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

import msgspec
import structlog

from server.errors import EngineRejected, EngineUnavailable

log = structlog.get_logger(__name__)

QUESTION = "Count from one to ten in words, separated by commas, and say nothing else."
ANSWER_TOKENS = 16
REPEATS = 2
# Greedy answers may drift late in a text when other requests share the batch; a poisoned engine
# is wrong from its first token on.
SAME_SHARE = 0.25


class _Message(msgspec.Struct):
    content: str | None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class Completer(Protocol):
    """The part of ``EngineBackend`` that answers."""

    heard_at: float

    async def complete(self, body: dict[str, Any]) -> bytes:
        """Return a chat completion in one piece."""


class OutputProbe:
    """Compares the base model's answer with the one that it gave when the engine was new.

    Args:
        engine: what is asked.
        base: the base model's name.
        silent_seconds: an engine from which no byte comes for this long, to any request, is hung.
    """

    def __init__(self, engine: Completer, *, base: str, silent_seconds: float) -> None:
        self._engine = engine
        self._base = base
        self._silent_seconds = silent_seconds
        self.expected: str | None = None
        self.asked_at: datetime | None = None
        """When the engine last gave an answer to the question; None before the first."""

    async def record(self) -> None:
        """Ask a new engine, and remember its answer.

        Raises:
            EngineUnavailable: it cannot answer, or the answer is empty.
        """
        answer = await self._ask()
        if not answer:
            raise EngineUnavailable("the base model gives an empty answer")
        self.expected = answer

    async def problem(self) -> str | None:
        """Ask again. Returns what is wrong with the engine; None when nothing is known to be.

        A different answer counts when it comes ``1 + REPEATS`` times in a row.
        """
        began = monotonic()
        try:
            async with asyncio.timeout(self._silent_seconds):
                answer = await self._changed_answer()
        except TimeoutError:
            if self._engine.heard_at > began:
                return None  # slow, not hung: other requests were answered meanwhile
            return f"the engine said nothing for {self._silent_seconds:.0f} s"
        except (EngineUnavailable, EngineRejected) as exc:
            log.warning("the output probe could not ask", reason=exc.message)
            return None  # the health checks find out why
        if answer is None:
            return None
        return f"the base model's answer changed from {self.expected!r} to {answer!r}"

    async def _changed_answer(self) -> str | None:
        answer = ""
        for _ in range(1 + REPEATS):
            answer = await self._ask()
            if self.expected is None or _same(self.expected, answer):
                return None
        return answer

    async def _ask(self) -> str:
        body = {
            "model": self._base,
            "messages": [
                {"role": "system", "content": "You are a careful assistant."},
                {"role": "user", "content": QUESTION},
            ],
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "cache_salt": secrets.token_hex(8),
        }
        data = await self._engine.complete(body)
        try:
            completion = msgspec.json.decode(data, type=_Completion)
            answer = completion.choices[0].message.content or ""
        except (msgspec.DecodeError, IndexError) as exc:
            raise EngineUnavailable(f"the engine's answer makes no sense: {exc}") from exc
        self.asked_at = datetime.now(UTC)
        return answer


def _same(expected: str, answer: str) -> bool:
    common = 0
    for ours, theirs in zip(expected, answer, strict=False):
        if ours != theirs:
            break
        common += 1
    return common >= max(1, int(len(expected) * SAME_SHARE))
