"""``/v1/chat/completions``."""

from typing import Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from server.chat.service import ChatService
from server.openai.chat.answer import ChatAnswer
from server.openai.chat.request import parse, to_chat
from server.openai.chat.schemas import CompletionBody
from server.tenants.access import needs, provide_principal


class ChatController(Controller):
    """Chat completions, for tenants' keys with the scope ``chat``."""

    path = "/v1/chat/completions"
    tags = ("chat",)
    guards = (needs("chat"),)

    @post(status_code=200, opt={"body": CompletionBody})
    async def create_chat_completion(
        self,
        request: Request[Any, Any, Any],
        chat: NamedDependency[ChatService],
    ) -> ASGIApp:
        """Continue a conversation, in one piece or streamed."""
        principal = provide_principal(request)  # a second dependency would cost a task group
        tenant_id = principal.require_tenant()
        body = parse(await request.body())
        asked = to_chat(body)
        resolved = await chat.resolve(tenant_id, body.model)
        options = body.stream_options
        return ChatAnswer(
            chat,
            asked,
            resolved,
            principal=principal,
            stream=bool(body.stream),
            include_usage=bool(options and options.include_usage),
        )
