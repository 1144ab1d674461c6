"""Asks the base model the same question again and again: a poisoned engine answers differently.

One adapter with a NaN in it can spoil the key-value cache for every tenant, outlive its own
unloading, and leave ``/health`` at 200 all the while. What shows it is the answer. Each question
carries its own cache salt, so that nothing of it comes from the prefix cache.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from server.errors import EngineUnavailable

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


class OutputProbe:
    """Remembers how the base answered when the engine was fresh."""

    def __init__(self, base: str, complete: Callable[[dict[str, Any]], Awaitable[bytes]]) -> None:
        self._base = base
        self._complete = complete
        self.expected: str | None = None

    async def record(self) -> None:
        """Ask a fresh engine.

        Raises:
            EngineUnavailable: it cannot answer, or says nothing at all.
        """
        answer = await self._ask()
        if not answer:
            raise EngineUnavailable("the base model gives an empty answer")
        self.expected = answer

    async def check(self) -> str | None:
        """None while the base answers as it did; else what it says now, asked more than once.

        Raises:
            EngineUnavailable: the engine cannot answer.
        """
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
        data = await self._complete(body)
        try:
            completion = msgspec.json.decode(data, type=_Completion)
            return completion.choices[0].message.content or ""
        except (msgspec.DecodeError, IndexError) as exc:
            raise EngineUnavailable(f"the engine's answer makes no sense: {exc}") from exc


def _same(expected: str, answer: str) -> bool:
    common = 0
    for ours, theirs in zip(expected, answer, strict=False):
        if ours != theirs:
            break
        common += 1
    return common >= max(1, int(len(expected) * SAME_SHARE))
