"""Who did something, as people read it: ``person:<id>`` is a name, a key is a key."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Person
from server.db.scope import of_installation

_PERSON = "person:"
_KEY = "key:"


async def actor_names(session: AsyncSession, actors: Iterable[str | None]) -> dict[str | None, str]:
    """The names of those who did something, by what records call them; of nobody: an empty text."""
    wanted = {actor for actor in actors if actor}
    ids = [actor.removeprefix(_PERSON) for actor in wanted if actor.startswith(_PERSON)]
    names: dict[str, str] = {}
    if ids:
        query = of_installation().select(Person).where(Person.id.in_(ids))
        names = {person.id: person.name or person.email for person in await session.scalars(query)}
    found: dict[str | None, str] = {None: ""}
    for actor in wanted:
        if actor.startswith(_PERSON):
            found[actor] = names.get(actor.removeprefix(_PERSON), "somebody who is gone")
        else:
            found[actor] = "an API key" if actor.startswith(_KEY) else f"the {actor}"
    return found
