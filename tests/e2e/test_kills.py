"""``tenantune up`` with a real trainer and a real database, killed in its parts and as a whole."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tiny import SAMPLE, make_tiny_base

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]

LENIENT = {"max_perplexity_ratio": 10, "min_similarity_gain": -2, "max_parity_nats": 1e9}


class Up:
    """``tenantune up`` over a data folder, started any number of times."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = home
        self.env = {
            **os.environ,
            "TENANTUNE_HOME": str(home),
            "TENANTUNE_PORT": str(self.port),
            "TENANTUNE_ENGINE": "scripted",
            "TENANTUNE_BASE": "tiny",
            "OMP_NUM_THREADS": "1",  # two threads wait for one another on a busy machine
        }
        self.key = self.command("keys", "create", "--operator").strip()
        self.process: subprocess.Popen[bytes] | None = None

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
            f"http://127.0.0.1:{self.port}{path}",
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


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    home = tmp_path / "home"
    make_tiny_base(home / "bases")
    up = Up(home)
    up.start()
    yield up
    if up.process is not None:
        up.process.kill()
        up.process.wait()


def test_a_job_survives_the_death_of_trainer_worker_and_server_and_makes_one_adapter(
    up: Up,
) -> None:
    up.call("POST", "/admin/tenants", {"slug": "loaf", "system_prompt": "Be warm."})
    path = "/admin/tenants/loaf"
    up.call("POST", f"{path}/transcripts?filename=loaf.jsonl", SAMPLE.read_bytes())
    job_id = up.call("POST", f"{path}/jobs", {"recipe": "cpu-demo", "objectives": LENIENT})["id"]

    def events(kind: str) -> list[dict[str, Any]]:
        found = up.call("GET", f"{path}/jobs/{job_id}/events") or []
        return [event for event in found if event["kind"] == kind]

    def state() -> str:
        return str((up.call("GET", f"{path}/jobs/{job_id}") or {"state": "unknown"})["state"])

    up.wait(lambda: events("step"), "the first step")
    up.kill("-m training")
    resumed = len(events("stage"))
    up.wait(lambda: len(events("stage")) > resumed, "the trainer started again")
    up.kill("-m server.worker")
    up.wait(lambda: up.child("-m server.worker"), "the worker started again")
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    up.wait(lambda: not up.leftovers(), "nothing is left of what was killed")
    up.start()
    up.wait(lambda: state() in {"succeeded", "failed"}, "the job ends", seconds=200)
    assert state() == "succeeded", up.logs()
    adapters = up.call("GET", f"{path}/adapters")
    assert [(each["version"], each["live"]) for each in adapters] == [(1, True)]
    assert len(list((up.home / "adapters").iterdir())) == 1

    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0
    up.wait(lambda: not up.leftovers(), "nothing is left after a stop")


def test_a_cancelled_job_yields_no_model(up: Up) -> None:
    up.call("POST", "/admin/tenants", {"slug": "loaf"})
    path = "/admin/tenants/loaf"
    up.call("POST", f"{path}/transcripts?filename=loaf.jsonl", SAMPLE.read_bytes())
    job_id = up.call("POST", f"{path}/jobs", {"recipe": "cpu-demo", "objectives": LENIENT})["id"]

    def job() -> dict[str, Any]:
        return up.call("GET", f"{path}/jobs/{job_id}") or {"state": "unknown"}

    up.wait(lambda: job()["state"] == "running", "the job runs")
    up.call("POST", f"{path}/jobs/{job_id}/cancel")
    up.wait(lambda: job()["state"] not in {"running", "validating"}, "the job ends")
    assert job()["state"] == "cancelled", up.logs()
    assert up.call("GET", f"{path}/adapters") == []
    assert up.child("-m training") is None
