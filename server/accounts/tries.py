"""Wrong passwords, counted against guessing: per e-mail address and per network address.

A try counts from before its password is checked, so that many at once are no way around it, and for
``WINDOW``. Servers share the counts through the database. Two transactions at the same moment may
both take the last place: the limit is then exceeded by one.
"""

import hashlib
import ipaddress
import math
from datetime import datetime, timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from server.db.models import SignInTry, now
from server.db.scope import of_installation
from server.errors import TooMany

WINDOW = timedelta(minutes=15)
PER_EMAIL = 10
PER_ADDRESS = 50  # people behind one address of an office share it
IPV6_NETWORK = 64  # bits: who has one IPv6 address usually has this many more


async def count(session: AsyncSession, email: str, *, address: str) -> None:
    """Count a try, before the password is looked at.

    Raises:
        TooMany: there were too many of late; says from when on the next one may be made.
    """
    hashed, network = _digest(email), network_of(address)
    moment = now()
    for column, value, limit, whose in (
        (SignInTry.email_sha256, hashed, PER_EMAIL, "with this e-mail address"),
        (SignInTry.address, network, PER_ADDRESS, "from your network"),
    ):
        until = await _full_until(session, column, value, limit=limit, at=moment)
        if value and until is not None:
            seconds = (until - moment).total_seconds()
            raise TooMany(
                f"There were too many wrong passwords {whose}. Try again in "
                f"{_minutes(seconds)}, or ask an operator for a one-time link.",
                retry_after_seconds=seconds,
                code="too_many_tries",
            )
    session.add(SignInTry(email_sha256=hashed, address=network))
    await session.flush()


async def number(session: AsyncSession, email: str) -> int:
    """How many tries with an e-mail address count now, that of now included."""
    query = of_installation().select(func.count(SignInTry.id))
    hashed, since = _digest(email), now() - WINDOW
    query = query.where(SignInTry.email_sha256 == hashed, SignInTry.created_at > since)
    return await session.scalar(query) or 0


async def forget(session: AsyncSession, email: str) -> None:
    """Forget the tries with an e-mail address: somebody knew its password."""
    known = of_installation().delete(SignInTry).where(SignInTry.email_sha256 == _digest(email))
    await session.execute(known)


async def delete_expired(session: AsyncSession) -> None:
    """Remove the tries that no longer count."""
    old = of_installation().delete(SignInTry).where(SignInTry.created_at <= now() - WINDOW)
    await session.execute(old)


def network_of(address: str) -> str:
    """What is counted as one address: an IPv4 address, or an IPv6 network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a unix socket has none
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed.packed, IPV6_NETWORK), strict=False))
    return str(parsed)


async def _full_until(
    session: AsyncSession,
    column: InstrumentedAttribute[str],
    value: str,
    *,
    limit: int,
    at: datetime,
) -> datetime | None:
    """When the next try may be made; None where it may be made now."""
    oldest = await session.scalar(
        of_installation()
        .select(SignInTry.created_at)
        .where(column == value, SignInTry.created_at > at - WINDOW)
        .order_by(SignInTry.created_at.desc())
        .offset(limit - 1)
        .limit(1)
    )
    return None if oldest is None else oldest + WINDOW


def _minutes(seconds: float) -> str:
    minutes = max(1, math.ceil(seconds / 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def _digest(email: str) -> str:
    return hashlib.sha256(email.encode()).hexdigest()
