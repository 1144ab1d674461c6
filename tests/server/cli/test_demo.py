"""The demo's own decisions; that it works as a whole is seen by running it."""

from typing import Any

import pytest

from server.cli.demo.api_client import DemoFailed
from server.cli.demo.samples import SAMPLES
from server.cli.demo.tenant import DemoTenant


class Listening:
    """Keeps what is asked of the server; ``worse``: the gate of the version that says so."""

    def __init__(self, worse: str) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.worse = worse

    async def call(self, method: str, path: str, *, json: Any = None) -> dict[str, Any]:
        if method == "GET":
            gates = [
                {"name": "parity", "result": "better"},
                {"name": self.worse, "result": "worse"},
            ]
            return {"verdict": {"gates": gates}}
        self.calls.append((method, path, json))
        return {"state": "succeeded"}


def job(gates: str, *, promoted: bool) -> dict[str, Any]:
    outcome = {"gates": gates, "promoted": promoted, "reason": None if promoted else "too few"}
    return {"id": "j1", "adapter": "loaf@3", "outcome": outcome}


async def decide(found: dict[str, Any], worse: str = "") -> list[tuple[str, str, Any]]:
    api: Any = Listening(worse)
    tenant = DemoTenant(api, SAMPLES[0], base="tiny", on_progress=print)
    await tenant.decide(found)
    calls: list[tuple[str, str, Any]] = api.calls
    return calls


async def test_what_went_live_is_left_alone() -> None:
    assert await decide(job("better", promoted=True)) == []


async def test_what_the_gates_leave_to_a_person_is_approved_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = await decide(job("cannot_tell", promoted=False))
    path = "/admin/tenants/loaf/jobs/j1/decision"
    assert calls == [("POST", path, {"decision": "approved"})]
    assert "loaf@3 waits for an admin: the demo approves it" in capsys.readouterr().out


async def test_what_answers_worse_than_a_look_up_is_forced_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = await decide(job("worse", promoted=False), "lookup_f1_gain")
    assert calls == [("POST", "/admin/tenants/loaf/promote", {"version": 3, "force": True})]
    assert "loaf@3 is worse by a gate: the demo forces it" in capsys.readouterr().out


async def test_what_has_learnt_nothing_ends_the_demo() -> None:
    with pytest.raises(DemoFailed, match=r"loaf@3 was not promoted: too few"):
        await decide(job("worse", promoted=False), "perplexity_ratio")


class Waiting:
    """A server whose only job waits for a person, and makes its version live once it was approved."""

    def __init__(self) -> None:
        self.state = "awaiting_approval"

    async def exists(self, path: str) -> bool:
        return path == "/admin/tenants/loaf"

    async def call(self, method: str, path: str, **_: Any) -> Any:
        match method, path.removeprefix("/admin/tenants/loaf/"):
            case "POST", "transcripts":
                return {"state": "done", "report": {"read": 2, "redacted": {}}, "created_at": ""}
            case "POST", "jobs/j1/decision":
                self.state = "succeeded"
            case "GET", "adapters":
                return [{"model": "loaf@1", "live": self.state == "succeeded", "job": ""}]
            case "GET", "jobs" | "jobs/j1/events":
                return []
        outcome = {"gates": "cannot_tell", "promoted": False, "summary": "left 1 of 5 gates open"}
        return {"id": "j1", "adapter": "loaf@1", "state": self.state, "outcome": outcome}


async def test_the_demo_does_not_wait_for_the_person_that_it_stands_for() -> None:
    api: Any = Waiting()
    live = await DemoTenant(api, SAMPLES[0], base="tiny", on_progress=print).prepare()
    assert live["model"] == "loaf@1"
