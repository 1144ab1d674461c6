"""What the name of a model means for a tenant, looked up for each request: one query."""

import re
from pathlib import Path

from sqlalchemy import ColumnElement, and_
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters.schemas import ModelCard, Resolved
from server.adapters.service import fine_tuned_name
from server.db.models import Adapter, Tenant
from server.db.scope import of_tenant
from server.engine.adapter_cache import AdapterRef
from server.errors import Conflict, ModelNotFound

VERSIONED = re.compile(r"(?P<slug>[a-z0-9-]{2,40})@(?P<version>[1-9][0-9]{0,8})")
FINE_TUNED = re.compile(
    r"ft:(?P<base>[^:]+):(?P<slug>[a-z0-9-]{2,40}):(?P<suffix>.*):(?P<id>[0-9a-f]{12})",
    re.DOTALL,  # suffixes were once free text; the name is compared in full below
)
OWNER = "tenantune"


async def resolve(
    session: AsyncSession, tenant_id: str, model: str, *, base: str, adapters: Path
) -> Resolved:
    """Which adapter answers to ``model`` for this tenant; ``base`` is the base being served.

    ``<slug>`` is the live version (the base where none is), ``<slug>@<version>`` and ``ft:...``
    exactly one, whatever is live. An unsafe one answers only to ``<slug>@<version>``.

    Raises:
        ModelNotFound: no such name for this tenant; another tenant's is no such name.
        Conflict: the adapter was trained on a base that this server does not run.
    """
    found = await _find(session, tenant_id, model)
    if found is None:
        raise ModelNotFound(model)
    tenant, adapter = found
    if model == base or (model == tenant.slug and adapter is None):
        return Resolved(
            model=model,
            tenant_id=tenant.id,
            slug=tenant.slug,
            adapter=None,
            version=None,
            system_prompt="" if model == base else tenant.system_prompt,
        )
    if adapter is None or (
        model.startswith("ft:") and model != fine_tuned_name(tenant.slug, adapter)
    ):
        raise ModelNotFound(model)
    if adapter.base_name != base:
        raise Conflict(
            f"The adapter '{tenant.slug}@{adapter.version}' was trained on the base "
            f"'{adapter.base_name}'; this server runs '{base}'. Train it again on this base.",
            param="model",
            code="base_changed",
        )
    return Resolved(
        model=model,
        tenant_id=tenant.id,
        slug=tenant.slug,
        adapter=AdapterRef(name=adapter.engine_name, path=str(adapters / adapter.engine_name)),
        version=adapter.version,
        system_prompt=adapter.system_prompt,
    )


async def own(session: AsyncSession, tenant_id: str, model: str) -> Adapter:
    """The version that ``<slug>@<version>`` or ``ft:...`` names, whatever base it was trained on.

    Raises:
        ModelNotFound: the name means no version of this tenant.
    """
    found = await _find(session, tenant_id, model)
    if found is None:
        raise ModelNotFound(model)
    tenant, adapter = found
    if adapter is None or model == tenant.slug:
        raise ModelNotFound(model)
    if model.startswith("ft:") and model != fine_tuned_name(tenant.slug, adapter):
        raise ModelNotFound(model)
    return adapter


async def list_models(session: AsyncSession, tenant_id: str, *, base: str) -> list[ModelCard]:
    """Every name that this tenant's keys may ask for, the base first.

    Raises:
        ModelNotFound: never for a tenant that exists.
    """
    tenant = await session.get(Tenant, tenant_id)
    if tenant is None:
        raise ModelNotFound(base)
    cards = [
        ModelCard(id=base, created_at=tenant.created_at, owned_by=OWNER),
        ModelCard(id=tenant.slug, created_at=tenant.created_at, owned_by=tenant.slug),
    ]
    query = of_tenant(tenant_id).select(Adapter).order_by(Adapter.version)
    query = query.where(Adapter.state != "deleted", Adapter.base_name == base)
    for adapter in await session.scalars(query):
        names = [f"{tenant.slug}@{adapter.version}"]
        if adapter.state != "unsafe":
            names.append(fine_tuned_name(tenant.slug, adapter))
        cards += [
            ModelCard(id=name, created_at=adapter.created_at, owned_by=tenant.slug)
            for name in names
        ]
    return cards


async def _find(
    session: AsyncSession, tenant_id: str, model: str
) -> tuple[Tenant, Adapter | None] | None:
    """The tenant, and its adapter that a name asks for; None where the tenant is gone."""
    query = (
        of_tenant(tenant_id)
        .select(Tenant)
        .outerjoin(Adapter, and_(Adapter.tenant_id == Tenant.id, _wanted(model)))
        .add_columns(Adapter)
    )
    found = (await session.execute(query)).first()
    return None if found is None else (found[0], found[1])


def _wanted(model: str) -> ColumnElement[bool]:
    """The adapter that a name asks for; ``ft:`` names are compared in full later."""
    there = Adapter.state != "deleted"
    if match := VERSIONED.fullmatch(model):
        return and_(there, Tenant.slug == match["slug"], Adapter.version == int(match["version"]))
    if match := FINE_TUNED.fullmatch(model):
        name = f"{match['slug']}.{match['id']}"
        return and_(there, Adapter.engine_name == name, Adapter.state != "unsafe")
    return and_(there, Tenant.slug == model, Adapter.id == Tenant.live_adapter_id)
