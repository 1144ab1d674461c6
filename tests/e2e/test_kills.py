"""``tenantune up`` with a real trainer and a real database, killed in its parts and as a whole."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.up import Up
from tests.tiny import SAMPLE, make_tiny_base

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]

LENIENT = {"max_perplexity_ratio": 10, "min_similarity_gain": -2, "max_parity_nats": 1e9}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    home = tmp_path / "home"
    make_tiny_base(home / "bases")
    up = Up(home)
    up.start()
    yield up
    up.end()


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
