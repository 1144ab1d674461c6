"""Sessions of people who are signed in.

A session ends when it is signed out or revoked, after ``IDLE`` without a request, and ``LONGEST``
after signing in. Each signing in makes a new one; a change of what a person may do, or of their
password, ends those that are open.
"""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import SessionView, Viewer
from server.accounts.tokens import SESSION, digest, form_token, new_token
from server.audit import service as audit
from server.db.models import Membership, Person, SignInSession, now
from server.db.scope import across_tenants, of_installation
from server.errors import NotFound

IDLE = timedelta(hours=12)
LONGEST = timedelta(days=14)
SEEN_EVERY = timedelta(minutes=5)  # how often ``seen_at`` is written
MAX_AGENT = 300  # characters of a browser's name that are kept


async def begin(session: AsyncSession, person: Person, *, address: str, agent: str) -> str:
    """Sign a person in; returns what the cookie holds, which is not kept."""
    token = new_token(SESSION)
    moment = now()
    session.add(
        SignInSession(
            sha256=digest(token),
            person_id=person.id,
            seen_at=moment,
            expires_at=moment + LONGEST,
            address=address,
            agent=agent[:MAX_AGENT],
        )
    )
    await session.flush()
    return token


async def find(session: AsyncSession, token: str) -> tuple[Viewer, bool] | None:
    """Who has this cookie, and whether ``mark_seen`` is due; None where it is good for nothing."""
    query = (
        of_installation()
        .select(SignInSession, Person)
        .join(Person, Person.id == SignInSession.person_id)
        .where(SignInSession.sha256 == digest(token), Person.disabled_at.is_(None))
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        return None
    signed_in, person = found
    moment = now()
    if signed_in.expires_at <= moment or signed_in.seen_at + IDLE <= moment:
        return None
    memberships = await session.execute(
        across_tenants("a person may belong to several tenants")
        .select(Membership.tenant_id, Membership.role)
        .where(Membership.person_id == person.id)
    )
    viewer = Viewer(
        person_id=person.id,
        name=person.name,
        email=person.email,
        is_operator=person.is_operator,
        roles={row.tenant_id: row.role for row in memberships},
        session_id=signed_in.id,
        csrf_token=form_token(token),
    )
    return viewer, signed_in.seen_at + SEEN_EVERY <= moment


async def mark_seen(session: AsyncSession, session_id: str) -> None:
    """Note that a session was used now."""
    used = of_installation().update(SignInSession).where(SignInSession.id == session_id)
    await session.execute(used.values(seen_at=now()))


async def list_for(session: AsyncSession, person_id: str) -> list[SessionView]:
    """A person's sessions that still count, the last used first."""
    moment = now()
    rows = await session.scalars(
        of_installation()
        .select(SignInSession)
        .where(
            SignInSession.person_id == person_id,
            SignInSession.expires_at > moment,
            SignInSession.seen_at > moment - IDLE,
        )
        .order_by(SignInSession.seen_at.desc(), SignInSession.id.desc())
    )
    return [
        SessionView(
            id=row.id,
            address=row.address,
            agent=row.agent,
            seen_at=row.seen_at,
            expires_at=row.expires_at,
            created_at=row.created_at,
        )
        for row in rows
    ]


async def end(session: AsyncSession, session_id: str, *, person_id: str) -> None:
    """Sign one of one's own browsers out.

    Raises:
        NotFound: the person has no such session.
    """
    ended = of_installation().delete(SignInSession).where(SignInSession.id == session_id)
    ended = ended.where(SignInSession.person_id == person_id)
    agents = list(await session.scalars(ended.returning(SignInSession.agent)))
    if not agents:
        raise NotFound("This session has ended already.", code="session_not_found")
    audit.record(session, "sign_in.ended", tenant_id=None, details={"browser": agents[0]})


async def end_replaced(session: AsyncSession, token: str) -> None:
    """End the session of this cookie, if it is one: its browser signs in anew."""
    replaced = of_installation().delete(SignInSession).where(SignInSession.sha256 == digest(token))
    await session.execute(replaced)


async def end_all(session: AsyncSession, person_id: str, *, but: str | None = None) -> int:
    """Sign a person out everywhere, except in the session ``but``; returns how many ended."""
    ended = of_installation().delete(SignInSession).where(SignInSession.person_id == person_id)
    if but is not None:
        ended = ended.where(SignInSession.id != but)
    return len((await session.scalars(ended.returning(SignInSession.id))).all())


async def delete_expired(session: AsyncSession) -> None:
    """Remove the sessions that no longer count."""
    moment = now()
    scope = of_installation()
    await session.execute(scope.delete(SignInSession).where(SignInSession.expires_at <= moment))
    idle = scope.delete(SignInSession).where(SignInSession.seen_at <= moment - IDLE)
    await session.execute(idle)
