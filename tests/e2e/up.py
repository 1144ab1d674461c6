"""``tenantune up`` as a process, for tests that kill it or talk to it as a client does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.server.cli.running import made, running


class Up:
    """``tenantune up`` over a data folder, started any number of times."""

    def __init__(self, home: Path, *, engine: str = "fake", **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = home
        self.env = {
            **os.environ,
            "TENANTUNE_HOME": str(home),
            "TENANTUNE_PORT": str(self.port),
            "TENANTUNE_ENGINE": engine,
            "TENANTUNE_BASE": "tiny",
            "OMP_NUM_THREADS": "1",  # two threads wait for one another on a busy machine
            **settings,
        }
        self.key = self._operator_key()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _operator_key(self) -> str:
        """Made in this process, which takes a tenth of the time."""
        with running(self.home, self.env) as run:
            return made(run, "keys", "create", "--operator").stdout.strip()

    def command(self, *words: str) -> str:
        argv = [sys.executable, "-m", "server", *words]
        return subprocess.run(argv, env=self.env, check=True, capture_output=True, text=True).stdout

    def start(self) -> None:
        with (self.home / "up.log").open("ab") as log:
            argv = [sys.executable, "-m", "server", "up"]
            self.process = subprocess.Popen(argv, env=self.env, stderr=log, stdout=log)
        self.wait(lambda: self.call("GET", "/health/live") is not None, "the server answers")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=data,
            method=method,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{method} {path}: {exc.code} {exc.read()!r}") from exc
        except OSError:
            return None

    def ready(self) -> bool:
        """Whether everything is there, the engine included."""
        try:
            return self.call("GET", "/health/ready") is not None
        except AssertionError:
            return False

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = 120) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.logs()}")

    def logs(self) -> str:
        files = [
            self.home / "up.log",
            *self.home.glob("run/*.log"),
            *self.home.glob("jobs/*/*.log"),
        ]
        return "\n".join(f"--- {f}\n{f.read_text()[-2000:]}" for f in files if f.exists())

    def child(self, words: str) -> psutil.Process | None:
        """Our process whose command line has ``words``."""
        for process in psutil.process_iter(["cmdline", "environ"]):
            line = " ".join(process.info["cmdline"] or [])
            ours = (process.info["environ"] or {}).get("TENANTUNE_HOME") == str(self.home)
            if ours and words in line:
                return process
        return None

    def kill(self, words: str) -> None:
        process = self.wait(lambda: self.child(words), f"{words} runs")
        process.send_signal(signal.SIGKILL)

    def leftovers(self) -> list[str]:
        return [
            " ".join(process.info["cmdline"] or [])
            for process in psutil.process_iter(["cmdline", "environ"])
            if (process.info["environ"] or {}).get("TENANTUNE_HOME") == str(self.home)
        ]

    def end(self) -> None:
        """Kill what still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
