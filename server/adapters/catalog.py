"""The models that a tenant may ask for, by name."""

from pathlib import Path

from server.adapters import names
from server.adapters.schemas import ModelCard, Resolved
from server.adapters.split import Split
from server.db.session import Database
from server.db.versioned_cache import VersionedCache


class ModelCatalog:
    """What the names of models mean.

    Args:
        base: the public name of the base that is served.
        adapters: the folder that the engine loads adapters from.
    """

    def __init__(self, database: Database, *, base: str, adapters: Path) -> None:
        self._database = database
        self._base = base
        self._adapters = adapters
        self._resolved = VersionedCache[tuple[str, str], Split](database)

    async def resolve(self, tenant_id: str, model: str, *, key: str | None = None) -> Resolved:
        """What a model's name means for a tenant at this moment.

        One query, or none where nothing was written to the database since the last time.

        Args:
            tenant_id: whose name it is.
            model: the name.
            key: whom or what a canary is kept for: the same key gets the same version. None: each
                request is for itself.

        Raises:
            ModelNotFound: nothing, or another tenant's.
            Conflict: an adapter of another base than the one that is served.
        """

        async def read() -> Split:
            async with self._database.reading() as session:
                return await names.resolve_split(
                    session, tenant_id, model, base=self._base, adapters=self._adapters
                )

        return (await self._resolved.get((tenant_id, model), read)).choose(key)

    async def list_models(self, tenant_id: str) -> list[ModelCard]:
        """Every name that the tenant may ask for."""
        async with self._database.reading() as session:
            return await names.list_models(session, tenant_id, base=self._base)

    def close(self) -> None:
        """Close the cache's own connection to the database."""
        self._resolved.close()
