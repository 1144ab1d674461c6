"""An engine that runs already, reached by its URL: it is used and watched, never started or ended.

For an engine on another machine, or under another service manager (``--engine-url``). It says
itself how many adapters it holds and how many answers it generates at the same time. It may stop
and come back at any time; when it comes back, its answers are compared with those before.
"""

import asyncio
from datetime import UTC, datetime

from server.engine.connection import EngineConnection
from server.engine.process.supervisor import StatusFeed, Timing
from server.errors import EngineRejected, EngineUnavailable


class RemoteEngine:
    """Keeps the status of an engine that runs elsewhere. The counterpart of ``Supervisor``.

    Args:
        connection: the engine; its limits are set to what the engine says of itself.
        feed: where the status is shown.
        timing: how often the engine's health is asked for, and how many misses are allowed.
    """

    def __init__(self, connection: EngineConnection, *, feed: StatusFeed, timing: Timing) -> None:
        self._connection = connection
        self._feed = feed
        self._timing = timing

    async def supervise(self) -> None:
        """Watch until cancelled."""
        misses = 0
        while True:
            await asyncio.sleep(self._timing.health_every if misses else 0)
            up = self._feed.status.state == "ready"
            try:
                await self._connection.health(timeout_seconds=self._timing.health_timeout)
                misses = 1
                if not up and (problem := await self._problem()):
                    self._feed.show(state="failed", detail=f"{problem}; restart that engine")
                elif not up:
                    await self._take_limits()
                    self._feed.show(state="ready", detail="")
            except (EngineUnavailable, EngineRejected) as exc:
                misses += 1
                if not up:
                    self._feed.show(detail=exc.message)
                elif misses > self._timing.health_misses:
                    self.recycle(exc.message)

    def recycle(self, reason: str) -> None:
        """Stop using the engine until it is well, and answers as it did at first."""
        self._feed.show(state="restarting", detail=reason, ended=reason, ended_at=datetime.now(UTC))
        self._connection.ended(reason)

    async def _problem(self) -> str | None:
        """Ask the probe's question: an engine that came up may have answered it before."""
        if self._connection.probe.expected is None:
            await self._connection.prepare()
            return None
        return await self._connection.probe.problem()

    async def _take_limits(self) -> None:
        self._connection.adapters.reset()
        info = await self._connection.backend.info()
        held = info.max_cpu_loras
        self._connection.adapters.set_limits(max_active=held, max_loaded=held)
        self._connection.max_num_seqs = info.settings.max_num_seqs
