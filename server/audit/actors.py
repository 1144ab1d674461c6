"""Who acts: set where somebody comes in, read where something is recorded.

    with acting(COMMAND_LINE): ...                  # a door: for all that is done within
    act_as(Actor("person", viewer.person_id, ...))  # a guard: who that was, from now on

A task that is started within has the same actor. Outside of all doors it is the system.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from server.db.models import ActorKind


class Actor(msgspec.Struct, frozen=True):
    """Who did something, by the name of that time. ``anonymous``: a caller who has not signed in."""

    kind: ActorKind
    id: str | None = None
    name: str = ""
    is_operator: bool = False

    @property
    def reference(self) -> str:
        """How other records name this caller, as ``Viewer.actor`` and ``Principal.actor`` do."""
        match self.kind:
            case "person":
                return f"person:{self.id}"
            case "key" | "operator_key":
                return f"key:{self.id}"
            case _:
                return self.name


SYSTEM = Actor("system", None, "system")
ANONYMOUS = Actor("anonymous")
WORKER = Actor("worker", None, "worker")
COMMAND_LINE = Actor("command_line", None, "command line")


class Circumstances(msgspec.Struct, frozen=True):
    """Who acts, and from where: the request's id and its client's network address, if there is one."""

    actor: Actor = SYSTEM
    request_id: str = ""
    address: str = ""


_current: ContextVar[Circumstances] = ContextVar("circumstances", default=Circumstances())  # noqa: B039 - frozen


@contextmanager
def acting(actor: Actor, *, request_id: str = "", address: str = "") -> Iterator[None]:
    """Within the block this actor acts, or whom ``act_as`` names."""
    token = _current.set(Circumstances(actor, request_id, address))
    try:
        yield
    finally:
        _current.reset(token)


def act_as(actor: Actor) -> None:
    """From now on this actor acts, to the end of the block around it."""
    _current.set(msgspec.structs.replace(_current.get(), actor=actor))


def circumstances() -> Circumstances:
    """Who acts now, and from where."""
    return _current.get()


def person(person_id: str, *, name: str, email: str, is_operator: bool = False) -> Actor:
    """A person, by name and e-mail address."""
    return Actor("person", person_id, f"{name} ({email})" if name else email, is_operator)


def named(reference: str) -> Actor:
    """The actor whom other records name so; ``job ...`` is the worker's."""
    kind, colon, found = reference.partition(":")
    if colon and kind == "person":
        return Actor("person", found)
    if colon and kind == "key":
        return Actor("key", found)
    if reference == COMMAND_LINE.name:
        return COMMAND_LINE
    if reference.startswith("job "):
        return Actor("worker", reference.split()[1], reference)
    return Actor("system", None, reference)
