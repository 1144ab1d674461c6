"""The demo's own decisions; that it works as a whole is seen by running it."""

from pathlib import Path
from typing import Any

import pytest

from server.cli.demo import SAMPLES, Demo, DemoFailed
from server.settings import Settings


class Listening:
    """Keeps what is asked of the server."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []

    async def call(self, method: str, path: str, *, json: Any) -> None:
        self.calls.append((method, path, json))


def job(gates: str, *, promoted: bool) -> dict[str, Any]:
    outcome = {"gates": gates, "promoted": promoted, "reason": None if promoted else "too few"}
    return {"adapter": "loaf@3", "outcome": outcome}


async def decide(tmp_path: Path, found: dict[str, Any]) -> list[tuple[str, str, Any]]:
    api: Any = Listening()
    await Demo(Settings(home=tmp_path))._decide(api, SAMPLES[0], found)
    calls: list[tuple[str, str, Any]] = api.calls
    return calls


async def test_what_went_live_is_left_alone(tmp_path: Path) -> None:
    assert await decide(tmp_path, job("better", promoted=True)) == []


async def test_what_the_gates_leave_to_a_person_is_promoted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = await decide(tmp_path, job("cannot_tell", promoted=False))
    assert calls == [("POST", "/admin/tenants/loaf/promote", {"version": 3})]
    assert "promoted by hand" in capsys.readouterr().err


async def test_what_is_worse_ends_the_demo(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match=r"loaf@3 was not promoted: too few"):
        await decide(tmp_path, job("worse", promoted=False))
