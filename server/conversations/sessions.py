"""Sessions: made with a nonce from the panel's document, renewed with the one before."""

import time
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import budgets, service, tokens, visitors, widgets
from server.conversations.schemas import RenewRequest, SessionAnswer, SessionRequest
from server.conversations.service import Caller
from server.conversations.tokens import Identity, Nonce, Session
from server.conversations.visitors import Entered
from server.conversations.widgets import Site
from server.db.models import UsedNonce
from server.errors import Unauthenticated
from server.webhooks.vault import Vault


async def by_nonce(
    session: AsyncSession, public_key: str, nonce: str, *, vault: Vault
) -> tuple[Site, Nonce]:
    """The widget of a nonce, and what the nonce says, for ``begin``. Writes nothing.

    Raises:
        NotFound: there is no such widget.
        Unauthenticated: the nonce is too old, or not this widget's.
    """
    site = await widgets.by_key(session, public_key)
    key = widgets.session_key(site.widget, vault)
    return site, tokens.read_nonce(key, public_key, nonce)


async def by_token(
    session: AsyncSession, public_key: str, token: str, *, vault: Vault
) -> tuple[Site, Session]:
    """The widget of a session that may have ended, and the session, for ``renew``. Writes nothing.

    Raises:
        NotFound: there is no such widget.
        Unauthenticated: the session is another widget's.
    """
    site = await widgets.by_key(session, public_key)
    key = widgets.session_key(site.widget, vault)
    return site, tokens.read_session(key, public_key, token, expired=True)


async def caller(
    session: AsyncSession, public_key: str, token: str, *, vault: Vault, client: str | None
) -> Caller:
    """Whose session this is. ``client`` is the caller's IP address. Writes nothing.

    Raises:
        NotFound: there is no such widget.
        Unauthenticated: the session is another widget's, or has ended.
    """
    site = await widgets.by_key(session, public_key)
    key = widgets.session_key(site.widget, vault)
    claims = tokens.read_session(key, public_key, token)
    return Caller(site, claims, budgets.pseudonym(key, client))


async def begin(
    session: AsyncSession,
    site: Site,
    nonce: Nonce,
    request: SessionRequest,
    *,
    vault: Vault,
    client: str | None,
) -> SessionAnswer:
    """Make a session with a nonce, which is good once. ``client`` is an IP address.

    A nonce that came with an identity token that is refused may be used again. One of a preview, which
    is made anew with every change of a setting, costs nothing of the address's budget.

    Raises:
        Unauthenticated: the nonce was used before, or the identity token is refused.
        TooMany: too many sessions from this address.
    """
    key = widgets.session_key(site.widget, vault)
    identity = _identity(site, request.identity, vault)
    if not nonce.is_preview:
        await _spend(session, site, budgets.pseudonym(key, client))
    await _take(session, site, nonce.id)
    entered = await visitors.enter(
        session, site.tenant.id, token=request.visitor, identity=identity
    )
    entered = await visitors.note_said(session, site.tenant.id, entered, request.said)
    moment = time.time()
    identified = moment if entered.is_identified else None
    claims = _claims(site, entered, began=moment, identified=identified)
    return await _answer(session, site, key, claims, entered)


async def renew(
    session: AsyncSession,
    site: Site,
    before: Session,
    request: RenewRequest,
    *,
    vault: Vault,
    client: str | None,
) -> SessionAnswer:
    """Make a session from the one before, for a day after the nonce.

    An anonymous visitor's may have ended, and needs their token too. An identified one's must not have
    ended, and goes on for ``tokens.IDENTIFIED_SECONDS``; a new identity token replaces both.

    Raises:
        Unauthenticated: the session, the visitor's token or the identity token is refused.
        TooMany: too many sessions from this address.
    """
    key = widgets.session_key(site.widget, vault)
    moment = time.time()
    identity = _identity(site, request.identity, vault)
    proven = before.tok is not None and visitors.digest(request.visitor or "") == before.tok
    goes_on = before.vis is not None and (
        before.exp > moment and (before.idt or 0) + tokens.IDENTIFIED_SECONDS > moment
    )
    if before.beg + tokens.CHAIN_SECONDS <= moment or not (identity or proven or goes_on):
        raise tokens.session_expired()
    await _spend(session, site, budgets.pseudonym(key, client))
    if identity is not None:
        own = request.visitor if proven else None
        entered = await visitors.enter(session, site.tenant.id, token=own, identity=identity)
        identified: float | None = moment
    else:
        row = await visitors.of_session(session, site.tenant.id, before)
        own = None if before.vis is not None else request.visitor
        entered, identified = Entered(row=row, token=own, started_anew=False), before.idt
    entered = await visitors.note_said(session, site.tenant.id, entered, request.said)
    claims = _claims(site, entered, began=before.beg, identified=identified)
    return await _answer(session, site, key, claims, entered)


def _identity(site: Site, token: str | None, vault: Vault) -> Identity | None:
    if token is None:
        return None
    keys = widgets.identity_keys(site.widget, vault)
    return tokens.read_identity(token, keys, audience=site.tenant.slug)


def _claims(site: Site, entered: Entered, *, began: float, identified: float | None) -> Session:
    moment = time.time()
    row = entered.row if entered.is_identified else None
    return Session(
        pub=site.widget.public_key,
        iat=moment,
        exp=moment + tokens.SESSION_SECONDS,
        beg=began,
        tok=entered.sha256,
        vis=row.id if row is not None else None,
        idt=identified if row is not None else None,
    )


async def _answer(
    session: AsyncSession, site: Site, key: bytes, claims: Session, entered: Entered
) -> SessionAnswer:
    row = entered.row
    return SessionAnswer(
        session=tokens.make_session(key, claims),
        expires_in=tokens.SESSION_SECONDS,
        visitor=entered.token,
        verified=entered.is_identified,
        name=row.name if row is not None and entered.is_identified else None,
        started_anew=entered.started_anew,
        conversation=await service.of_visitor(session, site, row),
    )


async def _take(session: AsyncSession, site: Site, nonce: str) -> None:
    """Use a nonce up.

    Raises:
        Unauthenticated: it was used before.
    """
    end = datetime.fromtimestamp(time.time() + 2 * tokens.NONCE_SECONDS, UTC)
    row = UsedNonce(tenant_id=site.tenant.id, nonce=nonce, expires_at=end)
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError as exc:
        raise Unauthenticated(
            "The nonce was used already: load the panel anew.", code="nonce_refused"
        ) from exc


async def _spend(session: AsyncSession, site: Site, address: str) -> None:
    budget = budgets.budget(site.budgets, "address_sessions_per_minute", address)
    await budgets.spend(session, site.tenant.id, [budget])
