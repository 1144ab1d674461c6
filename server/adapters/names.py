"""What the name of a model means for a tenant, looked up for each request: one query."""

import re
from pathlib import Path
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, and_
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters.schemas import Arm, ModelCard, Resolved
from server.adapters.service import fine_tuned_name
from server.adapters.split import Split
from server.db.models import Adapter, Canary, Tenant
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
    return (await resolve_split(session, tenant_id, model, base=base, adapters=adapters)).live


async def resolve_split(
    session: AsyncSession, tenant_id: str, model: str, *, base: str, adapters: Path
) -> Split:
    """As ``resolve``, with the canary that answers a share of what asks for ``<slug>``.

    One that was trained on another base than the one being served answers nothing.

    Raises:
        ModelNotFound: no such name for this tenant; another tenant's is no such name.
        Conflict: the adapter was trained on a base that this server does not run.
    """
    found = await _find(session, tenant_id, model)
    if found is None:
        raise ModelNotFound(model)
    tenant, adapter = found.tenant, found.adapter
    if model == base:
        return Split(live=_base(tenant, model, system_prompt="", retrieval=False))
    if adapter is None and model == tenant.slug:
        live = _base(tenant, model, system_prompt=tenant.system_prompt, retrieval=tenant.retrieval)
    elif adapter is None or (
        model.startswith("ft:") and model != fine_tuned_name(tenant.slug, adapter)
    ):
        raise ModelNotFound(model)
    elif adapter.base_name != base:
        raise Conflict(
            f"The adapter '{tenant.slug}@{adapter.version}' was trained on the base "
            f"'{adapter.base_name}'; this server runs '{base}'. Train it again on this base.",
            param="model",
            code="base_changed",
        )
    else:
        live = _adapter(tenant, model, adapter, adapters)
    canary, tried = found.canary, found.tried
    if canary is None or tried is None or tried.base_name != base:
        return Split(live=live)
    live = msgspec.structs.replace(live, arm=Arm(revision=canary.revision, is_canary=False))
    return Split(
        live=live,
        canary=msgspec.structs.replace(
            _adapter(tenant, model, tried, adapters),
            arm=Arm(revision=canary.revision, is_canary=True),
            fallback=live,
        ),
        percent=canary.percent,
    )


def _base(tenant: Tenant, model: str, *, system_prompt: str, retrieval: bool) -> Resolved:
    return Resolved(
        model=model,
        tenant_id=tenant.id,
        slug=tenant.slug,
        adapter=None,
        version=None,
        system_prompt=system_prompt,
        retrieval=retrieval,
        show_sources=tenant.show_sources,
    )


def _adapter(tenant: Tenant, model: str, adapter: Adapter, adapters: Path) -> Resolved:
    return Resolved(
        model=model,
        tenant_id=tenant.id,
        slug=tenant.slug,
        adapter=AdapterRef(name=adapter.engine_name, path=str(adapters / adapter.engine_name)),
        version=adapter.version,
        system_prompt=adapter.system_prompt,
        retrieval=tenant.retrieval,
        show_sources=tenant.show_sources,
    )


async def own(session: AsyncSession, tenant_id: str, model: str) -> Adapter:
    """The version that ``<slug>@<version>`` or ``ft:...`` names, whatever base it was trained on.

    Raises:
        ModelNotFound: the name means no version of this tenant.
    """
    found = await _find(session, tenant_id, model)
    if found is None:
        raise ModelNotFound(model)
    tenant, adapter = found.tenant, found.adapter
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


class _Found(NamedTuple):
    """The tenant with the adapter that a name asks for, and the canary that is ``tried`` beside it."""

    tenant: Tenant
    adapter: Adapter | None
    canary: Canary | None
    tried: Adapter | None


async def _find(session: AsyncSession, tenant_id: str, model: str) -> _Found | None:
    """What a name asks for, in one query; None where the tenant is gone."""
    query = (
        of_tenant(tenant_id)
        .select(Tenant)
        .outerjoin(Canary, and_(Canary.tenant_id == Tenant.id, Tenant.slug == model))
        .outerjoin(Adapter, and_(Adapter.tenant_id == Tenant.id, _wanted(model)))
        .add_columns(Adapter, Canary)
    )
    rows = (await session.execute(query)).all()  # two where a canary is beside what is live
    if not rows:
        return None
    tenant, _, canary = rows[0]
    found: list[Adapter] = [row[1] for row in rows if row[1] is not None]
    if canary is None:
        return _Found(tenant, found[0] if found else None, None, None)
    by_id = {adapter.id: adapter for adapter in found}
    live = by_id.get(tenant.live_adapter_id or "")
    return _Found(tenant, live, canary, by_id.get(canary.adapter_id))


def _wanted(model: str) -> ColumnElement[bool]:
    """The adapters that a name asks for; ``ft:`` names are compared in full later."""
    there = Adapter.state != "deleted"
    if match := VERSIONED.fullmatch(model):
        return and_(there, Tenant.slug == match["slug"], Adapter.version == int(match["version"]))
    if match := FINE_TUNED.fullmatch(model):
        name = f"{match['slug']}.{match['id']}"
        return and_(there, Adapter.engine_name == name, Adapter.state != "unsafe")
    tried = and_(Adapter.id == Canary.adapter_id, Adapter.state != "unsafe")
    return and_(there, Tenant.slug == model, (Adapter.id == Tenant.live_adapter_id) | tried)
