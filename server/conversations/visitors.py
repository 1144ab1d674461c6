"""Who writes in a widget.

An anonymous visitor is known by a random token, of which only the hash is kept. An identified one is
known by the subject of a token that the tenant's server signed, and by nothing else: while they are
identified no visitor's token opens their conversations. A name that came unsigned is only a note.
"""

import hashlib
import re
import secrets

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations.schemas import Said
from server.conversations.tokens import Identity, Session, session_expired
from server.db.models import LiveConversation, Visitor, now
from server.db.scope import of_tenant

TOKEN_BYTES = 32
_TOKEN = re.compile(r"[0-9A-Za-z_-]{43}")


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """Who has come. ``row`` is None of an anonymous visitor who never wrote; ``token`` is theirs.

    ``started_anew``: the token that they came with is not good any more.
    """

    row: Visitor | None
    token: str | None
    started_anew: bool

    @property
    def sha256(self) -> str | None:
        """The hash of an anonymous visitor's token."""
        return digest(self.token) if self.token is not None else None

    @property
    def is_identified(self) -> bool:
        """Whether a signed token said who this is."""
        return self.token is None


async def enter(
    session: AsyncSession,
    tenant_id: str,
    *,
    token: str | None,
    identity: Identity | None,
) -> Entered:
    """Find who comes with a visitor's token, an identity, both or neither.

    With both, the anonymous visitor's conversations become the identified one's, and the visitor's token
    is good for nothing from then on.
    """
    known = await _anonymous(session, tenant_id, token, lock=identity is not None)
    if identity is not None:
        return Entered(
            row=await _identified(session, tenant_id, identity, known=known),
            token=None,
            started_anew=False,
        )
    if known is not None:
        return Entered(row=known, token=token, started_anew=False)
    fresh = secrets.token_urlsafe(TOKEN_BYTES)
    return Entered(row=None, token=fresh, started_anew=token is not None)


async def note_said(
    session: AsyncSession, tenant_id: str, entered: Entered, said: Said | None
) -> Entered:
    """Note who an anonymous visitor says they are; nothing is said of an identified one."""
    if said is None or not (said.name or said.email) or entered.sha256 is None:
        return entered
    row = entered.row or await make_anonymous(session, tenant_id, entered.sha256)
    row.said_name = said.name or row.said_name
    row.said_email = said.email or row.said_email
    await session.flush()
    return msgspec.structs.replace(entered, row=row)


async def of_session(
    session: AsyncSession, tenant_id: str, claims: Session, *, lock: bool = False
) -> Visitor | None:
    """The visitor of a session; None of one who never wrote.

    Raises:
        Unauthenticated: they have signed out since, or are gone.
    """
    query = of_tenant(tenant_id).select(Visitor)
    if claims.vis is not None:
        query = query.where(Visitor.id == claims.vis)
    else:
        query = query.where(Visitor.token_sha256 == claims.tok)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = await session.scalar(query)
    if row is None and claims.vis is not None:
        raise session_expired()
    if row is not None and row.signed_out_at is not None:
        since = row.signed_out_at.timestamp()
        if claims.tok is not None or claims.iat <= since:
            raise session_expired()
    return row


async def make_anonymous(session: AsyncSession, tenant_id: str, token_sha256: str) -> Visitor:
    """The row of an anonymous visitor, locked; made where there is none, whoever is faster."""
    row = Visitor(tenant_id=tenant_id, token_sha256=token_sha256)
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        query = of_tenant(tenant_id).select(Visitor).with_for_update()
        query = query.where(Visitor.token_sha256 == token_sha256)
        return (await session.scalars(query)).one()
    return row


async def sign_out(session: AsyncSession, tenant_id: str, claims: Session) -> None:
    """Forget a visitor: their token, and every session that they have now."""
    row = await of_session(session, tenant_id, claims, lock=True)
    if row is not None:
        row.signed_out_at = now()
        await session.flush()


def digest(token: str) -> str:
    """A token's hash, as its row has it."""
    return hashlib.sha256(token.encode()).hexdigest()  # 256 random bits need no slow hash


async def _anonymous(
    session: AsyncSession, tenant_id: str, token: str | None, *, lock: bool
) -> Visitor | None:
    if token is None or not _TOKEN.fullmatch(token):
        return None
    query = of_tenant(tenant_id).select(Visitor)
    query = query.where(Visitor.token_sha256 == digest(token), Visitor.signed_out_at.is_(None))
    return await session.scalar(query.with_for_update() if lock else query)


async def _identified(
    session: AsyncSession, tenant_id: str, identity: Identity, *, known: Visitor | None
) -> Visitor:
    """The row of an identified visitor, which takes over the anonymous one's conversations."""
    scope = of_tenant(tenant_id)
    query = scope.select(Visitor).where(Visitor.subject == identity.subject).with_for_update()
    row = await session.scalar(query)
    if row is None:
        try:
            async with session.begin_nested():
                row = known or Visitor(tenant_id=tenant_id)
                row.subject, row.token_sha256 = identity.subject, None
                session.add(row)
        except IntegrityError:  # another session of theirs was faster
            if known is not None:
                await session.refresh(known)
            row = (await session.scalars(query)).one()
    if known is not None and row is not known:
        moved = scope.update(LiveConversation).where(LiveConversation.visitor_id == known.id)
        # the one that they are looking at stays the current one
        await session.execute(moved.values(visitor_id=row.id, last_at=now()))
        await session.execute(scope.delete(Visitor).where(Visitor.id == known.id))
    row.name, row.email, row.verified_at = identity.name, identity.email, now()
    await session.flush()
    return row
