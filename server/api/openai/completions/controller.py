"""``/v1/completions``: texts, continued as they are."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from server.api.guards import needs, provide_principal
from server.api.openai.completions.request import parse, to_texts
from server.api.openai.completions.schemas import TextBody, TextCompletion
from server.api.openai.streaming import Answer
from server.chat.completions import TextChoice, TextRequest
from server.chat.service import ChatService, StreamedAnswer
from server.usage.schemas import Usage


class CompletionController(Controller):
    """Completions, for tenants' keys with the scope ``chat``."""

    path = "/v1/completions"
    tags = ("completions",)
    guards = (needs("chat"),)

    @post(
        status_code=200,
        opt={
            "body": TextBody,
            "responses": {"application/json": TextCompletion, "text/event-stream": TextCompletion},
        },
    )
    async def create_completion(
        self, request: Request[Any, Any, Any], chat: NamedDependency[ChatService]
    ) -> ASGIApp:
        """Continue texts, in one piece or streamed. No system prompt is added to them."""
        principal = provide_principal(request)  # a second dependency would cost a task group
        body = parse(await request.body())
        asked = to_texts(body)
        resolved = await chat.models.resolve(principal.require_tenant(), body.model, key=body.user)
        options = body.stream_options
        return TextAnswer(
            chat,
            asked,
            resolved,
            principal=principal,
            stream=bool(body.stream),
            include_usage=bool(options and options.include_usage),
        )


class TextAnswer(Answer[TextRequest, TextChoice]):
    """A completion, as an ASGI response."""

    prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def begin(self) -> AbstractAsyncContextManager[StreamedAnswer[TextChoice]]:
        """Begin a streamed answer."""
        return self._chat.stream_texts(self._request, self._resolved, principal=self._principal)

    async def generate(self) -> tuple[Sequence[TextChoice], Usage | None]:
        """An answer in one piece."""
        answer = await self._chat.complete_texts(
            self._request, self._resolved, principal=self._principal
        )
        return answer.choices, answer.usage
