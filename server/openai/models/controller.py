"""``/v1/models``: the names that a key may ask for."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.adapters.names import OWNER
from server.adapters.schemas import ModelCard
from server.chat.service import ChatService
from server.embeddings.schemas import MODEL, MODEL_CREATED
from server.errors import ModelNotFound
from server.openai.models.schemas import Model, ModelList
from server.tenants.access import needs
from server.tenants.keys import Principal

EMBEDDING_MODEL = Model(id=MODEL, created=MODEL_CREATED, owned_by=OWNER)


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
        cards = await chat.models(principal.require_tenant())
        return ModelList(data=[*map(_model, cards), EMBEDDING_MODEL])

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
        if name == MODEL:
            return EMBEDDING_MODEL
        raise ModelNotFound(name)


def _model(card: ModelCard) -> Model:
    return Model(id=card.id, created=int(card.created_at.timestamp()), owned_by=card.owned_by)
