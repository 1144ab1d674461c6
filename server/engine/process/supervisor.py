"""Keeps one child process running: starts, watches, restarts and stops it, leaving nothing behind.

The process runs in a process group of its own under a small one (``watchdog``), which kills the
group when this server ends, however it ends. If both die at the same moment, the next start finds
the group through the pid file and ends it (``orphans``).
"""

import asyncio
import os
import random
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Literal, Protocol

import msgspec
import structlog

from server.engine.process import orphans, watchdog
from server.engine.process.command import ChildCommand, Choice
from server.errors import EngineUnavailable, ServerError
from server.home import private_folder

log = structlog.get_logger(__name__)

State = Literal["starting", "ready", "restarting", "stopped", "failed"]
LOG_BYTES = 16 << 20
TERM_SECONDS = 2.0  # enough for vLLM to remove its shared memory, if it still can
KILL_SECONDS = 10.0
OWN_LATENESS_SECONDS = 1.0  # of our event loop; when it is later, a missed check proves nothing
LAST_WORDS = 12  # lines of the process's log that go into ours when it dies

# What the engine's log says while it starts, in our words. The last one found counts.
STAGES = (
    (re.compile(r"Starting to load model|Loading safetensors"), "loading the weights"),
    (re.compile(r"Loading weights took|Model loading took"), "weights loaded"),
    (re.compile(r"KV cache size|Using .* for KV cache"), "making the key-value cache"),
    (re.compile(r"Warming up|[Cc]apturing|torch\.compile"), "warming up"),
    (re.compile(r"Starting vLLM|Started server process|Application startup"), "opening the door"),
)


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is doing.

    Args:
        state: ``failed`` means many short lives in a row: it is still started again, but rarely.
        detail: for people: the stage of a start; or why there is no engine, and the next try.
        restarts: starts after the first.
        pid: of the process group; None while there is none.
        retry_after_seconds: when a request that is refused now may succeed.
        since: when it came into this state.
        ended: why its last life ended; empty where none has.
        ended_at: when that was.
        start_seconds: how long its last start took until it was ready; None before the first.
        choices: the engine's settings, with reasons.
    """

    state: State = "stopped"
    detail: str = ""
    restarts: int = 0
    pid: int | None = None
    retry_after_seconds: float = 2.0
    since: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    ended: str = ""
    ended_at: datetime | None = None
    start_seconds: float | None = None
    choices: tuple[Choice, ...] = ()


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the supervision is. All but the two counts are in seconds.

    Args:
        ready: longest start.
        health_every: pause between two health checks.
        health_timeout: longest wait for one.
        health_misses: how many may fail in a row.
        stable: a life that was ready for less than this counts as short.
        short_lives: after this many in a row the state is ``failed``.
        back_off_first: pause before the next start after one short life; doubles with each.
        back_off_most: longest pause while the state is not ``failed``.
        back_off_failed: pause when it is.
        term: from SIGTERM to SIGKILL.
    """

    ready: float = 600.0
    health_every: float = 1.0
    health_timeout: float = 10.0  # one step of a long prompt on a busy machine takes seconds
    health_misses: int = 4
    stable: float = 60.0
    short_lives: int = 4
    back_off_first: float = 1.0
    back_off_most: float = 60.0
    back_off_failed: float = 300.0
    term: float = TERM_SECONDS


class StatusFeed:
    """A process's status, for those who show it and those who wait for it."""

    def __init__(self, status: EngineStatus) -> None:
        self.status = status
        self._changed = asyncio.Event()

    def show(self, **changes: object) -> None:
        """Change fields of the status; watchers see it."""
        status = msgspec.structs.replace(self.status, **changes)
        if status == self.status:
            return
        if status.state != self.status.state:
            status = msgspec.structs.replace(status, since=datetime.now(UTC))
        self.status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self) -> AsyncIterator[EngineStatus]:
        """The status now, and again after each change. A slow reader may miss some of them."""
        while True:
            changed, status = self._changed, self.status
            yield status
            if status is self.status:
                await changed.wait()


class ProcessHooks(Protocol):
    """What a supervisor needs to know of its process, and what it reports."""

    async def health(self, *, timeout_seconds: float) -> None:
        """Return when the process is well; raise EngineUnavailable when it is not."""

    async def prepare(self) -> None:
        """Called once in each life, when the process is well and before it counts as ready.

        An error (``ServerError``) ends this life.
        """

    def ended(self, reason: str) -> None:
        """Called at the end of each life, before the process is signalled."""


class Supervisor:
    """Runs a command again and again until stopped: an engine, or another child process.

    ::

        feed = StatusFeed(EngineStatus())
        supervisor = Supervisor(command, hooks, run=run, feed=feed, timing=Timing())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervisor.supervise())
            ...
            task.cancel()  # the process and all its children are gone when the group ends

    Args:
        command: what to start, and the socket that it serves on.
        hooks: how to see that the process is well.
        run: folder of ``<name>.log`` and ``<name>.pid``. One server at a time may use it.
        feed: where the status is shown.
        timing: how patient the supervision is.
        name: of the process, in the log and in the names of the files.
        chance: numbers in [0, 1) that spread the restarts of many servers.
    """

    def __init__(
        self,
        command: ChildCommand,
        hooks: ProcessHooks,
        *,
        run: Path,
        feed: StatusFeed,
        timing: Timing,
        name: str = "engine",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._log = log.bind(name=name)
        self._command = command
        self._hooks = hooks
        self._run = run
        self._feed = feed
        self._timing = timing
        self._chance = chance
        self._recycle: asyncio.Future[str] | None = None
        self._wanted = asyncio.Event()
        self.log_path = run / f"{name}.log"
        self._pid_path = run / f"{name}.pid"

    async def supervise(self) -> None:
        """Run until cancelled. The process is stopped then, and nothing of it remains."""
        private_folder(self._run)
        short = 0
        try:
            while True:
                began = monotonic()
                reason, ready_seconds = await self._live()
                wanted = self._wanted.is_set()
                short = 0 if wanted or ready_seconds >= self._timing.stable else short + 1
                pause = 0.0 if wanted else self._pause(short)
                failed = short >= self._timing.short_lives
                detail = f"{reason}; next try in {pause:.0f} s"
                if failed:
                    detail = f"ended {short} times in a row: {detail}; see {self.log_path}"
                self._log.warning(
                    "process ended",
                    reason=reason,
                    lived_seconds=round(monotonic() - began, 1),
                    next_try_seconds=round(pause, 1),
                    last_words=self._last_words(),
                )
                self._feed.show(
                    state="failed" if failed else "restarting",
                    detail=detail,
                    pid=None,
                    retry_after_seconds=max(1.0, pause),
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wanted.wait()
                        short = 0
                self._wanted.clear()
                self._feed.show(restarts=self._feed.status.restarts + 1, detail="starting again")
        finally:
            self._feed.show(state="stopped", detail="", pid=None)

    def recycle(self, reason: str) -> None:
        """End this life and start another."""
        if self._recycle is not None and not self._recycle.done():
            self._recycle.set_result(reason)

    def restart(self, reason: str) -> None:
        """A person wants another life: end this one, or the pause before the next, and start at once.

        A life that ends so does not count as short.
        """
        self._wanted.set()
        self.recycle(reason)

    def _pause(self, short_lives: int) -> float:
        timing = self._timing
        if short_lives >= timing.short_lives:
            pause = timing.back_off_failed
        else:
            pause = min(timing.back_off_first * 2 ** max(0, short_lives - 1), timing.back_off_most)
        return pause * (
            0.8 + 0.4 * self._chance()
        )  # many servers must not start at the same moment

    async def _live(self) -> tuple[str, float]:
        """One life of the process: why it ended, and for how many seconds it was ready."""
        try:
            await asyncio.to_thread(orphans.clear, self._pid_path)
            self._command.uds.unlink(missing_ok=True)
            process = await self._start()
        except (OSError, orphans.InUse) as exc:
            reason = f"the {self._name} cannot be started: {exc}"
            self._feed.show(ended=reason, ended_at=datetime.now(UTC))
            return reason, 0.0
        ready_at: list[float] = []
        reason = "the server is stopping"
        self._recycle = asyncio.get_running_loop().create_future()
        try:
            reason = await self._first_of(
                self._ended(process),
                self._unwell(ready_at),
                self._recycle,
            )
        finally:
            self._feed.show(
                state="restarting", detail=reason, ended=reason, ended_at=datetime.now(UTC)
            )
            self._hooks.ended(reason)
            await self._end(process, self._timing.term)
        return reason, monotonic() - ready_at[0] if ready_at else 0.0

    async def _start(self) -> Process:
        environment = {**os.environ, **self._command.env}  # noqa: TID251 - inherited, not read
        with_watchdog = [
            sys.executable,
            "-I",
            "-S",
            watchdog.__file__,
            str(self.log_path),
            str(LOG_BYTES),
        ]
        process = await asyncio.create_subprocess_exec(
            *with_watchdog,
            *self._command.argv,
            stdin=PIPE,
            env=environment,
            start_new_session=True,
        )
        orphans.remember(self._pid_path, process.pid)
        starting = "restarting" if self._feed.status.restarts else "starting"
        self._feed.show(
            state=starting, detail="starting the process", pid=process.pid, retry_after_seconds=5.0
        )
        self._log.info("process starts", pid=process.pid, log=str(self.log_path))
        return process

    @staticmethod
    async def _first_of(*watchers: Awaitable[str]) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_wait(watcher)) for watcher in watchers]
            done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
        return next(iter(done)).result()

    async def _ended(self, process: Process) -> str:
        status = await process.wait()
        if status > 128:  # noqa: PLR2004 - the watchdog's way to say "by signal"
            return f"the {self._name} was ended by {signal.Signals(status - 128).name}"
        if status < 0:
            return f"the {self._name}'s watchdog was ended by {signal.Signals(-status).name}"
        return f"the {self._name} exited with status {status}"

    async def _unwell(self, ready_at: list[float]) -> str:
        """Wait until it is ready, then until its health checks fail. Returns what is wrong."""
        timing = self._timing
        began = monotonic()
        deadline = began + timing.ready
        while True:
            try:
                await self._hooks.health(timeout_seconds=timing.health_timeout)
                break
            except EngineUnavailable:
                if monotonic() > deadline:
                    return f"the {self._name} was not ready after {timing.ready:.0f} s"
                if stage := self._stage():
                    self._feed.show(detail=stage)
                await asyncio.sleep(min(0.25, timing.health_every))
        try:
            async with asyncio.timeout(max(1.0, deadline - monotonic())):
                await self._hooks.prepare()
        except (ServerError, TimeoutError) as exc:
            return f"the {self._name} came up and could not answer: {exc}"
        ready_at.append(monotonic())
        self._feed.show(
            state="ready",
            detail="",
            retry_after_seconds=2.0,
            start_seconds=ready_at[0] - began,
        )
        self._log.info("process ready")
        misses = 0
        while misses < timing.health_misses:
            asked_at = monotonic()
            await asyncio.sleep(timing.health_every)
            try:
                await self._hooks.health(timeout_seconds=timing.health_timeout)
                misses = 0
            except EngineUnavailable:
                most = timing.health_every + timing.health_timeout + OWN_LATENESS_SECONDS
                if monotonic() - asked_at < most:  # else this server itself was too late
                    misses += 1
        return f"the {self._name} missed {misses} health checks in a row"

    async def _end(self, process: Process, term_seconds: float) -> None:
        """Send the group SIGTERM, and SIGKILL if need be, until nothing of it is left."""
        group = process.pid
        try:
            orphans.signal_group(group, signal.SIGTERM)
            async with asyncio.timeout(term_seconds):
                await process.wait()
        except TimeoutError:
            self._log.warning("process does not end, killing it", pid=group)
        finally:  # also when a stop cuts the wait short
            deadline = monotonic() + KILL_SECONDS
            while orphans.signal_group(group, signal.SIGKILL):
                if monotonic() > deadline:
                    left = orphans.members(group)
                    self._log.error("processes do not end", pids=left)
                    break
                await asyncio.sleep(0.02)
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self._pid_path.unlink(missing_ok=True)

    def _stage(self) -> str:
        found = ""
        for line in self._tail(1 << 16):
            for pattern, words in STAGES:
                if pattern.search(line):
                    found = words
        return found

    def _last_words(self) -> list[str]:
        return self._tail(1 << 13)[-LAST_WORDS:]

    def _tail(self, size_bytes: int) -> list[str]:
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, self.log_path.stat().st_size - size_bytes))
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []


async def _wait(what: Awaitable[str]) -> str:
    return await what
