"""A process that is to end does so in time, even inside a call that Python cannot interrupt."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import HERE, lives

# runs for minutes in C without the interpreter's lock, as a step of training does
STEP = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"
RUN = """
import subprocess, sys, time
from training.signals import Stopper
stopper = Stopper(grace_seconds={grace}, with_parent={with_parent})
with stopper:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(child.pid, flush=True)
    {work}
"""
DEFER = "with stopper.deferred(): "


def start(work: str, *, grace: float = 0.5, with_parent: bool = False) -> "subprocess.Popen[str]":
    """A process that does ``work`` and is in the midst of it, with a child that it would forget."""
    code = RUN.format(grace=grace, with_parent=with_parent, work=work)
    return launch("-c", code)


def launch(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read_pid(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    time.sleep(0.2)  # into the step
    return int(line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_does_not_end_is_left_and_children_go_along(number: signal.Signals) -> None:
    with start(DEFER + STEP) as process:
        child = read_pid(process)
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == 75
    assert 0.4 < time.monotonic() - began < 5
    assert not lives(child)


def test_a_step_that_ends_in_time_is_saved() -> None:
    work = DEFER + "time.sleep(1); print('saved', stopper.requested, flush=True)"
    with start(work, grace=20) as process:
        child = read_pid(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "saved True\n"
        assert process.wait(20) == 1  # Interrupted, which is not caught here
    os.kill(child, signal.SIGKILL)


def test_a_second_signal_does_not_wait() -> None:
    with start(DEFER + STEP, grace=60) as process:
        child = read_pid(process)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 75
    assert not lives(child)


def test_the_end_of_the_parent_ends_a_step_too() -> None:
    with start(DEFER + STEP, with_parent=True) as process:
        child = read_pid(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 75
    assert not lives(child)


def test_the_end_of_the_parent_does_not_hurry_one_that_is_ending() -> None:
    work = DEFER + "time.sleep(1); print('saved', flush=True)"
    with start(work, grace=20, with_parent=True) as process:
        child = read_pid(process)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        process.wait(20)
    os.kill(child, signal.SIGKILL)


def test_a_parent_whose_pipe_somebody_else_holds_is_missed_too() -> None:
    reader, writer = os.pipe()
    code = RUN.format(grace=0.3, with_parent=True, work=DEFER + STEP)
    between = f"""
import subprocess, sys
held = subprocess.Popen([sys.executable, "-c", {code!r}], stdin={reader})
print(held.pid, flush=True)
held.wait()
"""
    argv = [sys.executable, "-c", between]
    with subprocess.Popen(
        argv, cwd=HERE, stdout=subprocess.PIPE, text=True, pass_fds=[reader]
    ) as parent:
        held = read_pid(parent)
        child = read_pid(parent)  # they share its output
        parent.kill()
        until = time.monotonic() + 10
        while lives(held) and time.monotonic() < until:
            time.sleep(0.05)
        assert not lives(held)
        assert not lives(child)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("how", ["signal", "parent"])
def test_a_module_that_is_held_tidies_up(tmp_path: Path, how: str) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\n"
        "try:\n    print(os.getpid(), *sys.argv[1:], flush=True)\n    time.sleep(60)\n"
        "except Exception as exc:\n    print('tidy', flush=True); raise OSError from exc\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{HERE}:{tmp_path}"}
    argv = [sys.executable, "-m", "training.parent_watch", "slow", "--one", "two"]
    with subprocess.Popen(
        argv,
        cwd=HERE,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == f"{process.pid} --one two\n"
        if how == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(20) == 75
        assert process.stdout.read() == "tidy\n"
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("code", "status"), [("pass", 0), ("raise SystemExit(3)", 3)])
def test_a_module_that_is_held_ends_as_it_would_by_itself(
    tmp_path: Path, code: str, status: int
) -> None:
    (tmp_path / "quick.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": f"{HERE}:{tmp_path}"}
    argv = [sys.executable, "-m", "training.parent_watch", "quick"]
    with subprocess.Popen(argv, cwd=HERE, env=env, stdin=subprocess.PIPE) as process:
        assert process.wait(20) == status
