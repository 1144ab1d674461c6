"""Records of requests whose effect must happen once.

A record is written in the transaction of the request's work. So neither exists without the other,
wherever the server was killed. A repetition that comes while the first request is at work waits for it
and finds its answer.
"""

import datetime

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import IdempotentRequest, now
from server.db.scope import across_tenants, of_tenant
from server.errors import InProgress
from server.tenants import service as tenants

WAIT_SECONDS = 20
LOCK_NOT_AVAILABLE = "55P03"


async def claim(
    session: AsyncSession, tenant_id: str, *, name: str, request_sha256: str
) -> IdempotentRequest:
    """The record of a request, made where there is none, and locked until the transaction ends.

    ``answer`` is None in a new one and in one that has expired: fill it with ``record``.

    Raises:
        NotFound: the tenant is gone.
        InProgress: the same request is still at work after ``WAIT_SECONDS``.
    """
    while True:
        row = IdempotentRequest(
            tenant_id=tenant_id, name=name, request_sha256=request_sha256, expires_at=now()
        )
        if await _insert(session, row):
            return row
        query = of_tenant(tenant_id).select(IdempotentRequest)
        query = query.where(IdempotentRequest.name == name)
        query = query.with_for_update().execution_options(populate_existing=True)
        found = await session.scalar(query)
        if found is None:  # swept between the two statements, or there is no tenant to have it
            await tenants.get_by_id(session, tenant_id)
            continue
        if found.expires_at <= now():
            found.status = found.answer = None
            found.request_sha256 = request_sha256
        return found


def record(
    row: IdempotentRequest, *, status: int, body: bytes, keep: datetime.timedelta, was_repeat: bool
) -> None:
    """Record the answer to a claimed request; ``was_repeat``: its client had sent it before."""
    row.status = status
    row.answer = {"body": body.decode(), "at": now().timestamp(), "was_repeat": was_repeat}
    row.expires_at = now() + keep


async def delete_expired(session: AsyncSession) -> None:
    """Remove the records that have expired."""
    old = across_tenants("a sweep of what has expired").delete(IdempotentRequest)
    await session.execute(old.where(IdempotentRequest.expires_at <= now()))


async def _insert(session: AsyncSession, row: IdempotentRequest) -> bool:
    """Add a record; False where there is one. Waits for another that is adding it now."""
    postgres = (await session.connection()).dialect.name == "postgresql"
    try:
        async with session.begin_nested():
            if postgres:
                await session.execute(text(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'"))
            session.add(row)
            await session.flush()
            if postgres:
                await session.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    except IntegrityError:
        return False
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise InProgress("The same request is still running. Ask again in a moment.") from exc
        raise
    return True
