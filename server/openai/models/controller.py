"""``/v1/models``: the names that a key may ask for."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.adapters.schemas import ModelCard
from server.chat.service import ChatService
from server.errors import ModelNotFound
from server.openai.models.schemas import Model, ModelList
from server.tenants.access import needs
from server.tenants.keys import Principal


class ModelController(Controller):
    """Models, for tenants' keys with the scope ``chat``."""

    path = "/v1/models"
    tags = ("models",)
    guards = (needs("chat"),)

    @get()
    async def list_models(
        self, principal: NamedDependency[Principal], chat: NamedDependency[ChatService]
    ) -> ModelList:
        """The names that this key may ask for."""
        return ModelList(
            data=[_model(card) for card in await chat.models(principal.require_tenant())]
        )

    @get("/{model:path}")
    async def retrieve_model(
        self,
        model: FromPath[str],
        principal: NamedDependency[Principal],
        chat: NamedDependency[ChatService],
    ) -> Model:
        """One of them."""
        name = model.lstrip("/")
        for card in await chat.models(principal.require_tenant()):
            if card.id == name:
                return _model(card)
        raise ModelNotFound(name)


def _model(card: ModelCard) -> Model:
    return Model(id=card.id, created=int(card.created_at.timestamp()), owned_by=card.owned_by)
