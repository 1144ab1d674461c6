"""The end of a command: tidy where it can be, and in time whatever hangs."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from server import shutdown
from tests.processes import HERE, is_gone

RUN = """
import asyncio, subprocess, sys, time
import uvloop
from server.shutdown import Stopped, run

async def main():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(child.pid, flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        print("tidying", flush=True)
        {tidy}
        child.kill()

try:
    run(main(), seconds={seconds}, loop_factory={loop})
except Stopped as exc:
    print(exc, flush=True)
    sys.exit(exc.status)
"""
LOOPS = ["None", "uvloop.new_event_loop"]


def start(tidy: str, *, seconds: float, loop: str = "None") -> "tuple[subprocess.Popen[str], int]":
    argv = [sys.executable, "-c", RUN.format(tidy=tidy, seconds=seconds, loop=loop)]
    process = subprocess.Popen(
        argv, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def said(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    return process.stdout.read().splitlines()


def watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ends in time"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_lets_it_tidy_up(
    loop: str, number: signal.Signals, status: int, name: str
) -> None:
    process, child = start("await asyncio.sleep(0.1)", seconds=20, loop=loop)
    with process:
        process.send_signal(number)
        assert process.wait(20) == status
        assert said(process) == ["tidying", f"stopped by {name}"]
    assert is_gone(child)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "hang",
    [
        "await asyncio.sleep(600)",
        "time.sleep(600)",
        "await asyncio.to_thread(time.sleep, 600)",
        "asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)",
    ],
    ids=["task", "loop", "thread", "thread at exit"],
)
def test_what_hangs_is_ended_in_time_with_all_it_started(loop: str, hang: str) -> None:
    process, child = start(hang, seconds=0.5, loop=loop)
    with process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert said(process)[0] == "tidying"
    assert is_gone(child)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_signal_ends_it_at_once(loop: str) -> None:
    process, child = start("await asyncio.sleep(600)", seconds=60, loop=loop)
    with process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "tidying\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert is_gone(child)


def test_what_is_not_stopped_ends_as_it_would_and_leaves_nothing() -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def fail() -> None:
        raise LookupError("reason")

    before = signal.getsignal(signal.SIGTERM)
    assert shutdown.run(answer(42), seconds=1) == 42
    with pytest.raises(LookupError, match="reason"):
        shutdown.run(fail(), seconds=1)
    assert signal.getsignal(signal.SIGTERM) is before
    until = time.monotonic() + 10
    while watches() and time.monotonic() < until:
        time.sleep(0.01)
    assert not watches()
    open_files = psutil.Process().num_fds()
    shutdown.run(answer(1), seconds=1)
    while watches() and time.monotonic() < until:
        time.sleep(0.01)
    assert psutil.Process().num_fds() == open_files


def test_an_error_while_stopping_does_not_hide_why_it_stopped() -> None:
    process, child = start("child.kill(); raise LookupError", seconds=20)
    with process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        words = said(process)
    assert (words[0], words[-1]) == ("tidying", "stopped by SIGTERM")
    assert any("LookupError" in word for word in words)
    assert is_gone(child)


IMPORT = """
import signal, sys, types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from server.shutdown import ctrl_c_at_once

class Slow(MetaPathFinder, Loader):
    def find_spec(self, name, path, target=None):
        return ModuleSpec(name, self) if name == "slow" else None
    def exec_module(self, module):
        class Callback:
            def __del__(self):  # what it raises is printed and lost, as in a callback of an import's lock
                signal.raise_signal(signal.SIGINT)
                [0 for _ in range(10_000)]
        Callback()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.meta_path.insert(0, Slow())
with {guard}:
    import slow
print("went on")
"""


@pytest.mark.parametrize(
    ("guard", "status", "words"),
    [("ctrl_c_at_once()", -signal.SIGINT, ""), ("open('/dev/null')", 0, "went on\n")],
)
def test_ctrl_c_during_an_import_is_not_lost(guard: str, status: int, words: str) -> None:
    argv = [sys.executable, "-c", IMPORT.format(guard=guard)]
    done = subprocess.run(argv, cwd=HERE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, words), done.stderr


def test_another_handler_of_ctrl_c_stays() -> None:
    def mine(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGINT, mine)
    try:
        with shutdown.ctrl_c_at_once():
            assert signal.getsignal(signal.SIGINT) is mine
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
