"""Writes a chat's answer the way OpenAI does, and keeps it where that is asked for."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from server.adapters.schemas import Resolved
from server.api.openai.streaming import Answer
from server.auth.keys import Principal
from server.chat.aggregation import Collected
from server.chat.schemas import ChatRequest, Choice, ChunkChoice
from server.chat.service import ChatService, StreamedAnswer
from server.usage.schemas import Usage

Keep = Callable[[str, dict[str, Any]], Awaitable[None]]


class ChatAnswer(Answer[ChatRequest, ChunkChoice]):
    """A chat completion; ``keep`` gets its id and the whole object before the client has it."""

    prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(
        self,
        chat: ChatService,
        request: ChatRequest,
        resolved: Resolved,
        *,
        principal: Principal,
        stream: bool,
        include_usage: bool,
        also: dict[str, Any] | None = None,
        keep: Keep | None = None,
    ) -> None:
        super().__init__(
            chat,
            request,
            resolved,
            principal=principal,
            stream=stream,
            include_usage=include_usage,
            also=also,
        )
        self._keep = keep
        self._choices: list[Choice] = []

    def begin(self) -> AbstractAsyncContextManager[StreamedAnswer[ChunkChoice]]:
        """Begin a streamed answer."""
        return self._chat.stream(
            self._request, self._resolved, principal=self._principal, answer_id=self.id
        )

    async def generate(self) -> tuple[Sequence[Choice], Usage]:
        """An answer in one piece."""
        answer = await self._chat.complete(
            self._request, self._resolved, principal=self._principal, answer_id=self.id
        )
        self._choices, self._supported = answer.choices, answer.supported
        return answer.choices, answer.usage

    def chunks(self, answer: StreamedAnswer[ChunkChoice]) -> AsyncIterator[list[ChunkChoice]]:
        """The chunks, collected on their way when they will be kept."""
        return aiter(answer) if self._keep is None else self._collecting(answer)

    async def done(self, head: dict[str, Any], usage: dict[str, Any] | None) -> None:
        """Keep the answer, so that a client that has it finds it (``server/db/write_behind.py``)."""
        if self._keep is not None:
            choices = msgspec.to_builtins(self._choices)
            kept = {**head, "object": self.whole, "choices": choices, "usage": usage}
            await self._keep(self.id, kept)

    async def _collecting(
        self, answer: StreamedAnswer[ChunkChoice]
    ) -> AsyncIterator[list[ChunkChoice]]:
        collected = Collected()
        async for choices in answer:
            collected.add(choices)
            yield choices
        self._choices = collected.choices
