"""Keys as people read them: what they may do and their state in words, as lists and as CSV."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.auth.schemas import SCOPE_WORDS
from server.db.models import ApiKey, Tenant, now
from server.db.scope import TenantScope, of_operator, of_tenant
from server.errors import NotFound
from server.settings import Limits

PAGE = 50
SOON = timedelta(days=7)
"""A key that expires within this time says so."""
OPERATOR_WORDS = "Everything, for every tenant"
CSV_COLUMNS = (
    "label",
    "prefix",
    "may",
    "state",
    "created_at",
    "created_by",
    "last_used_at",
    "expires_at",
    "revoked_at",
    "limits",
    "replaces",
    "id",
)
_LIMIT_WORDS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "requests_per_day": "requests a day",
    "tokens_per_day": "tokens a day",
    "concurrent_streams": "at once",
}


class KeyState(msgspec.Struct, frozen=True):
    """What a key's state is called, and how it is shown. ``works``: requests with it are let in."""

    word: str
    tone: Literal["", "ok", "warn"]
    works: bool


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key in a list; ``replaces`` and ``replaced_by`` are the beginnings of the other keys.

    ``last_used_at`` is right to a minute: times of use are written together.
    """

    id: str
    label: str
    prefix: str
    may: str
    state: KeyState
    limits: str
    actor: str | None
    replaces: str
    replaced_by: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


async def list_keys(
    session: AsyncSession,
    tenant: Tenant | None,
    *,
    working: bool = False,
    limit: int = PAGE,
    after: str | None = None,
) -> list[Key]:
    """Keys of a tenant (of the operator where None), newest first, from behind the row ``after`` on.

    ``working`` leaves out those that are revoked or expired.
    """
    scope = _scope_of(tenant)
    query = scope.select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    if after is not None:
        query = query.where(ApiKey.id < after)
    if working:
        query = query.where(
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()),
        )
    return await _views(session, scope, list(await session.scalars(query)))


async def get_key(session: AsyncSession, key_id: str, tenant: Tenant | None) -> Key:
    """One key of a tenant, or of the operator where that is None.

    Raises:
        NotFound: there is no such key here.
    """
    scope = _scope_of(tenant)
    row = await scope.get(session, ApiKey, key_id)
    if row is None:
        raise NotFound(f"There is no key '{key_id}'.", code="key_not_found")
    [found] = await _views(session, scope, [row])
    return found


def limit_words(limits: Limits | None) -> str:
    """A key's own limits in words; an empty text where it has none."""
    given = msgspec.to_builtins(limits or Limits())
    return ", ".join(f"{value:,} {_LIMIT_WORDS[name]}" for name, value in given.items())


def to_csv(keys: Sequence[Key], names: Mapping[str | None, str]) -> bytes:
    """Keys, a line each; ``names`` are of those who made them."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                key.label,
                key.prefix,
                key.may,
                key.state.word,
                _iso(key.created_at),
                names.get(key.actor, ""),
                _iso(key.last_used_at),
                _iso(key.expires_at),
                _iso(key.revoked_at),
                key.limits,
                key.replaces,
                key.id,
            )
            for key in keys
        ),
    )


async def _views(session: AsyncSession, scope: TenantScope, rows: list[ApiKey]) -> list[Key]:
    ids = [row.id for row in rows]
    older = [row.replaces_id for row in rows if row.replaces_id]
    before = scope.select(ApiKey.id, ApiKey.prefix).where(ApiKey.id.in_(older))
    after = scope.select(ApiKey.replaces_id, ApiKey.prefix).where(ApiKey.replaces_id.in_(ids))
    prefixes = {row.id: row.prefix for row in await session.execute(before)}
    newer = {row.replaces_id: row.prefix for row in await session.execute(after)}
    moment = now()
    return [
        Key(
            id=row.id,
            label=row.label,
            prefix=row.prefix,
            may=_may(row),
            state=_state(row, replaced=row.id in newer, moment=moment),
            limits=limit_words(row.limits),
            actor=row.actor,
            replaces=prefixes.get(row.replaces_id or "", ""),
            replaced_by=newer.get(row.id, ""),
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


def _may(row: ApiKey) -> str:
    if row.tenant_id is None:
        return OPERATOR_WORDS
    if "admin" in row.scopes:
        return SCOPE_WORDS["admin"]
    return ", ".join(words for scope, words in SCOPE_WORDS.items() if scope in row.scopes)


def _state(row: ApiKey, *, replaced: bool, moment: datetime) -> KeyState:
    if row.revoked_at is not None:
        return KeyState("Revoked", "", works=False)
    if row.expires_at is not None and row.expires_at <= moment:
        return KeyState("Replaced" if replaced else "Expired", "", works=False)
    if replaced:
        return KeyState("Being replaced", "warn", works=True)
    if row.expires_at is not None and row.expires_at - moment < SOON:
        return KeyState("Expires soon", "warn", works=True)
    return KeyState("Works", "ok", works=True)


def _scope_of(tenant: Tenant | None) -> TenantScope:
    return of_operator() if tenant is None else of_tenant(tenant.id)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
