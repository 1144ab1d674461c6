"""Processes that tests start and end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parents[1]


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_gone(pid: int, *, within: float = 5.0) -> bool:
    """Whether a process that was killed ends: on a busy machine it takes a moment to die."""
    until = time.monotonic() + within
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not lives(pid)


def family(home: Path) -> dict[int, str]:
    """Every process that works on a data folder, by id: its environment says so."""
    found = {}
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        ours = (process.info["environ"] or {}).get("TENANTUNE_HOME") == str(home)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.pid] = " ".join(process.info["cmdline"] or [])
    return found


class Foreground:
    """A ``tenantune`` command as a shell runs it on a terminal: it leads the foreground group."""

    def __init__(self, *words: str, env: dict[str, str], log: Path) -> None:
        self.home, self.log = Path(env["TENANTUNE_HOME"]), log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", *words],
                cwd=HERE,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def end(self, number: signal.Signals) -> float:
        """Ctrl-C reaches the whole group, the others this process alone; seconds until all is gone.

        Raises:
            AssertionError: something is left after 10 seconds.
        """
        began = time.monotonic()
        if number is signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        while left := self._left():
            if time.monotonic() - began > 10:
                raise AssertionError(
                    f"{number.name}: still there after 10 s: {left}\n{self.said()}"
                )
            time.sleep(0.05)
        return time.monotonic() - began

    def _left(self) -> dict[int, str]:
        if self.process.poll() is None:
            return {self.process.pid: "the command"}  # quicker than to look at every process
        return family(self.home)

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        """Kill what a failed test leaves."""
        for pid in {self.process.pid, *family(self.home)}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
