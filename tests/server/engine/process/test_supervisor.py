import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
import psutil
import pytest

from server.engine.process import orphans, supervisor, watchdog
from server.engine.process.command import EngineCommand
from server.engine.process.supervisor import EngineStatus, StatusFeed, Supervisor, Timing
from server.errors import EngineUnavailable

FAST = Timing(
    ready=0.6,
    health_every=0.05,
    short_lives=3,
    back_off_first=0.05,
    back_off_most=0.1,
    back_off_failed=0.2,
    term=0.3,
)


class Life:
    """A supervisor over a shell command, and what happened to it."""

    def __init__(self, run: Path, script: str, *, timing: Timing = FAST) -> None:
        self.feed = StatusFeed(EngineStatus(state="starting"))
        self.well = False
        self.reasons: list[str] = []
        self.supervisor = Supervisor(
            EngineCommand(
                argv=["/bin/sh", "-c", script],
                uds=run / "engine.sock",
                max_active_adapters=1,
                max_loaded_adapters=1,
            ),
            self,
            run=run,
            feed=self.feed,
            timing=timing,
            chance=lambda: 0.5,
        )

    async def health(self, *, timeout_seconds: float) -> None:
        if not self.well:
            raise EngineUnavailable("no")

    async def prepare(self) -> None:
        pass

    def ended(self, reason: str) -> None:
        self.reasons.append(reason)

    async def until(self, state: str) -> EngineStatus:
        async with asyncio.timeout(10):
            async for status in self.feed.watch():
                if status.state == state:
                    return status
        raise AssertionError


class Running:
    """The supervisor's task for the length of a block."""

    def __init__(self, life: Life) -> None:
        self.life = life

    async def __aenter__(self) -> Life:
        self.group = asyncio.TaskGroup()
        await self.group.__aenter__()
        self.task = self.group.create_task(self.life.supervisor.supervise())
        return self.life

    async def __aexit__(self, *exc: object) -> None:
        self.task.cancel()
        await self.group.__aexit__(None, None, None)


async def test_an_engine_that_keeps_crashing_fails_loudly_and_is_still_tried(tmp_path):
    async with Running(Life(tmp_path, "echo no such weights; exit 3")) as life:
        status = await life.until("failed")
        assert "exited with status 3" in status.detail
        assert "3 times in a row" in status.detail
        assert str(tmp_path / "engine.log") in status.detail
        assert status.retry_after_seconds >= 1
        tries = status.restarts
        while life.feed.status.restarts == tries:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert b"no such weights" in (tmp_path / "engine.log").read_bytes()
    assert life.feed.status.state == "stopped"


async def test_an_engine_that_never_gets_ready_is_given_up_and_started_again(tmp_path):
    async with Running(Life(tmp_path, "sleep 60")) as life:
        status = await life.until("restarting")
        assert "not ready after" in status.detail


async def test_children_of_the_engine_go_with_it_even_if_they_ignore_sigterm(tmp_path):
    script = "trap '' TERM; (trap '' TERM; sleep 60 & sleep 60) & sleep 60 & wait; wait; sleep 60"
    async with Running(Life(tmp_path, script)) as life:
        life.well = True
        group = (await life.until("ready")).pid
        assert group
        while len(orphans.members(group)) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert orphans.members(group) == []
    assert not (tmp_path / "engine.pid").exists()


async def test_children_that_outlive_the_engine_are_killed_before_the_next_start(tmp_path):
    async with Running(Life(tmp_path, "sleep 60 & sleep 0.3; exit 1")) as life:
        life.well = True
        group = (await life.until("ready")).pid
        assert group
        await life.until("restarting")
        while life.feed.status.pid in (group, None):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert orphans.members(group) == []


@pytest.mark.parametrize("late", [False, True])
async def test_an_engine_is_not_blamed_for_what_its_server_was_late_for(
    tmp_path, monkeypatch, late
):
    monkeypatch.setattr(supervisor, "OWN_LATENESS_SECONDS", 0.1)
    timing = msgspec.structs.replace(FAST, health_timeout=0.1, health_misses=2)
    life = Life(tmp_path, "sleep 60", timing=timing)
    checks = 0

    async def miss(*, timeout_seconds: float) -> None:
        nonlocal checks
        checks += 1
        if late:
            time.sleep(0.4)  # noqa: ASYNC251 - as something that keeps the loop busy
        raise EngineUnavailable("no")

    async with Running(life):
        life.well = True
        await life.until("ready")
        monkeypatch.setattr(life, "health", miss)
        while checks < 4 and life.feed.status.state == "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert (life.feed.status.state == "ready") is late
        assert late or life.reasons == ["the engine missed 2 health checks in a row"]


async def test_recycling_ends_one_life_and_starts_another(tmp_path):
    async with Running(Life(tmp_path, "sleep 60")) as life:
        life.well = True
        first = await life.until("ready")
        life.supervisor.recycle("its answers changed")
        await life.until("restarting")
        assert (await life.until("ready")).pid != first.pid
        assert life.reasons == ["its answers changed"]


def engine_under_a_server(run: Path) -> tuple[subprocess.Popen[str], int]:
    """A server process with an engine, of which only the server will be killed."""
    code = f"""
import asyncio, sys
from pathlib import Path
from tests.server.engine.process.test_supervisor import Life, Running
async def main():
    async with Running(Life(Path({str(run)!r}), "sleep 600 & sleep 600")) as life:
        life.well = True
        print((await life.until("ready")).pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    root = str(Path(watchdog.__file__).parents[3])
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert server.stdout
    while not (line := server.stdout.readline()).strip().isdigit():
        assert line, "the server said nothing"
    while len(orphans.members(int(line))) < 4:  # the watchdog, the shell, two sleeps
        time.sleep(0.01)
    return server, int(line)


def test_kill_9_of_the_server_leaves_no_engine_behind(tmp_path):
    server, group = engine_under_a_server(tmp_path)
    with server:
        server.kill()
    for _ in range(100):
        if not orphans.members(group):
            break
        time.sleep(0.05)
    assert orphans.members(group) == []


def test_an_engine_whose_watchdog_died_too_is_found_and_ended_at_the_next_start(tmp_path):
    server, group = engine_under_a_server(tmp_path)
    with server:
        with pytest.raises(orphans.InUse, match="another server"):
            orphans.clear(tmp_path / "engine.pid")
        os.kill(server.pid, signal.SIGSTOP)  # so that it cannot see its engine's watchdog die
        while " T " not in Path(f"/proc/{server.pid}/stat").read_text():
            time.sleep(0.01)
        os.kill(group, signal.SIGKILL)
        server.kill()
    assert orphans.members(group)
    orphans.clear(tmp_path / "engine.pid")
    assert orphans.members(group) == []
    assert not (tmp_path / "engine.pid").exists()


def test_an_engine_is_found_although_the_clock_was_set_meanwhile(tmp_path, monkeypatch):
    server, group = engine_under_a_server(tmp_path)
    real = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: real + 3600)
    assert psutil.Process(group).create_time() > real + 3600
    with server:
        with pytest.raises(orphans.InUse):
            orphans.clear(tmp_path / "engine.pid")
        server.kill()
        server.wait()
        os.kill(group, signal.SIGKILL)
    orphans.clear(tmp_path / "engine.pid")
    assert orphans.members(group) == []


def test_an_engine_ends_with_its_watchdog(tmp_path):
    """For a server that died in the same moment, and cannot kill the group."""
    argv = [sys.executable, "-I", "-S", watchdog.__file__, str(tmp_path / "engine.log"), "1000"]
    with subprocess.Popen(
        [*argv, "sleep", "600"], stdin=subprocess.PIPE, start_new_session=True
    ) as watchdog_process:
        until = time.monotonic() + 20
        while len(orphans.members(watchdog_process.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)  # from the fork to the engine itself
        watchdog_process.kill()
        while orphans.members(watchdog_process.pid) and time.monotonic() < until:
            time.sleep(0.01)
        assert orphans.members(watchdog_process.pid) == []


def test_a_reused_pid_or_a_pid_of_another_boot_is_not_killed(tmp_path):
    path = tmp_path / "engine.pid"
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as bystander:
        orphans.remember(path, bystander.pid)
        record = msgspec.json.decode(path.read_bytes())
        for change in ({"boot_id": "another"}, {"group_started": record["group_started"] - 1}):
            path.write_bytes(msgspec.json.encode({**record, **change}))
            orphans.clear(path)
            assert bystander.poll() is None
        bystander.kill()


def test_the_log_stays_within_its_bounds_and_keeps_the_life_before(tmp_path):
    path = tmp_path / "engine.log"
    with closing(watchdog.Log(path, limit_bytes=100)) as log:
        for number in range(40):
            log.write(f"line {number}\n".encode())
    assert path.stat().st_size <= 100
    assert path.read_bytes().endswith(b"line 39\n")
    watchdog.Log(path, limit_bytes=100).close()
    assert (tmp_path / "engine.log.1").read_bytes().endswith(b"line 39\n")


async def test_a_wanted_restart_comes_at_once_and_is_no_short_life(tmp_path):
    patient = msgspec.structs.replace(FAST, back_off_first=60.0, back_off_most=60.0)
    async with Running(Life(tmp_path, "sleep 60", timing=patient)) as life:
        life.well = True
        first = await life.until("ready")
        assert first.start_seconds is not None
        for number in range(1, FAST.short_lives + 2):
            life.supervisor.restart("Ana wants it")
            async with asyncio.timeout(10):
                async for status in life.feed.watch():
                    if status.state == "ready" and status.restarts == number:
                        break
        assert life.feed.status.ended == "Ana wants it"
        assert life.feed.status.ended_at is not None
        assert life.feed.status.since > first.since


async def test_a_wanted_restart_ends_the_pause_before_the_next_try(tmp_path):
    patient = msgspec.structs.replace(FAST, back_off_failed=60.0)
    async with Running(Life(tmp_path, "exit 3", timing=patient)) as life:
        failed = await life.until("failed")
        life.supervisor.restart("Ana wants it")
        async with asyncio.timeout(10):
            async for status in life.feed.watch():
                if status.state == "restarting":
                    break
        assert life.feed.status.restarts > failed.restarts
