import subprocess
import sys
import threading
from pathlib import Path

from training.locks import is_locked, locked

HOLD = """
import sys
from pathlib import Path
from training.locks import try_lock
assert try_lock(Path(sys.argv[1])) is not None
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_falls_when_its_process_is_killed(tmp_path):
    path = tmp_path / "run" / "worker.lock"
    assert not is_locked(path)
    with holder(path) as process:
        assert is_locked(path)
        process.kill()
        process.wait()
    assert not is_locked(path)


def test_a_second_one_says_that_it_waits_and_then_gets_the_lock(tmp_path):
    path = tmp_path / ".lock"
    waits, entered = threading.Event(), threading.Event()

    def second() -> None:
        with locked(path, on_wait=waits.set):
            entered.set()

    with holder(path) as process:
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert not entered.wait(0.1)
        process.kill()
        thread.join(10)
    assert entered.is_set()
    assert not is_locked(path)


def test_a_free_lock_is_not_waited_for(tmp_path):
    waited: list[bool] = []
    with locked(tmp_path / ".lock", on_wait=lambda: waited.append(True)):
        assert is_locked(tmp_path / ".lock")
    assert not waited


def test_a_child_process_does_not_inherit_a_lock(tmp_path):
    path = tmp_path / ".lock"
    with locked(path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    with child:
        assert not is_locked(path)
        child.kill()
