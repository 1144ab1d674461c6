"""``/v1``: what OpenAI's clients call."""

from typing import Any

from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp

from server.adapters.schemas import ModelCard
from server.chat.service import ChatService
from server.errors import Forbidden, ModelNotFound
from server.openai.answer import ChatAnswer
from server.openai.request import parse, to_chat
from server.openai.schemas import Model, ModelList
from server.tenants.access import needs, provide_principal
from server.tenants.keys import Principal


class OpenAIController(Controller):
    """Chat completions and models, for tenants' keys with the scope ``chat``."""

    path = "/v1"
    guards = (needs("chat"),)

    @post("/chat/completions", status_code=200)
    async def create_chat_completion(
        self,
        request: Request[Any, Any, Any],
        chat: NamedDependency[ChatService],
    ) -> ASGIApp:
        """Continue a conversation, in one piece or streamed."""
        principal = provide_principal(request)  # a second dependency would cost a task group
        tenant_id = _tenant(principal)
        body = parse(await request.body())
        asked = to_chat(body)
        resolved = await chat.resolve(tenant_id, body.model)
        options = body.stream_options
        return ChatAnswer(
            chat,
            asked,
            resolved,
            key_id=principal.key_id,
            stream=bool(body.stream),
            include_usage=bool(options and options.include_usage),
        )

    @get("/models")
    async def list_models(
        self, principal: NamedDependency[Principal], chat: NamedDependency[ChatService]
    ) -> ModelList:
        """The names that this key may ask for."""
        return ModelList(data=[_model(card) for card in await chat.models(_tenant(principal))])

    @get("/models/{model:path}")
    async def retrieve_model(
        self,
        model: FromPath[str],
        principal: NamedDependency[Principal],
        chat: NamedDependency[ChatService],
    ) -> Model:
        """One of them."""
        name = model.lstrip("/")
        for card in await chat.models(_tenant(principal)):
            if card.id == name:
                return _model(card)
        raise ModelNotFound(name)


def _tenant(principal: Principal) -> str:
    if principal.tenant_id is None:
        raise Forbidden(
            "Chats belong to a tenant: use a tenant's key (tt_...), not the operator's."
        )
    return principal.tenant_id


def _model(card: ModelCard) -> Model:
    return Model(id=card.id, created=int(card.created_at.timestamp()), owned_by=card.owned_by)
