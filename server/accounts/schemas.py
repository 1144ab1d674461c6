"""Who is signed in, and what the pages and commands about people take and give."""

from typing import get_args

import msgspec

from server.db.models import Role
from server.schemas import Moment

ROLES: tuple[Role, ...] = get_args(Role)  # each includes those before it


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """The person who is signed in.

    ``roles`` are by tenant id. ``session_id`` is the row's id, not the secret in the cookie, and
    ``csrf_token`` what every form of this session must send back.
    """

    person_id: str
    name: str
    email: str
    is_operator: bool
    roles: dict[str, Role]
    session_id: str
    csrf_token: str

    @property
    def actor(self) -> str:
        """How records name this caller."""
        return f"person:{self.person_id}"

    def may(self, tenant_id: str, role: Role) -> bool:
        """Whether the person has a role in a tenant, or one that includes it."""
        if self.is_operator:
            return True
        mine = self.roles.get(tenant_id)
        return mine is not None and ROLES.index(mine) >= ROLES.index(role)


class MembershipView(msgspec.Struct, frozen=True, kw_only=True):
    """A role in a tenant."""

    slug: str
    tenant_name: str
    role: Role


class PersonView(msgspec.Struct, frozen=True, kw_only=True):
    """A person, without secrets.

    ``state``: ``invited`` has never set a password or signed in; ``disabled`` may not sign in.
    ``seen_at``: when one of their sessions that still count was last used.
    """

    id: str
    email: str
    name: str
    is_operator: bool
    state: str
    has_password: bool
    has_single_sign_on: bool
    memberships: list[MembershipView]
    sessions: int
    seen_at: Moment | None
    created_at: Moment


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that is signed in. ``address`` and ``agent`` are of the request that signed in."""

    id: str
    address: str
    agent: str
    seen_at: Moment
    expires_at: Moment
    created_at: Moment
