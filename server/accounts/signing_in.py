"""The ways to sign in with a password, and with a link that sets one."""

from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import links, passwords, service, sessions, tries
from server.accounts.passwords import Passwords
from server.db.models import Person
from server.db.scope import of_installation
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound

WRONG = "This e-mail address and this password do not belong together."


class SigningIn:
    """Signs people in. What a method returns is for the browser's cookie, and is not kept.

    ``address`` is the browser's network address, ``agent`` what it calls itself, and ``replaces`` what
    its cookie held before: that session ends, so that one which somebody else knows is worth nothing.
    """

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    async def with_password(
        self, email: str, password: str, *, address: str, agent: str, replaces: str = ""
    ) -> str:
        """Sign in who knows a password. For an unknown address the answer is as late as for others.

        Raises:
            Invalid: they do not belong together.
            TooMany: there were too many wrong ones of late.
            Unavailable: too many people sign in at once.
        """
        email = email.strip().lower()
        async with self._database.transaction() as session:
            await tries.count(session, email, address=address)
            person = await service.by_email(session, email)
        known = person.password_hash if person else None
        right = await self._passwords.verify(password, known)
        if person is None or known is None or not right:
            raise _wrong()
        renewed = None
        if self._passwords.is_outdated(known):
            renewed = await self._passwords.hash(password)
        async with self._database.transaction() as session:
            person = await of_installation().get(session, Person, person.id, lock=True)
            if person is None or person.disabled_at is not None or person.password_hash != known:
                raise _wrong()
            person.password_hash = renewed or known
            await tries.forget(session, email)
            await sessions.end_replaced(session, replaces)
            return await sessions.begin(session, person, address=address, agent=agent)

    async def with_link(
        self,
        token: str,
        *,
        email: str,
        name: str,
        password: str,
        address: str,
        agent: str,
        replaces: str = "",
    ) -> str:
        """Use a link: set name and password, and sign in. ``email`` is read for the first operator.

        Raises:
            NotFound: the link is unknown, used or too old.
            Invalid: the password is too short, or the e-mail address is none.
            Conflict: there is an operator already.
        """
        name = service.clean_name(name)
        plain = passwords.check(password)
        async with self._database.reading() as session:
            link = await links.find(session, token)
            if link.person_id is None:
                service.clean_email(email)
                await _refuse_second_operator(session)
        hashed = await self._passwords.hash(plain)
        async with self._database.transaction() as session:
            await links.use(session, token)
            if link.person_id is None:
                person = await _first_operator(session, email)
            else:
                person = await service.get(session, link.person_id)
            if person.disabled_at is not None:
                raise NotFound("This person may not sign in.", code="person_disabled")
            person.password_hash = hashed
            person.name = name or person.name
            await session.flush()
            await sessions.end_all(session, person.id)
            await sessions.end_replaced(session, replaces)
            await tries.forget(session, person.email)
            return await sessions.begin(session, person, address=address, agent=agent)

    async def change_password(
        self, person_id: str, *, current: str, new: str, address: str, agent: str
    ) -> str:
        """Change one's own password: other browsers are signed out, this one gets a new session.

        Raises:
            Invalid: the current password is wrong (``param`` is ``current``), or the new one too
                short.
            TooMany: there were too many wrong ones of late.
        """
        plain = passwords.check(new)
        async with self._database.transaction() as session:
            person = await service.get(session, person_id)
            await tries.count(session, person.email, address=address)
        known = person.password_hash
        # who came through an issuer has none yet
        if known is not None and not await self._passwords.verify(current, known):
            raise Invalid("This is not your current password.", param="current")
        hashed = await self._passwords.hash(plain)
        async with self._database.transaction() as session:
            person = await service.get(session, person_id)
            if person.password_hash != known:
                raise Conflict("The password was changed by somebody else meanwhile.")
            person.password_hash = hashed
            await session.flush()
            await tries.forget(session, person.email)
            await sessions.end_all(session, person.id)
            return await sessions.begin(session, person, address=address, agent=agent)


async def _first_operator(session: AsyncSession, email: str) -> Person:
    await _refuse_second_operator(session)
    person = await service.by_email(session, service.clean_email(email))
    if person is None:
        person = await service.add(session, email)
    person.is_operator = True
    return person


async def _refuse_second_operator(session: AsyncSession) -> None:
    if await service.has_operator(session):
        raise Conflict(
            "This link is for the first operator, and there is one already: ask them to invite you.",
            code="operator_exists",
        )


def _wrong() -> Invalid:
    return Invalid(WRONG, param="password", code="wrong_password")
