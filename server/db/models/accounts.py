"""People who sign in to the console, their roles in tenants, their sessions and one-time links.

Only ``Membership`` is a tenant's. The others are installation-wide: one person may belong to
several tenants, and an operator to none.
"""

import datetime
from typing import Literal

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Record, SafeString, SafeText, tenant_column

Role = Literal["viewer", "reviewer", "admin"]


class Person(Record):
    """Somebody who may sign in.

    ``email`` is kept in lower case. Without ``password_hash`` (argon2id) a person signs in through
    the issuer of ``oidc_issuer``, who knows them as ``oidc_subject``, or not before they have used a
    one-time link.
    """

    __tablename__ = "person"
    __table_args__ = (UniqueConstraint("oidc_issuer", "oidc_subject"),)

    email: Mapped[str] = mapped_column(SafeString(254), unique=True)
    name: Mapped[str] = mapped_column(SafeText, default="")
    password_hash: Mapped[str | None] = mapped_column(SafeText)
    is_operator: Mapped[bool] = mapped_column(default=False)
    oidc_issuer: Mapped[str | None] = mapped_column(SafeText)
    oidc_subject: Mapped[str | None] = mapped_column(SafeString(255))
    disabled_at: Mapped[datetime.datetime | None]


def person_column() -> Mapped[str]:
    """The column that says which person's a row is; the row is deleted with them."""
    return mapped_column(SafeString(32), ForeignKey("person.id", ondelete="CASCADE"), index=True)


class Membership(Record):
    """What a person may do in a tenant."""

    __tablename__ = "membership"
    __table_args__ = (UniqueConstraint("tenant_id", "person_id"),)

    tenant_id: Mapped[str] = tenant_column()
    person_id: Mapped[str] = person_column()
    role: Mapped[Role] = mapped_column(SafeString(12))


class SignInSession(Record):
    """A browser that is signed in, by the hash of what its cookie holds.

    ``seen_at`` is written every few minutes at most. ``address`` and ``agent`` are of the request
    that signed in.
    """

    __tablename__ = "sign_in_session"

    sha256: Mapped[str] = mapped_column(SafeString(64), unique=True)
    person_id: Mapped[str] = person_column()
    seen_at: Mapped[datetime.datetime]
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(SafeText, default="")
    agent: Mapped[str] = mapped_column(SafeText, default="")


class SignInLink(Record):
    """A link that sets a password and signs in, once, by the hash of what it holds.

    Without ``person_id`` it makes the installation's first operator.
    """

    __tablename__ = "sign_in_link"

    sha256: Mapped[str] = mapped_column(SafeString(64), unique=True)
    person_id: Mapped[str | None] = mapped_column(
        SafeString(32), ForeignKey("person.id", ondelete="CASCADE"), index=True
    )
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
    used_at: Mapped[datetime.datetime | None]


class SignInTry(Record):
    """A password that was tried and was wrong, or is being checked: counted against guessing.

    ``email_sha256`` rather than what was typed, which may be a password in the wrong field.
    """

    __tablename__ = "sign_in_try"

    email_sha256: Mapped[str] = mapped_column(SafeString(64), index=True)
    address: Mapped[str] = mapped_column(SafeString(64), index=True)
