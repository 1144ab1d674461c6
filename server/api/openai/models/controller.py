"""``/v1/models``: the names that a key may ask for."""

from litestar import Controller, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.adapters import names
from server.adapters import service as adapters
from server.adapters.catalog import ModelCatalog
from server.adapters.names import OWNER
from server.adapters.removal import remove_adapters
from server.adapters.schemas import ModelCard
from server.api.guards import needs
from server.api.openai.models.schemas import DeletedModel, Model, ModelList
from server.auth.keys import Principal
from server.db.session import Database
from server.embeddings.schemas import MODEL, MODEL_CREATED
from server.engine.service import EngineService
from server.errors import Conflict, Forbidden, ModelNotFound
from server.settings import Settings
from server.tenants import service as tenants

EMBEDDING_MODEL = Model(id=MODEL, created=MODEL_CREATED, owned_by=OWNER)


class ModelController(Controller):
    """Models: looked at with the scope ``chat``, deleted with ``train``."""

    path = "/v1/models"
    tags = ("models",)

    @get(guards=[needs("chat")])
    async def list_models(
        self, principal: NamedDependency[Principal], models: NamedDependency[ModelCatalog]
    ) -> ModelList:
        """The names that this key may ask for."""
        cards = await models.list_models(principal.require_tenant())
        return ModelList(data=[*map(_model, cards), EMBEDDING_MODEL])

    @get("/{model:path}", guards=[needs("chat")])
    async def retrieve_model(
        self,
        model: FromPath[str],
        principal: NamedDependency[Principal],
        models: NamedDependency[ModelCatalog],
    ) -> Model:
        """One model."""
        name = model.lstrip("/")
        for card in await models.list_models(principal.require_tenant()):
            if card.id == name:
                return _model(card)
        if name == MODEL:
            return EMBEDDING_MODEL
        raise ModelNotFound(name)

    @delete("/{model:path}", status_code=200, guards=[needs("train")])
    async def delete_model(
        self,
        model: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        engine: NamedDependency[EngineService | None],
    ) -> DeletedModel:
        """Delete a fine-tuned model, files and all; a live one makes way for what was live before."""
        name, tenant_id = model.lstrip("/"), principal.require_tenant()
        if name in {settings.base, MODEL}:
            raise Forbidden(f"'{name}' is everybody's and cannot be deleted.")
        async with database.transaction() as session:
            tenant = await tenants.get_by_id(session, tenant_id)
            if name == tenant.slug:
                raise Conflict(
                    f"'{name}' is whatever version is live; delete a version by its own name: "
                    f"'{name}@1', or 'ft:...'.",
                    param="model",
                    code="model_is_live",
                )
            adapter = await names.own(session, tenant_id, name)
            if tenant.live_adapter_id == adapter.id:
                await adapters.roll_back(session, tenant, actor=principal.actor)
            engine_name = await adapters.delete(session, tenant, version=adapter.version)
        await remove_adapters([engine_name], settings=settings, engine=engine)
        return DeletedModel(id=name)


def _model(card: ModelCard) -> Model:
    return Model(id=card.id, created=int(card.created_at.timestamp()), owned_by=card.owned_by)
