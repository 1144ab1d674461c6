"""Decides when the output probe asks, and has an engine replaced whose answers are wrong."""

import asyncio
from contextlib import suppress
from time import monotonic

import structlog

from server.engine.connection import EngineConnection, EngineKeeper
from server.engine.process.supervisor import StatusFeed

log = structlog.get_logger(__name__)

NEW_ADAPTER_PAUSE_SECONDS = 2.0  # many new adapters together are checked once


class OutputMonitor:
    """Asks the probe's question after new adapters, at intervals, and when the engine is silent.

    Args:
        keeper: its ``recycle`` is called when the engine must be replaced.
        probe_seconds: interval between two questions while requests come.
        silent_seconds: with requests open and no byte for this long, the probe asks at once.
    """

    def __init__(
        self,
        connection: EngineConnection,
        *,
        feed: StatusFeed,
        keeper: EngineKeeper,
        probe_seconds: float,
        silent_seconds: float,
    ) -> None:
        self._connection = connection
        self._feed = feed
        self._keeper = keeper
        self._probe_seconds = probe_seconds
        self._silent_seconds = silent_seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        backend, requests = self._connection.backend, self._connection.requests
        new_adapter = self._connection.adapters.new_adapter_used
        pause = min(1.0, self._probe_seconds, self._silent_seconds)
        asked_at = monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await new_adapter.wait()
            if self._feed.status.state != "ready":
                await asyncio.sleep(pause)  # the event may stay set, and then nothing above waits
                continue
            now = monotonic()
            silent = requests.count > 0 and now - backend.heard_at > self._silent_seconds
            due = requests.ended_since_probe and now - asked_at > self._probe_seconds
            if not (new_adapter.is_set() or silent or due):
                continue
            if new_adapter.is_set():
                await asyncio.sleep(min(NEW_ADAPTER_PAUSE_SECONDS, self._probe_seconds))
                new_adapter.clear()
            asked_at, requests.ended_since_probe = monotonic(), False
            if problem := await self._connection.probe.problem():
                log.error("engine cannot be trusted", problem=problem)
                self._keeper.recycle(problem)
