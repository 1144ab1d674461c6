"""The ways to sign in: with a password, with a link that sets one, and through an issuer."""

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import links, passwords, service, sessions, tries
from server.accounts.oidc import Identity
from server.accounts.passwords import Passwords
from server.accounts.schemas import ROLES
from server.audit import actors
from server.audit import service as audit
from server.audit.actions import Action
from server.audit.schemas import Subject
from server.db.models import Membership, Person, Role, Tenant
from server.db.scope import across_tenants, of_installation
from server.db.session import Database
from server.errors import Conflict, Forbidden, Invalid, NotFound

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
            await self._record_failure(email)
            raise _wrong()
        renewed = None
        if self._passwords.is_outdated(known):
            renewed = await self._passwords.hash(password)
        async with self._database.transaction() as session:
            person = await of_installation().get(session, Person, person.id, lock=True)
            if person is None or person.disabled_at is not None or person.password_hash != known:
                raise _wrong()
            person.password_hash = renewed or known
            failed = await tries.number(session, email) - 1
            await tries.forget(session, email)
            await sessions.end_replaced(session, replaces)
            _record_success(session, person, "password", wrong_passwords_before=max(0, failed))
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
            _record_success(session, person, "one-time link")
            audit.record(
                session, "person.password_set", tenant_id=None, subject=service.subject(person)
            )
            return await sessions.begin(session, person, address=address, agent=agent)

    async def with_identity(
        self,
        identity: Identity,
        *,
        domains: Collection[str],
        link: str = "",
        address: str,
        agent: str,
        replaces: str = "",
    ) -> str:
        """Sign in whom an issuer vouches for.

        The first time a person is found by their e-mail address, which the issuer must have
        verified: if its domain is one of ``domains``, or with the one-time link of that person.

        Raises:
            Forbidden: nobody here is known as this person, or they may not sign in.
            NotFound: the link is unknown, used or too old.
        """
        try:
            return await self._with_identity(
                identity,
                domains=domains,
                link=link,
                address=address,
                agent=agent,
                replaces=replaces,
            )
        except (Forbidden, NotFound):
            actors.act_as(actors.ANONYMOUS)
            await self._record_refusal(identity)
            raise

    async def _with_identity(
        self,
        identity: Identity,
        *,
        domains: Collection[str],
        link: str,
        address: str,
        agent: str,
        replaces: str,
    ) -> str:
        actors.act_as(_ORGANISATION)
        async with self._database.transaction() as session:
            query = of_installation().select(Person).with_for_update()
            person = await session.scalar(
                query.where(
                    Person.oidc_issuer == identity.issuer, Person.oidc_subject == identity.subject
                )
            )
            if person is None:
                person = await _person_of(session, identity, domains=domains, link=link)
                person.oidc_issuer, person.oidc_subject = identity.issuer, identity.subject
            if person.disabled_at is not None:
                raise Forbidden("You may not sign in here any more. Ask an operator.")
            person.name = person.name or identity.name[: service.MAX_NAME]
            await session.flush()
            if identity.roles is not None:
                await _set_roles(session, person, identity.roles)
            await sessions.end_replaced(session, replaces)
            _record_success(session, person, _ORGANISATION.name)
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
            await self._record_failure(person.email)
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
            audit.record(
                session, "person.password_set", tenant_id=None, subject=service.subject(person)
            )
            return await sessions.begin(session, person, address=address, agent=agent)

    async def _record_failure(self, email: str) -> None:
        """Record a wrong password: once in ``tries.WINDOW``, and once more when it was the last try.

        Of addresses that nobody has, the log says nothing: what was typed may be a password.
        """
        async with self._database.transaction() as session:
            person = await service.by_email(session, email)
            subject = service.subject(person) if person else _NOBODY
            count = await tries.number(session, email)
            details = {"tries": count}
            await _record_once(session, "sign_in.failed", subject, details)
            if count >= tries.PER_EMAIL:
                await _record_once(session, "sign_in.blocked", subject, details)

    async def _record_refusal(self, identity: Identity) -> None:
        async with self._database.transaction() as session:
            subject = Subject("person", "", identity.email or identity.subject)
            details = {"issuer": identity.issuer}
            await _record_once(session, "sign_in.refused", subject, details)


_NOBODY = Subject("person", "", "an e-mail address that nobody has")
_ORGANISATION = actors.Actor("system", None, "single sign-on")
"""Who gives roles as the issuer's claims say."""


def _record_success(
    session: AsyncSession, person: Person, way: str, *, wrong_passwords_before: int = 0
) -> None:
    """Record that a person signs in, who acts from now on."""
    actors.act_as(
        actors.person(
            person.id, name=person.name, email=person.email, is_operator=person.is_operator
        )
    )
    details: dict[str, str | int] = {"with": way}
    if wrong_passwords_before:
        details["wrong_passwords_before"] = wrong_passwords_before
    audit.record(session, "sign_in.succeeded", tenant_id=None, details=details)


async def _record_once(
    session: AsyncSession, action: Action, subject: Subject, details: Mapping[str, str | int]
) -> None:
    """Record something that may be repeated without end: once in ``tries.WINDOW``."""
    if not await audit.was_recorded(session, action, subject=subject, within=tries.WINDOW):
        audit.record(session, action, tenant_id=None, subject=subject, details=details)


async def _person_of(
    session: AsyncSession, identity: Identity, *, domains: Collection[str], link: str
) -> Person:
    """Whose account an identity belongs to that was not seen before."""
    email, unknown = identity.email, "Nobody here is known by the account that you signed in with."
    if not email:
        raise Forbidden(
            f"{unknown} Your organisation does not say that it has verified your e-mail address: use "
            "a password, or ask an operator."
        )
    if link:
        found = await links.find(session, link)
        if found.email != email:
            raise Forbidden(
                f"The link is for '{found.email}', and you signed in as '{email}'. Use the account "
                "that was invited, or choose a password."
            )
        await links.use(session, link)
    elif email.rpartition("@")[2] not in domains:
        raise Forbidden(f"{unknown} Ask an operator to invite '{email}', and use the link.")
    person = await service.by_email(session, email) or await service.add(session, email)
    if person.oidc_subject is not None:
        raise Forbidden(
            f"'{email}' belongs to another account of your organisation. Ask an operator for help."
        )
    return person


async def _set_roles(session: AsyncSession, person: Person, wanted: Collection[str]) -> None:
    """Give a person what their organisation says, and take the rest; what is no role is ignored.

    Unlike a change by hand it may take the last operator's role: the organisation decides.
    """
    pairs = [text.rpartition(":") for text in wanted]
    roles: dict[str, Role] = {
        slug: role for slug, _, text in pairs for role in ROLES if slug and role == text
    }
    if person.is_operator != ("operator" in wanted):
        person.is_operator = not person.is_operator
        await session.flush()
        service.record_operator(session, person)
        await sessions.end_all(session, person.id)
    held = set(
        await session.scalars(
            across_tenants("a person may belong to several tenants")
            .select(Tenant.slug)
            .join(Membership, Membership.tenant_id == Tenant.id)
            .where(Membership.person_id == person.id)
        )
    )
    for tenant in await session.scalars(select(Tenant).where(Tenant.slug.in_({*held, *roles}))):
        await service.set_role(session, person, tenant, roles.get(tenant.slug))


async def _first_operator(session: AsyncSession, email: str) -> Person:
    await _refuse_second_operator(session)
    person = await service.by_email(session, service.clean_email(email))
    if person is None:
        person = await service.add(session, email)
    person.is_operator = True
    service.record_operator(session, person)
    return person


async def _refuse_second_operator(session: AsyncSession) -> None:
    if await service.has_operator(session):
        raise Conflict(
            "This link is for the first operator, and there is one already: ask them to invite you.",
            code="operator_exists",
        )


def _wrong() -> Invalid:
    return Invalid(WRONG, param="password", code="wrong_password")
