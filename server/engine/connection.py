"""One engine's backend together with the state that begins anew with each start of the engine."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from server.engine.adapter_cache import AdapterCache
from server.engine.backend import EngineBackend
from server.engine.output_probe import OutputProbe
from server.errors import EngineUnavailable


class OpenRequests:
    """Counts the requests at the engine, those that wait for their adapter included."""

    def __init__(self) -> None:
        self.count = 0
        self.ended_since_probe = False
        """Whether a request has ended since the reader last set this to False."""
        self._none_open = asyncio.Event()
        self._none_open.set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one request for the length of the block."""
        self.count += 1
        self._none_open.clear()
        try:
            yield
        finally:
            self.ended_since_probe = True
            self.count -= 1
            if not self.count:
                self._none_open.set()

    async def wait_none(self) -> None:
        """Return when no request is open."""
        await self._none_open.wait()


class EngineConnection:
    """The backend, the adapters that are loaded in it, and its first answer.

    What starts an engine or watches one (``Supervisor``, ``RemoteEngine``) calls ``health`` until
    the engine is well, then ``prepare``, and ``ended`` when the engine is gone.

    Args:
        max_num_seqs: answers that the engine generates at the same time.
    """

    def __init__(
        self,
        backend: EngineBackend,
        *,
        adapters: AdapterCache,
        probe: OutputProbe,
        max_num_seqs: int,
    ) -> None:
        self.backend = backend
        self.adapters = adapters
        self.probe = probe
        self.max_num_seqs = max_num_seqs
        self.requests = OpenRequests()

    async def health(self, *, timeout_seconds: float) -> None:
        """Return when the engine says that it is well; raises EngineUnavailable."""
        await self.backend.health(timeout_seconds=timeout_seconds)

    async def prepare(self) -> None:
        """Make a new engine ready: it must answer the probe's question."""
        await self.probe.record()

    def ended(self, reason: str) -> None:
        """Forget what was loaded; break what is open and reject what waits."""
        self.adapters.reset()
        self.adapters.reject_waiting(EngineUnavailable(reason))
        self.backend.break_streams(reason)


class EngineKeeper(Protocol):
    """Sees to an engine's status: ``Supervisor`` runs a child process, ``RemoteEngine`` watches."""

    async def supervise(self) -> None:
        """Work until cancelled."""

    def recycle(self, reason: str) -> None:
        """The engine cannot be trusted: replace it, or stop using it."""
