"""Changes of who answers a tenant's customers: one at a time, each a step with a number of its own."""

from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Canary, Promotion, PromotionKind, Tenant
from server.db.scope import of_tenant
from server.errors import Conflict


async def lock(session: AsyncSession, tenant: Tenant, expected_revision: int | None = None) -> None:
    """Read the tenant's row again, held until the end of the transaction.

    Raises:
        Conflict: who answers was changed since ``expected_revision`` was read.
    """
    await session.refresh(tenant, with_for_update=True)
    if expected_revision not in {None, tenant.live_revision}:
        raise Conflict(
            f"What answers for '{tenant.slug}' was changed meanwhile (revision "
            f"{tenant.live_revision}, not {expected_revision}): look again and repeat.",
            param="expected_revision",
            code="revision_changed",
        )


async def running_canary(session: AsyncSession, tenant: Tenant) -> Canary | None:
    """The tenant's canary at this moment."""
    query = of_tenant(tenant.id).select(Canary).execution_options(populate_existing=True)
    return await session.scalar(query)


async def add_step(
    session: AsyncSession,
    tenant: Tenant,
    *,
    kind: PromotionKind,
    actor: str,
    to_adapter_id: str | None,
    canary_adapter_id: str | None = None,
    canary_percent: int | None = None,
    reason: str | None = None,
) -> Promotion:
    """Take the next step, of a tenant that the caller has locked, and make ``to_adapter_id`` live."""
    step = Promotion(
        tenant_id=tenant.id,
        revision=tenant.live_revision + 1,
        from_adapter_id=tenant.live_adapter_id,
        to_adapter_id=to_adapter_id,
        canary_adapter_id=canary_adapter_id,
        canary_percent=canary_percent,
        kind=kind,
        actor=actor,
        reason=reason,
    )
    session.add(step)
    tenant.live_adapter_id = to_adapter_id
    tenant.live_revision = step.revision
    await session.flush()
    return step
