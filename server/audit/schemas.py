"""What is recorded, and how the audit log is filtered and shown."""

from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.audit.actions import Group, SubjectKind
from server.db.models import ActorKind
from server.schemas import Moment


class Subject(msgspec.Struct, frozen=True):
    """What something was done to, by the name of that time."""

    kind: SubjectKind
    id: str
    name: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries: all of these conditions together.

    ``by``: a part of the actor's name, whatever its case, or the whole id. ``first`` and ``last`` are
    UTC days, both included.
    """

    by: str = ""
    group: Group | None = None
    first: date | None = None
    last: date | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it lets everything through."""
        return self == Filter()


class ActorView(msgspec.Struct, frozen=True):
    """Who did it. ``name`` is that of the time; ``id`` is of a person, a key, or a worker's job.

    To a tenant's people and keys an operator is an ``operator`` without a name or an id of their own.
    """

    kind: ActorKind | Literal["operator"]
    id: str | None
    name: str


class SubjectView(msgspec.Struct, frozen=True):
    """What it was done to, by the name of the time."""

    kind: str
    id: str
    name: str


class AuditEntryView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the audit log. ``tenant`` is null where it is of the installation.

    ``details`` depend on the action. ``changes`` among them lists fields with their ``old`` and ``new``
    values; a text that is private, such as the system prompt, has neither.
    """

    id: str
    created_at: Moment
    tenant: str | None
    actor: ActorView
    action: Annotated[str, Meta(description="such as `key.created`")]
    text: Annotated[str, Meta(description="the whole of it as a sentence, in English")]
    subject: SubjectView | None
    details: dict[str, Any]
    request_id: str | None
    address: Annotated[
        str | None, Meta(description="the client's network address; null where that is not told")
    ]
