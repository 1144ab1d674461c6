"""People, and what they may do. A change of that, or of a password, signs the person out."""

import re
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import func, or_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.accounts import sessions
from server.accounts.schemas import MembershipView, PersonView
from server.audit import service as audit
from server.audit.actions import Action
from server.audit.schemas import Subject
from server.db.models import Membership, Person, Role, SignInLink, SignInSession, Tenant, now
from server.db.scope import across_tenants, of_installation, of_tenant
from server.errors import Conflict, Invalid, NotFound

_PART = r"[^@\s\x00-\x1f\x7f<>\"(),:;\\\[\]]+"
_EMAIL = re.compile(f"{_PART}@{_PART}")
MAX_EMAIL = 254
MAX_NAME = 200
CSV_COLUMNS = (
    "email",
    "name",
    "state",
    "operator",
    "roles",
    "signed_in",
    "last_seen_at",
    "created_at",
    "id",
)


def clean_email(text: str) -> str:
    """An e-mail address as it is kept: in lower case.

    Raises:
        Invalid: it is none.
    """
    email = text.strip().lower()
    if not _EMAIL.fullmatch(email) or len(email) > MAX_EMAIL:
        raise Invalid(
            "This is no e-mail address: it should look like name@example.com.", param="email"
        )
    return email


def clean_name(text: str) -> str:
    """A name without space around it.

    Raises:
        Invalid: it is longer than is kept.
    """
    name = " ".join(text.split())
    if len(name) > MAX_NAME:
        raise Invalid(f"A name has at most {MAX_NAME} characters.", param="name")
    return name


async def invite(
    session: AsyncSession,
    email: str,
    *,
    name: str = "",
    is_operator: bool = False,
    tenant: Tenant | None = None,
    role: Role = "viewer",
) -> Person:
    """Add a person, or give one who is there a further role.

    Raises:
        Invalid: this is no e-mail address, or the person would have nothing to do.
        Conflict: the person is disabled.
    """
    if not is_operator and tenant is None:
        raise Invalid("Choose a tenant, or make the person an operator.", param="tenant")
    person = await by_email(session, clean_email(email))
    if person is None:
        person = await add(session, email, name=name)
    elif person.disabled_at is not None:
        raise Conflict(
            f"'{person.email}' is disabled: enable the person first.", code="person_disabled"
        )
    if is_operator:
        await set_operator(session, person, to=True)
    if tenant is not None:
        await set_role(session, person, tenant, role)
    return person


async def add(session: AsyncSession, email: str, *, name: str = "") -> Person:
    """Add a person who may do nothing yet.

    Raises:
        Invalid: this is no e-mail address, or the name is too long.
        Conflict: there is a person with it.
    """
    person = Person(email=clean_email(email), name=clean_name(name))
    try:
        async with session.begin_nested():
            session.add(person)
    except IntegrityError as exc:
        raise Conflict(
            f"There is a person with the e-mail address '{person.email}' already.",
            param="email",
            code="email_taken",
        ) from exc
    audit.record(session, "person.added", tenant_id=None, subject=subject(person))
    return person


def subject(person: Person) -> Subject:
    """A person as the audit log names whom something was done to."""
    return Subject("person", person.id, person.email)


async def get(session: AsyncSession, person_id: str) -> Person:
    """The person of this id; nobody else changes it until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    person = await of_installation().get(session, Person, person_id, lock=True)
    if person is None:
        raise NotFound("This person is gone.", code="person_not_found")
    return person


async def get_by_email(session: AsyncSession, email: str) -> Person:
    """The person with this e-mail address.

    Raises:
        NotFound: there is none.
        Invalid: this is no e-mail address.
    """
    person = await by_email(session, clean_email(email))
    if person is None:
        raise NotFound(f"There is no person '{email}'.", code="person_not_found")
    return person


async def by_email(session: AsyncSession, email: str) -> Person | None:
    """The person with this e-mail address, in the form it is kept in; None where there is none."""
    return await session.scalar(of_installation().select(Person).where(Person.email == email))


async def set_operator(session: AsyncSession, person: Person, *, to: bool) -> None:
    """Make a person an operator, or no longer one.

    Raises:
        Conflict: nobody would be left who may do this.
    """
    if person.is_operator == to:
        return
    if not to:
        await _keep_an_operator(session, person)
    person.is_operator = to
    await session.flush()
    record_operator(session, person)
    await sessions.end_all(session, person.id)


def record_operator(session: AsyncSession, person: Person) -> None:
    """Record that a person became an operator, or is none any more."""
    action: Action = "person.made_operator" if person.is_operator else "person.no_operator"
    audit.record(session, action, tenant_id=None, subject=subject(person))


async def set_role(
    session: AsyncSession, person: Person, tenant: Tenant, role: Role | None
) -> None:
    """Set what a person may do in a tenant; None: nothing."""
    scope = of_tenant(tenant.id)
    known = await session.scalar(
        scope.select(Membership).where(Membership.person_id == person.id).with_for_update()
    )
    before = known.role if known else None
    if before == role:
        return
    if role is None:
        await session.execute(scope.delete(Membership).where(Membership.person_id == person.id))
    elif known is not None:
        known.role = role
    else:
        session.add(Membership(tenant_id=tenant.id, person_id=person.id, role=role))
    await session.flush()
    audit.record(
        session,
        "person.role_changed",
        tenant_id=tenant.id,
        subject=subject(person),
        details={"changes": audit.changes({"role": before}, {"role": role})},
    )
    await sessions.end_all(session, person.id)


async def set_disabled(session: AsyncSession, person: Person, *, to: bool) -> None:
    """Keep a person out, or let them in again. Their links and sessions end.

    Raises:
        Conflict: nobody would be left who may do this.
    """
    if to and person.is_operator:
        await _keep_an_operator(session, person)
    changes = (person.disabled_at is not None) != to
    person.disabled_at = now() if to else None
    await session.flush()
    if changes:
        action: Action = "person.disabled" if to else "person.enabled"
        audit.record(session, action, tenant_id=None, subject=subject(person))
    await session.execute(
        of_installation().delete(SignInLink).where(SignInLink.person_id == person.id)
    )
    await sessions.end_all(session, person.id)


async def sign_out(session: AsyncSession, person_id: str, *, but: str | None = None) -> int:
    """Sign a person out everywhere, except in the session ``but``; returns how many sessions ended.

    Raises:
        NotFound: the person is gone.
    """
    person = await get(session, person_id)
    ended = await sessions.end_all(session, person.id, but=but)
    if ended:
        audit.record(
            session,
            "person.signed_out",
            tenant_id=None,
            subject=subject(person),
            details={"browsers": ended},
        )
    return ended


async def rename(session: AsyncSession, person_id: str, name: str) -> None:
    """Change a person's name.

    Raises:
        Invalid: it is empty, or too long.
        NotFound: the person is gone.
    """
    cleaned = clean_name(name)
    if not cleaned:
        raise Invalid("Write the name that your colleagues should see.", param="name")
    person = await get(session, person_id)
    changed = audit.changes({"name": person.name}, {"name": cleaned})
    person.name = cleaned
    await session.flush()
    if changed:
        audit.record(
            session,
            "person.renamed",
            tenant_id=None,
            subject=subject(person),
            details={"changes": changed},
        )


async def has_operator(session: AsyncSession) -> bool:
    """Whether somebody can sign in who may do everything."""
    query = of_installation().select(Person.id).where(*_OPERATORS).limit(1)
    return await session.scalar(query) is not None


async def list_all(session: AsyncSession) -> list[PersonView]:
    """Everybody, by e-mail address."""
    people = list(await session.scalars(of_installation().select(Person).order_by(Person.email)))
    return await views(session, people)


def to_csv(people: Sequence[PersonView]) -> bytes:
    """People, a line each."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                each.email,
                each.name,
                each.state,
                "yes" if each.is_operator else "no",
                ", ".join(f"{one.slug}: {one.role}" for one in each.memberships),
                each.sessions,
                each.seen_at.isoformat(timespec="seconds") if each.seen_at else None,
                each.created_at.isoformat(timespec="seconds"),
                each.id,
            )
            for each in people
        ),
    )


async def view(session: AsyncSession, person: Person) -> PersonView:
    """A person as pages show them."""
    return (await views(session, [person]))[0]


async def view_of(session: AsyncSession, person_id: str) -> PersonView:
    """The person of this id, as pages show them.

    Raises:
        NotFound: there is none.
    """
    person = await of_installation().get(session, Person, person_id)
    if person is None:
        raise NotFound("This person is gone.", code="person_not_found")
    return await view(session, person)


async def views(session: AsyncSession, people: Sequence[Person]) -> list[PersonView]:
    """People as pages show them, with two queries for all."""
    ids = [person.id for person in people]
    moment = now()
    counts = {
        row.person_id: (row.sessions, row.seen_at)
        for row in await session.execute(
            of_installation()
            .select(
                SignInSession.person_id,
                func.count(SignInSession.id).label("sessions"),
                func.max(SignInSession.seen_at).label("seen_at"),
            )
            .where(
                SignInSession.person_id.in_(ids),
                SignInSession.expires_at > moment,
                SignInSession.seen_at > moment - sessions.IDLE,
            )
            .group_by(SignInSession.person_id)
        )
    }
    memberships: dict[str, list[MembershipView]] = {}
    for row in await session.execute(
        across_tenants("people are listed with all their tenants")
        .select(Membership.person_id, Membership.role, Tenant.slug, Tenant.name)
        .join(Tenant, Tenant.id == Membership.tenant_id)
        .where(Membership.person_id.in_(ids))
        .order_by(Tenant.slug)
    ):
        memberships.setdefault(row.person_id, []).append(
            MembershipView(slug=row.slug, tenant_name=row.name, role=row.role)
        )
    return [
        PersonView(
            id=person.id,
            email=person.email,
            name=person.name,
            is_operator=person.is_operator,
            state=_state(person),
            has_password=person.password_hash is not None,
            has_single_sign_on=person.oidc_subject is not None,
            memberships=memberships.get(person.id, []),
            sessions=counts.get(person.id, (0, None))[0],
            seen_at=counts.get(person.id, (0, None))[1],
            created_at=person.created_at,
        )
        for person in people
    ]


_OPERATORS = (  # who may do everything, and can sign in
    Person.is_operator.is_(True),
    Person.disabled_at.is_(None),
    or_(Person.password_hash.is_not(None), Person.oidc_subject.is_not(None)),
)


async def _keep_an_operator(session: AsyncSession, person: Person) -> None:
    # all are locked, so that two operators cannot remove each other at the same moment
    query = of_installation().select(Person.id).where(*_OPERATORS).order_by(Person.id)
    operators = set(await session.scalars(query.with_for_update()))
    if operators == {person.id}:
        raise Conflict(
            f"'{person.email}' is the only operator who can sign in: make another one first.",
            code="last_operator",
        )


def _state(person: Person) -> Literal["active", "invited", "disabled"]:
    if person.disabled_at is not None:
        return "disabled"
    known = person.password_hash is not None or person.oidc_subject is not None
    return "active" if known else "invited"
