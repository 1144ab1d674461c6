"""The engine as the rest of the server sees it: streams, answers and scores by adapter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from server.engine.adapter_cache import AdapterCache, AdapterRef
from server.engine.backend import CHAT
from server.engine.backends.remote import RemoteEngine
from server.engine.client import EngineClient
from server.engine.connection import EngineConnection, EngineKeeper
from server.engine.figures import EngineFigures
from server.engine.output_monitor import OutputMonitor
from server.engine.output_probe import OutputProbe
from server.engine.process.command import EngineCommand
from server.engine.process.supervisor import EngineStatus, StatusFeed, Supervisor, Timing
from server.errors import Conflict, EngineRejected, EngineUnavailable, StreamBroken

__all__ = ["AdapterRef", "EngineService", "EngineStatus"]

log = structlog.get_logger(__name__)

_NOT_FOUND = 404


class EngineService:
    """One engine for all tenants. Use on one event loop.

    ::

        engine = EngineService(base="qwen3-8b", run=Path("run"), url="unix:/run/engine.sock")
        await engine.start()
        await engine.wait_ready(600)
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        async with engine.stream(body, tenant="acme", adapter=None) as chunks:
            async for chunk in chunks:
                print(chunk)  # JSON of one chat.completion.chunk
        await engine.stop(grace_seconds=5)

    Args:
        base: the base model's name, which requests without an adapter are sent to.
        run: the child process's folder: log, pid file. It is this service's alone.
        command: how to start the engine as a child process, or
        url: where an engine runs already (``http://``, ``https://``, ``unix:PATH``). Exactly one of
            the two is needed.
        timing: how patient the supervision is.
        idle_seconds: longest silence between two chunks of a stream.
        wait_seconds: how long a request may wait for a place for its adapter.
        patience_seconds: how long an adapter may be preferred because it is in flight already.
        probe_seconds: interval between two checks of the base's answers.
        silent_seconds: with requests open and no byte for this long, the output probe asks, and if
            it gets no answer within as long again, the engine counts as hung.
    """

    def __init__(
        self,
        *,
        base: str,
        run: Path,
        command: EngineCommand | None = None,
        url: str = "",
        timing: Timing | None = None,
        idle_seconds: float = 60.0,
        wait_seconds: float = 60.0,
        patience_seconds: float = 1.0,
        probe_seconds: float = 60.0,
        silent_seconds: float = 60.0,
    ) -> None:
        if (command is None) == (not url):
            raise ValueError("give either a command or a url")
        self._base = base
        self._feed = StatusFeed(EngineStatus(choices=tuple(command.choices) if command else ()))
        # Each part knows those before it, and none after it.
        self.client = EngineClient(
            uds=command.uds if command else None, url=url, idle_seconds=idle_seconds
        )
        self._adapters = AdapterCache(
            self.client,
            max_active=command.max_active_adapters if command else 1,
            max_loaded=command.max_loaded_adapters if command else 1,
            patience_seconds=patience_seconds,
            wait_seconds=wait_seconds,
        )
        self._connection = EngineConnection(
            self.client,
            adapters=self._adapters,
            probe=OutputProbe(self.client, base=base, silent_seconds=silent_seconds),
            max_num_seqs=command.max_num_seqs if command else 1,
        )
        timing = timing or Timing()
        self._supervisor: Supervisor | None = None
        self._keeper: EngineKeeper
        if command is not None:
            self._keeper = self._supervisor = Supervisor(
                command, self._connection, run=run, feed=self._feed, timing=timing
            )
        else:
            self._keeper = RemoteEngine(self._connection, feed=self._feed, timing=timing)
        self.figures = EngineFigures(self.client)
        self._monitor = OutputMonitor(
            self._connection,
            feed=self._feed,
            keeper=self._keeper,
            probe_seconds=probe_seconds,
            silent_seconds=silent_seconds,
        )
        self._main: asyncio.Task[None] | None = None
        self._draining = False

    @property
    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        return self._feed.status

    @property
    def base(self) -> str:
        """The base model's name."""
        return self._base

    @property
    def checked_at(self) -> datetime | None:
        """When the engine last gave the answer to the output probe's question."""
        return self._connection.probe.asked_at

    @property
    def can_restart(self) -> bool:
        """Whether this server started the engine, so that it may start it anew."""
        return self._supervisor is not None

    @property
    def draining(self) -> bool:
        """Whether ``stop`` was called: open answers may finish, new requests are refused."""
        return self._draining

    @property
    def requests(self) -> int:
        """Requests in flight, those that wait for their adapter included."""
        return self._connection.requests.count

    @property
    def adapters(self) -> AdapterCache:
        """Which adapters are loaded, in flight and waiting. For reading."""
        return self._adapters

    @property
    def max_num_seqs(self) -> int:
        """Answers that the engine generates at the same time; more would queue inside it."""
        return self._connection.max_num_seqs

    def subscribe(self) -> AsyncIterator[EngineStatus]:
        """The status now and after every change, without end."""
        return self._feed.watch()

    async def start(self) -> None:
        """Start. Returns at once; ``status`` and ``wait_ready`` say when the engine is ready."""
        if self._main is not None:
            raise RuntimeError("the engine service was started already")
        for choice in self.status.choices:
            log.info("engine setting", name=choice.name, value=choice.value, reason=choice.reason)
        self._feed.show(state="starting", detail="starting the process")
        # A TaskGroup cannot outlive the call that enters it. So this one task holds the group of
        # all that runs in the background; what ends it shows in the status and in stop.
        self._main = asyncio.create_task(self._run())  # noqa: TID251

    async def stop(self, *, grace_seconds: float) -> None:
        """Refuse new requests, let open ones finish, break what is left, and end the engine.

        Args:
            grace_seconds: how long open requests may go on.
        """
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._connection.requests.wait_none()
        self._connection.ended("the server is stopping")
        if self._main is not None:
            self._main.cancel()
            with suppress(asyncio.CancelledError):
                await self._main
            self._main = None
        await self.client.close()
        self._feed.show(state="stopped", detail="", pid=None)

    def restart(self, reason: str) -> None:
        """End the engine and start it at once: open answers break, and new ones wait until it is ready.

        Args:
            reason: for the log and the status: who wants it.

        Raises:
            Conflict: the engine is not this server's to start, or the server is stopping.
        """
        if self._supervisor is None:
            raise Conflict(
                "This engine was not started by this server: restart it where it runs.",
                code="engine_not_ours",
            )
        if self._draining or self._main is None:
            raise Conflict("The server is stopping.", code="server_stopping")
        log.warning("engine is restarted", reason=reason)
        self._supervisor.restart(reason)

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Return when requests will be answered.

        Raises:
            EngineUnavailable: the engine is not ready in time, or has failed; the message says why.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                async for status in self.subscribe():
                    if status.state == "ready":
                        return
                    if status.state in ("failed", "stopped"):
                        break
        status = self.status
        raise EngineUnavailable(
            f"the engine is {status.state}: {status.detail or 'no reason known'}",
            retry_after_seconds=status.retry_after_seconds,
        )

    @asynccontextmanager
    async def stream(
        self,
        body: dict[str, Any],
        *,
        tenant: str,
        adapter: AdapterRef | None,
        path: str = CHAT,
        on_begun: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a completion: the payload of each ``data:`` line, without the last [DONE].

        Entering waits for the first payload, so that an error before it is raised here and not
        while iterating. The adapter stays loaded for the whole stream; leaving the context aborts
        the generation.

        Args:
            body: the request, without ``model`` and ``stream``, which are set here.
            tenant: for the log.
            adapter: what to answer with; None for the base.
            path: ``CHAT`` or ``TEXT``: what kind of completion the body asks for.
            on_begun: called when the engine has accepted the request, before the first payload.

        Raises:
            EngineUnavailable: there is no engine for now.
            EngineBusy: no place for this adapter became free.
            EngineRejected: the engine refuses this request.
            AdapterRefused: the engine would not load the adapter.
            StreamBroken: while iterating: the engine stopped in the middle of the answer.
        """
        async with self._request(tenant, adapter) as model:
            asked = {**body, "model": model, "stream": True}
            async with self.client.stream(asked, path=path) as payloads:
                on_begun()
                try:
                    first = await anext(payloads, None)
                except StreamBroken as exc:
                    raise EngineUnavailable(exc.message) from exc
                yield _from_first(first, payloads)

    async def complete(
        self,
        body: dict[str, Any],
        *,
        tenant: str,
        adapter: AdapterRef | None,
        path: str = CHAT,
    ) -> bytes:
        """Return a completion's JSON. Cancelling aborts the generation. Raises as ``stream``."""
        async with self._request(tenant, adapter) as model:
            asked = {**body, "model": model, "stream": False}
            return await self.client.complete(asked, path=path)

    async def score(
        self, token_ids: list[int], *, tenant: str, adapter: AdapterRef | None
    ) -> list[float | None]:
        """Return the log-probability of each token given those before it; None for the first.

        Raises as ``stream``.
        """
        async with self._request(tenant, adapter) as model:
            return await self.client.score(model, token_ids)

    async def dtype(self) -> str:
        """Return the type that the engine computes in; '' where the engine does not say.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        return (await self.client.info()).settings.dtype

    async def forget(self, name: str) -> None:
        """Unload an adapter, now or when its last request ends. Its folder may be deleted then."""
        with suppress(EngineUnavailable):  # an engine that ended has nothing loaded
            await self._adapters.forget(name)

    @asynccontextmanager
    async def _request(self, tenant: str, adapter: AdapterRef | None) -> AsyncIterator[str]:
        """Count a request and lease its adapter. Yields the engine's name for the model."""
        status = self.status
        if self._draining or status.state != "ready":
            state = "stopping" if self._draining else status.state
            raise EngineUnavailable(
                f"the engine is {state}", retry_after_seconds=status.retry_after_seconds
            )
        with self._connection.requests.counted():
            if adapter is None:
                yield self._base
                return
            try:
                async with self._adapters.lease(adapter):
                    yield adapter.name
            except EngineRejected as exc:
                if exc.status != _NOT_FOUND:
                    raise
                log.warning("engine lost an adapter", adapter=adapter.name, tenant=tenant)
                self._adapters.mark_stale(adapter.name)
                raise EngineUnavailable(
                    "the adapter is being loaded again", retry_after_seconds=1.0
                ) from exc

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keeper.supervise())
            group.create_task(self._monitor.run())


async def _from_first(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
        async for payload in rest:
            yield payload
