"""What ``tenantune up`` prepares before it starts."""

import sys
from pathlib import Path
from typing import Literal

import pytest

from server.cli.up import _prepare_base
from server.settings import Settings


@pytest.mark.parametrize(
    ("engine", "url", "made"),
    [
        ("fake", "", False),
        ("fake", "unix:/run/engine.sock", False),
        ("vllm", "", True),
        ("vllm", "unix:/run/engine.sock", True),
    ],
)
async def test_the_base_is_made_where_an_engine_serves_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Literal["vllm", "fake"],
    url: str,
    made: bool,
) -> None:
    asked: list[Settings] = []
    said: list[str] = []

    async def ensure_base(settings: Settings, *, on_progress: object) -> None:
        asked.append(settings)

    monkeypatch.setattr(sys.modules["server.cli.up"], "ensure_base", ensure_base)
    settings = Settings(home=tmp_path, engine=engine, engine_url=url)
    await _prepare_base(settings, on_progress=said.append)
    assert asked == ([settings] if made else [])
    assert made or "`tenantune bases add" in said[0]
