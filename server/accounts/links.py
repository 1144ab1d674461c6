"""One-time links: they let a person choose a password, and sign them in."""

from datetime import timedelta

import msgspec
from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import service
from server.accounts.tokens import LINK, digest, new_token
from server.audit import service as audit
from server.db.models import Person, SignInLink, now
from server.db.scope import of_installation
from server.errors import Conflict, NotFound
from server.settings import Settings

FIRST_OPERATOR = timedelta(minutes=30)
LOST_PASSWORD = timedelta(minutes=30)
INVITATION = timedelta(days=3)

_GONE = (
    "This link was used already, or is too old. Ask an operator for a new one; on the server, "
    "`tenantune people link EMAIL` makes one."
)


class OpenLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link that can be used. Without a person it makes the first operator."""

    person_id: str | None
    email: str
    name: str


def url_of(settings: Settings, token: str) -> str:
    """The address that a person opens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    base = settings.public_url.rstrip("/") or f"http://{host}:{settings.port}"
    return f"{base}/console/link/{token}"


async def make(session: AsyncSession, person: Person, *, valid: timedelta) -> str:
    """A new link of a person, which replaces those before it; returns its secret, which is not kept.

    Raises:
        Conflict: the person may not sign in.
    """
    if person.disabled_at is not None:
        raise Conflict(
            f"'{person.email}' is disabled: enable the person first.", code="person_disabled"
        )
    earlier = of_installation().delete(SignInLink).where(SignInLink.person_id == person.id)
    await session.execute(earlier)
    audit.record(
        session,
        "person.link_made",
        tenant_id=None,
        subject=service.subject(person),
        details={"valid_until": now() + valid},
    )
    return await _add(session, person.id, valid=valid)


async def make_first(session: AsyncSession) -> str:
    """A link that makes the first operator. Several may be open: each server prints its own."""
    return await _add(session, None, valid=FIRST_OPERATOR)


async def find(session: AsyncSession, token: str) -> OpenLink:
    """What a link is for.

    Raises:
        NotFound: it is unknown, used or too old.
    """
    row = await session.scalar(
        of_installation()
        .select(SignInLink)
        .where(
            SignInLink.sha256 == digest(token),
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > now(),
        )
    )
    if row is None:
        raise NotFound(_GONE, code="link_not_found")
    person = await of_installation().get(session, Person, row.person_id)
    return OpenLink(
        person_id=row.person_id,
        email=person.email if person else "",
        name=person.name if person else "",
    )


async def use(session: AsyncSession, token: str) -> None:
    """Make a link useless; of two who use it at the same time one comes too late.

    Raises:
        NotFound: it is unknown, used or too old.
    """
    used = (
        of_installation()
        .update(SignInLink)
        .where(
            SignInLink.sha256 == digest(token),
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > now(),
        )
    )
    if await session.scalar(used.values(used_at=now()).returning(SignInLink.id)) is None:
        raise NotFound(_GONE, code="link_not_found")


async def delete_expired(session: AsyncSession) -> None:
    """Remove the links that nobody can use."""
    useless = or_(SignInLink.expires_at <= now(), SignInLink.used_at.is_not(None))
    await session.execute(of_installation().delete(SignInLink).where(useless))


async def _add(session: AsyncSession, person_id: str | None, *, valid: timedelta) -> str:
    token = new_token(LINK)
    link = SignInLink(sha256=digest(token), person_id=person_id, expires_at=now() + valid)
    session.add(link)
    await session.flush()
    return token
