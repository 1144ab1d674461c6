"""Notes which sites asked for a widget and may not show it."""

import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from server.conversations import retention
from server.conversations.widgets import Site
from server.db.session import Database

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0
MAX_REMEMBERED = 1_000


class Refusals:
    """Writes each origin of a widget once a minute at most, so that asking often costs no writes."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._noted: dict[tuple[str, str], float] = {}

    async def note(self, site: Site, origin: str) -> None:
        """Note a refusal; a database that does not answer is no reason not to refuse."""
        at, key = self._clock(), (site.tenant.id, origin)
        if at - self._noted.get(key, -EVERY_SECONDS) < EVERY_SECONDS:
            return
        if len(self._noted) >= MAX_REMEMBERED:
            self._noted.clear()
        self._noted[key] = at
        try:
            async with self._database.transaction() as session:
                await retention.note_refused(session, site, origin)
        except (SQLAlchemyError, OSError) as exc:
            log.warning("a refused origin was not noted", error=str(exc))
