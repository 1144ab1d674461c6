"""API keys: random, shown once, kept only as their hash.

``tt_admin_...`` is the operator's, ``tt_...`` a tenant's. The last six characters are a checksum: a
mistyped key, or a text that a scanner takes for one, is recognised without a query.
"""

import hashlib
import re
import secrets
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.schemas import Subject
from server.auth.schemas import SCOPES, KeyRequest, KeyView, RotateRequest, Scope
from server.db.models import ApiKey, Tenant, now
from server.db.scope import TenantScope, across_tenants, of_operator, of_tenant
from server.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from server.settings import Limits

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH = 43  # 62 ** 43 > 2 ** 256
CHECK_LENGTH = 6  # 62 ** 6 > 2 ** 32
KEY = re.compile(
    rf"(tt_(?:admin_)?)([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECK_LENGTH}}})"
)
SHOWN = 8  # characters of the secret, to tell keys apart
RESTORABLE = timedelta(minutes=10)
"""For how long a revoked key can be taken back: time to see that something stopped working."""


class Principal(msgspec.Struct, frozen=True):
    """The caller. Without a tenant it is the operator, who may do everything.

    ``limits`` are the key's own. Where ``tenant_limits`` is None the installation's apply.
    """

    key_id: str
    label: str
    scopes: frozenset[Scope]
    tenant_id: str | None = None
    slug: str | None = None
    expires_at: datetime | None = None
    limits: Limits | None = None
    tenant_limits: Limits | None = None

    @property
    def is_operator(self) -> bool:
        """Whether this is the operator rather than a tenant."""
        return self.tenant_id is None

    @property
    def actor(self) -> str:
        """How records name this caller."""
        return f"key:{self.key_id}"

    def require_tenant(self) -> str:
        """The tenant's id.

        Raises:
            Forbidden: it is the operator, who has no models, files or jobs.
        """
        if self.tenant_id is None:
            raise Forbidden("This belongs to a tenant: use a tenant's key (tt_...).")
        return self.tenant_id

    def may(self, scope: Scope) -> bool:
        """Whether the key has a scope; ``admin`` includes the others."""
        return self.is_operator or scope in self.scopes or "admin" in self.scopes


async def create(
    session: AsyncSession,
    request: KeyRequest,
    *,
    tenant: Tenant | None,
    actor: str | None = None,
) -> tuple[str, ApiKey]:
    """Make a key: of a tenant, or of the operator where that is None. ``actor`` made it.

    Returns the raw key, which is not kept and cannot be shown again, and its row.

    Raises:
        Invalid: ``expires_at`` is in the past.
    """
    if request.expires_at is not None and request.expires_at <= now():
        raise Invalid("expires_at is in the past.", param="expires_at")
    raw, row = _make(
        operator=tenant is None,
        tenant_id=tenant.id if tenant else None,
        label=request.label,
        scopes=sorted(set(request.scopes)) if tenant else list(SCOPES),
        expires_at=request.expires_at,
        limits=request.limits,
        actor=actor,
    )
    session.add(row)
    await session.flush()
    audit.record(
        session,
        "key.created",
        tenant_id=row.tenant_id,
        subject=_subject(row),
        details={"scopes": row.scopes, "expires_at": row.expires_at, "limits": row.limits},
    )
    return raw, row


async def list_for(session: AsyncSession, tenant: Tenant | None) -> list[ApiKey]:
    """The keys of a tenant (of the operator where None), newest first, revoked ones included."""
    query = _scope_of(tenant).select(ApiKey).order_by(ApiKey.id.desc())
    return list(await session.scalars(query))


async def rotate(
    session: AsyncSession,
    key_id: str,
    request: RotateRequest,
    *,
    tenant: Tenant | None,
    actor: str | None = None,
) -> tuple[str, ApiKey]:
    """Replace a key by one that may do the same; the old one works until the overlap is over.

    Without ``request.expires_at`` the new key expires when the old one would have.

    Raises:
        NotFound: this tenant has no such key.
        Conflict: it is revoked or expired, or was replaced already.
        Invalid: the new key's ``expires_at`` is in the past.
    """
    old = await _get(session, key_id, tenant, lock=True)
    moment = now()
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= moment):
        raise Conflict("This key does not work any more: make a new one.", code="key_not_active")
    replacing = _scope_of(tenant).select(ApiKey.id).where(ApiKey.replaces_id == old.id)
    newer = await session.scalar(replacing)
    if newer is not None:
        raise Conflict(
            f"This key was replaced already, by '{newer}': rotate that one.",
            code="key_already_rotated",
        )
    expires_at = old.expires_at if request.expires_at is msgspec.UNSET else request.expires_at
    if expires_at is not None and expires_at <= moment:
        raise Invalid("expires_at is in the past.", param="expires_at")
    raw, new = _make(
        operator=tenant is None,
        tenant_id=old.tenant_id,
        label=old.label,
        scopes=old.scopes,
        limits=old.limits,
        replaces_id=old.id,
        expires_at=expires_at,
        actor=actor,
    )
    end = moment + timedelta(seconds=request.overlap_seconds)
    old.expires_at = end if old.expires_at is None else min(old.expires_at, end)
    session.add(new)
    await session.flush()
    audit.record(
        session,
        "key.rotated",
        tenant_id=old.tenant_id,
        subject=_subject(old),
        details={"new_key": new.prefix, "old_key_ends_at": old.expires_at},
    )
    return raw, new


async def revoke(session: AsyncSession, key_id: str, *, tenant: Tenant | None) -> ApiKey:
    """Make a key invalid from now on. Revoking it again changes nothing.

    Raises:
        NotFound: this tenant has no such key.
    """
    row = await _get(session, key_id, tenant)
    if row.revoked_at is None:
        row.revoked_at = now()
        await session.flush()
        audit.record(session, "key.revoked", tenant_id=row.tenant_id, subject=_subject(row))
    return row


async def restore(session: AsyncSession, key_id: str, *, tenant: Tenant | None) -> ApiKey:
    """Take back that a key was revoked, within ``RESTORABLE``. One that was not stays as it is.

    Raises:
        NotFound: this tenant has no such key.
        Conflict: it was revoked longer ago.
    """
    row = await _get(session, key_id, tenant, lock=True)
    if not is_restorable(row.revoked_at):
        raise Conflict(
            "This key was revoked too long ago to be taken back: make a new one.",
            code="key_not_restorable",
        )
    if row.revoked_at is not None:
        row.revoked_at = None
        await session.flush()
        audit.record(session, "key.restored", tenant_id=row.tenant_id, subject=_subject(row))
    return row


def is_restorable(revoked_at: datetime | None) -> bool:
    """Whether ``restore`` can still take this back."""
    return revoked_at is None or now() - revoked_at <= RESTORABLE


async def authenticate(session: AsyncSession, raw: str) -> Principal:
    """The caller with this raw key, by one query on its hash.

    Raises:
        Unauthenticated: the key is unknown, revoked or expired; the message is the same.
    """
    if is_well_formed(raw):
        query = (
            across_tenants("a key's hash tells whose it is")
            .select(ApiKey, Tenant.slug, Tenant.limits)
            .outerjoin(Tenant, ApiKey.tenant_id == Tenant.id)
            .where(ApiKey.sha256 == _digest(raw))
        )
        found = (await session.execute(query)).one_or_none()
        if found is not None:
            row, slug, tenant_limits = found
            expired = row.expires_at is not None and row.expires_at <= now()
            if row.revoked_at is None and not expired:
                return Principal(
                    key_id=row.id,
                    label=row.label,
                    scopes=frozenset(scope for scope in SCOPES if scope in row.scopes),
                    tenant_id=row.tenant_id,
                    slug=slug,
                    expires_at=row.expires_at,
                    limits=row.limits,
                    tenant_limits=tenant_limits,
                )
    raise Unauthenticated(
        "Incorrect API key provided. Keys begin with tt_ and are made with `tenantune keys create`."
    )


async def mark_used(session: AsyncSession, used: Mapping[str, datetime]) -> None:
    """Record when keys were last used; never moves a time back."""
    for key_id, at in used.items():
        await session.execute(
            across_tenants("times of use are written together")
            .update(ApiKey)
            .where(ApiKey.id == key_id)
            .where(or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at))
            .values(last_used_at=at, updated_at=ApiKey.updated_at)
        )


def require(principal: Principal, scope: Scope) -> None:
    """Check a scope.

    Raises:
        Forbidden: the key lacks it.
    """
    if not principal.may(scope):
        raise Forbidden(f"This needs a key with the scope '{scope}'.")


def generate(*, operator: bool) -> str:
    """A new raw key."""
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    start = "tt_admin_" if operator else "tt_"
    return start + secret + _checksum(start + secret)


def is_well_formed(raw: str) -> bool:
    """Whether this could be one of our keys: its form and its checksum are right."""
    match = KEY.fullmatch(raw)
    return match is not None and _checksum(match[1] + match[2]) == match[3]


def view(row: ApiKey) -> KeyView:
    """A key as the API shows it."""
    return KeyView(
        id=row.id,
        prefix=row.prefix,
        label=row.label,
        scopes=row.scopes,
        replaces_id=row.replaces_id,
        limits=row.limits,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        created_at=row.created_at,
    )


def _make(*, operator: bool, **fields: Any) -> tuple[str, ApiKey]:  # noqa: ANN401 - columns
    raw = generate(operator=operator)
    prefix = raw[: raw.rindex("_") + 1 + SHOWN]
    return raw, ApiKey(prefix=prefix, sha256=_digest(raw), **fields)


def _subject(row: ApiKey) -> Subject:
    return Subject("key", row.id, f"{row.label} ({row.prefix}...)" if row.label else row.prefix)


async def _get(
    session: AsyncSession, key_id: str, tenant: Tenant | None, *, lock: bool = False
) -> ApiKey:
    row = await _scope_of(tenant).get(session, ApiKey, key_id, lock=lock)
    if row is None:
        raise NotFound(f"There is no key '{key_id}'.", code="key_not_found")
    return row


def _scope_of(tenant: Tenant | None) -> TenantScope:
    return of_operator() if tenant is None else of_tenant(tenant.id)


def _digest(raw: str) -> str:
    # 256 random bits need no slow hash
    return hashlib.sha256(raw.encode()).hexdigest()


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = []
    for _ in range(CHECK_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
