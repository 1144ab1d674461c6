"""The demo's own decisions; that it works as a whole is seen by running it."""

from typing import Any

import pytest

from server.cli.demo.api_client import DemoFailed
from server.cli.demo.samples import SAMPLES
from server.cli.demo.tenant import DemoTenant


class Listening:
    """Keeps what is asked of the server."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []

    async def call(self, method: str, path: str, *, json: Any) -> None:
        self.calls.append((method, path, json))


def job(gates: str, *, promoted: bool) -> dict[str, Any]:
    outcome = {"gates": gates, "promoted": promoted, "reason": None if promoted else "too few"}
    return {"adapter": "loaf@3", "outcome": outcome}


async def decide(found: dict[str, Any]) -> list[tuple[str, str, Any]]:
    api: Any = Listening()
    tenant = DemoTenant(api, SAMPLES[0], base="tiny", on_progress=print)
    await tenant.promote_unless_worse(found)
    calls: list[tuple[str, str, Any]] = api.calls
    return calls


async def test_what_went_live_is_left_alone() -> None:
    assert await decide(job("better", promoted=True)) == []


async def test_what_the_gates_leave_to_a_person_is_promoted_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = await decide(job("cannot_tell", promoted=False))
    assert calls == [("POST", "/admin/tenants/loaf/promote", {"version": 3})]
    assert "promoted by hand" in capsys.readouterr().out


async def test_what_is_worse_ends_the_demo() -> None:
    with pytest.raises(DemoFailed, match=r"loaf@3 was not promoted: too few"):
        await decide(job("worse", promoted=False))
