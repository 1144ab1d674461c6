"""Runs ``python -m training`` as a child process and follows the events that it prints.

The child resumes where an earlier one stopped, so it may be started any number of times, however
the last one was killed. It runs at low priority, so that tenants' chats come first on a machine
that does both, and ends when its worker ends.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from training.events import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ErrorEvent,
    Event,
    parse,
)
from training.signals import GRACE_SECONDS

log = structlog.get_logger(__name__)

STOP_SECONDS = GRACE_SECONDS + 1.5  # the trainer itself keeps to the grace
INTERRUPTION_POLL_SECONDS = 1.0
MAX_RESTARTS = 5  # deaths without a new step in between; then it is not bad luck
NICENESS = 10

Interruption = Literal["cancel", "pause"]
"""What a person may request of a job that runs."""
OnEvent = Callable[[Event], Awaitable[None]]
Requested = Callable[[], Awaitable[Interruption | None]]


class TrainingFailed(Exception):
    """The run cannot succeed. ``code`` is the trainer's, or ``killed`` when it kept dying."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type["TrainingFailed"], tuple[str, str]]:
        """Pickled by the workflow library."""
        return TrainingFailed, (self.code, self.message)


class TrainingCancelled(Exception):
    """The run was stopped because its job was cancelled."""


class TrainingPaused(Exception):
    """The run was stopped, its state saved, because its job's pause was requested."""


def raise_if_interrupted(requested: Interruption | None) -> None:
    """Raise what was requested, if anything was.

    Raises:
        TrainingCancelled: cancel.
        TrainingPaused: pause.
    """
    match requested:
        case "cancel":
            raise TrainingCancelled
        case "pause":
            raise TrainingPaused
        case None:
            pass


async def run_trainer(
    spec: Path,
    out: Path,
    *,
    on_event: OnEvent,
    requested: Requested,
    stopping: asyncio.Event,
    on_saved: Callable[[], None],
    command: Sequence[str] = ("training",),
) -> None:
    """Train to the end, restarting the child when something kills it.

    Never returns once ``stopping`` is set: the child saves and ends, ``on_saved`` is called, and
    the next worker runs the calling step again::

        await run_trainer(
            folder / "spec.json",
            folder,
            on_event=write_to_history,
            requested=interruption_of_the_row,
            stopping=stopping,
            on_saved=trainer_ended,
        )

    Args:
        spec: a ``training.config.TrainingSpec`` as JSON.
        out: the job's folder, for checkpoints, the adapter and ``trainer.log``. One trainer at a
            time writes to it; what an earlier one left is resumed.
        on_event: called with each event, one after the other.
        requested: called every ``INTERRUPTION_POLL_SECONDS``, and when the child has ended.
        stopping: set when this process is to end. The child then has ``STOP_SECONDS`` to save.
        on_saved: called once the child has ended because of ``stopping``.
        command: the module that trains, and what it takes before the spec.

    Raises:
        TrainingFailed: bad input, an error of the trainer, or ``MAX_RESTARTS`` deaths without a
            new step.
        TrainingCancelled: ``requested`` returned ``cancel``; the child has ended.
        TrainingPaused: it returned ``pause``; the child has saved and ended.
    """
    deaths = 0
    while True:
        run = _TrainerProcess(
            spec,
            out,
            command=command,
            on_event=on_event,
            requested=requested,
            stopping=stopping,
        )
        code = await run.wait()
        if stopping.is_set():
            on_saved()
            await asyncio.Event().wait()  # the process is about to end; see worker.py
        if code == EXIT_OK:
            return
        raise_if_interrupted(await requested())
        if run.error is not None and code != EXIT_INTERRUPTED:
            raise TrainingFailed(run.error.code, run.error.message)
        if code == EXIT_BAD_INPUT:
            raise TrainingFailed("bad_input", f"the trainer refused its input; see {run.log_path}")
        deaths = 1 if run.advanced else deaths + 1
        log.warning("trainer died; it will resume", exit_code=code, deaths=deaths, out=str(out))
        if deaths >= MAX_RESTARTS:
            raise TrainingFailed(
                "killed",
                f"the trainer ended with status {code} {deaths} times without getting further "
                f"(out of memory?); its log is {run.log_path}",
            )


class _TrainerProcess:
    """One child process, from its start to its end."""

    def __init__(
        self,
        spec: Path,
        out: Path,
        *,
        command: Sequence[str],
        on_event: OnEvent,
        requested: Requested,
        stopping: asyncio.Event,
    ) -> None:
        self._argv = [
            *(sys.executable, "-m", *command, str(spec), str(out)),
            *("--resume", "--with-parent"),
        ]
        self.log_path = out / "trainer.log"
        self._on_event = on_event
        self._requested = requested
        self._stopping = stopping
        self.error: ErrorEvent | None = None
        self.advanced = False

    async def wait(self) -> int:
        """Run to its end; the exit status, negative for a signal."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log_file:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,  # closes when we end, however we end
                stdout=asyncio.subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,
                limit=1 << 20,
            )
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._follow(process))
                watching = group.create_task(self._stop_when_interrupted(process))
                code = await process.wait()
                await reading
                watching.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return code

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe, see ``wait``
        async for line in process.stdout:
            event = parse(line)
            if event is None:
                continue
            if isinstance(event, ErrorEvent):
                self.error = event
            else:
                self.advanced = self.advanced or type(event).__name__ in {
                    "StepEvent",
                    "EvaluationEvent",
                }
            await self._on_event(event)

    async def _stop_when_interrupted(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.TaskGroup() as group:  # a database that hangs must not delay our end
            reasons = [
                group.create_task(self._stopping.wait()),
                group.create_task(self._interruption()),
            ]
            await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            for reason in reasons:
                reason.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.sleep(STOP_SECONDS)  # ends early: ``wait`` cancels this task
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    async def _interruption(self) -> None:
        while not await self._requested():  # noqa: ASYNC110 - a row of the database has no event
            await asyncio.sleep(INTERRUPTION_POLL_SECONDS)


def event_body(event: Event) -> dict[str, object]:
    """The event's fields, without its kind."""
    body: dict[str, object] = msgspec.to_builtins(event)
    body.pop("event")
    return body


def event_kind(event: Event) -> str:
    """What the event is called in a job's history."""
    return type(event).__name__.removesuffix("Event").lower()
