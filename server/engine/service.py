"""The engine as the rest of the server sees it: streams, answers and scores by adapter.

Behind it: one engine, either a child process that is supervised, or one that somebody else runs at
a URL; which adapters are loaded; and a watch over whether its answers can still be trusted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import structlog

from server.engine.adapter_cache import AdapterCache, AdapterRef
from server.engine.client import CHAT, EngineClient
from server.engine.output_probe import OutputProbe
from server.engine.process.command import EngineCommand
from server.engine.process.supervisor import EngineStatus, StatusFeed, Supervisor, Timing
from server.errors import EngineRejected, EngineUnavailable, StreamBroken

__all__ = ["AdapterRef", "EngineService", "EngineStatus"]

log = structlog.get_logger(__name__)

FRESH_PAUSE_SECONDS = 2.0  # many new adapters together are checked once
_NOT_FOUND = 404


class EngineService:
    """One engine for all tenants. Use on one event loop.

    Give ``command`` to have a child process in ``run`` (its log, pid file), or ``url`` for an
    engine that runs elsewhere, which then tells its limits itself.
    ``silent_seconds``: with requests open and no byte for so long, the canary must answer within
    as long again, or the engine counts as hung.
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
        canary_seconds: float = 60.0,
        silent_seconds: float = 60.0,
    ) -> None:
        if (command is None) == (not url):
            raise ValueError("give either a command or a url")
        self._base = base
        self._timing = timing or Timing()
        self._canary_seconds = canary_seconds
        self._silent_seconds = silent_seconds
        self._board = StatusFeed(EngineStatus(choices=tuple(command.choices) if command else ()))
        if command is not None:
            self.client = EngineClient(uds=command.uds, idle_seconds=idle_seconds)
        else:
            self.client = EngineClient(url=url, idle_seconds=idle_seconds)
        self._residency = AdapterCache(
            load=lambda ref: self.client.ensure(ref.name, ref.path),
            unload=self.client.drop,
            concurrent=command.concurrent_adapters if command else 1,
            resident=command.resident_adapters if command else 1,
            patience_seconds=patience_seconds,
            wait_seconds=wait_seconds,
            on_fresh=lambda _: self._check_soon.set(),
        )
        self._canary = OutputProbe(base, self.client.complete)
        self._check_soon = asyncio.Event()
        self._supervisor = command and Supervisor(
            command,
            run=run,
            board=self._board,
            health=lambda seconds: self.client.health(timeout_seconds=seconds),
            prepare=self._canary.record,
            gone=self._gone,
            timing=self._timing,
        )
        self._sequences = command.sequences if command else 1
        self._main: asyncio.Task[None] | None = None
        self._draining = False
        self._requests = 0
        self._unchecked = False  # requests have ended since the canary was last asked
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        return self._board.status

    @property
    def draining(self) -> bool:
        """Whether ``stop`` was called: open answers may finish, new requests are refused."""
        return self._draining

    @property
    def requests(self) -> int:
        """Requests in flight, those that wait for their adapter included."""
        return self._requests

    @property
    def residency(self) -> AdapterCache:
        """Which adapters are loaded, in flight and waiting; to look at."""
        return self._residency

    @property
    def sequences(self) -> int:
        """Answers that the engine generates at once; more would wait inside it, first come first."""
        return self._sequences

    def subscribe(self) -> AsyncIterator[EngineStatus]:
        """The status now and after every change, without end."""
        return self._board.watch()

    async def start(self) -> None:
        """Begin; returns at once. ``status`` and ``wait_ready`` tell how it goes."""
        if self._main is not None:
            raise RuntimeError("the engine service was started already")
        for choice in self.status.choices:
            log.info("engine setting", name=choice.name, value=choice.value, reason=choice.reason)
        self._board.show(state="starting", detail="starting the process")
        # A TaskGroup cannot outlive the call that enters it. Everything in the background hangs
        # off this one task, which holds the group; what ends it shows in the status and in stop.
        self._main = asyncio.create_task(self._run())  # noqa: TID251

    async def stop(self, *, grace_seconds: float) -> None:
        """Take no new request, let open ones finish for so long, break the rest, end the engine."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        self._gone("the server is stopping")
        if self._main is not None:
            self._main.cancel()
            with suppress(asyncio.CancelledError):
                await self._main
            self._main = None
        await self.client.close()
        self._board.show(state="stopped", detail="", pid=None)

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Return when requests will be answered.

        Raises:
            EngineUnavailable: not within the time, or the engine has failed for good reasons that
                are in the message.
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

        ``path``: the client's ``CHAT`` or ``TEXT``, which says what the body is. ``on_begun`` is
        called when the engine has taken the request, before there is anything of the answer.

        Entering waits for the first payload, so that whatever goes wrong before it is an ordinary
        error. The adapter is held for the whole stream; leaving the context aborts generation.

        Raises:
            EngineUnavailable: there is no engine for now.
            EngineBusy: no place for this adapter became free.
            EngineRejected: the engine refuses this request.
            AdapterRefused: the engine would not load the adapter.
            StreamBroken: (while iterating) the engine stopped in the middle of the answer.
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
        """A completion's JSON. Cancelling the task aborts generation. Raises as ``stream``."""
        async with self._request(tenant, adapter) as model:
            asked = {**body, "model": model, "stream": False}
            return await self.client.complete(asked, path=path)

    async def score(
        self, token_ids: list[int], *, tenant: str, adapter: AdapterRef | None
    ) -> list[float | None]:
        """Log-probability of each token given those before it (None first). Raises as ``stream``."""
        async with self._request(tenant, adapter) as model:
            return await self.client.score(model, token_ids)

    async def dtype(self) -> str:
        """The type that the engine computes in; '' where it does not say.

        Raises:
            EngineUnavailable: it is not there.
        """
        return (await self.client.info()).settings.dtype

    async def forget(self, name: str) -> None:
        """Unload an adapter, now or when its last request ends. Its folder may go after that."""
        with suppress(EngineUnavailable):  # an engine that is gone has forgotten it
            await self._residency.forget(name)

    @asynccontextmanager
    async def _request(self, tenant: str, adapter: AdapterRef | None) -> AsyncIterator[str]:
        """Count a request and hold its adapter; yields the engine's name for the model."""
        status = self.status
        if self._draining or status.state != "ready":
            state = "stopping" if self._draining else status.state
            raise EngineUnavailable(
                f"the engine is {state}", retry_after_seconds=status.retry_after_seconds
            )
        self._requests += 1
        self._idle.clear()
        try:
            if adapter is None:
                yield self._base
            else:
                async with self._residency.lease(adapter):
                    yield adapter.name
        except EngineRejected as exc:
            if adapter is None or exc.status != _NOT_FOUND:
                raise
            log.warning("engine lost an adapter", adapter=adapter.name, tenant=tenant)
            self._residency.mark_stale(adapter.name)
            raise EngineUnavailable(
                "the adapter is being loaded again", retry_after_seconds=1.0
            ) from exc
        finally:
            self._unchecked = True
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    def _gone(self, reason: str) -> None:
        self._residency.reset()
        self._residency.reject_waiting(EngineUnavailable(reason))
        self.client.break_streams(reason)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._supervisor:
                group.create_task(self._supervisor.supervise())
            else:
                group.create_task(self._look_after_url())
            group.create_task(self._watch_answers())

    async def _look_after_url(self) -> None:
        """State of an engine that somebody else runs."""
        misses = 0
        while True:
            await asyncio.sleep(self._timing.health_every if misses else 0)
            up = self.status.state == "ready"
            try:
                await self.client.health(timeout_seconds=self._timing.health_timeout)
                misses = 1
                if not up and (problem := await self._first_question()):
                    self._board.show(state="failed", detail=f"{problem}; restart that engine")
                elif not up:
                    self._residency.reset()
                    info = await self.client.info()
                    places = info.max_cpu_loras
                    self._residency.limit(concurrent=places, resident=places)
                    self._sequences = info.settings.max_num_seqs
                    self._board.show(state="ready", detail="")
            except (EngineUnavailable, EngineRejected) as exc:
                misses += 1
                if not up:
                    self._board.show(detail=exc.message)
                elif misses > self._timing.health_misses:
                    self._board.show(state="restarting", detail=exc.message)
                    self._gone(exc.message)

    async def _first_question(self) -> str | None:
        """Ask an engine that came up at a URL, where an earlier answer may be known."""
        if self._canary.expected is None:
            await self._canary.record()
            return None
        return await self._check()

    async def _watch_answers(self) -> None:
        """Check the base's answer now and then, after new adapters, and when all is silent."""
        checked_at = monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, self._canary_seconds, self._silent_seconds)):
                    await self._check_soon.wait()
            now = monotonic()
            silent = self._requests > 0 and now - self.client.heard_at > self._silent_seconds
            due = self._unchecked and now - checked_at > self._canary_seconds
            if self.status.state != "ready" or not (self._check_soon.is_set() or silent or due):
                continue
            if self._check_soon.is_set():
                await asyncio.sleep(min(FRESH_PAUSE_SECONDS, self._canary_seconds))
                self._check_soon.clear()
            checked_at, self._unchecked = monotonic(), False
            if problem := await self._check():
                log.error("engine cannot be trusted", problem=problem)
                if self._supervisor:
                    self._supervisor.recycle(problem)
                else:  # the health loop asks again, and says what to do
                    self._board.show(state="restarting", detail=problem)
                    self._gone(problem)

    async def _check(self) -> str | None:
        """What is wrong with the engine's answers, if anything."""
        began = monotonic()
        try:
            async with asyncio.timeout(self._silent_seconds):
                answer = await self._canary.check()
        except TimeoutError:
            if self.client.heard_at > began:
                return None  # slow, not hung: others were answered meanwhile
            return f"the engine said nothing for {self._silent_seconds:.0f} s"
        except (EngineUnavailable, EngineRejected) as exc:
            log.warning("canary could not ask", reason=exc.message)
            return None  # the health checks tell
        if answer is None:
            return None
        return f"the base model's answer changed from {self._canary.expected!r} to {answer!r}"


async def _from_first(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
        async for payload in rest:
            yield payload
