"""What the tests of whole processes share."""

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import new_database, postgres, url_of
from tests.e2e.up import Up
from tests.server.engine.vllm.vllm_process import CACHE
from tests.tiny import make_tiny_base

__all__ = ["postgres"]

READY_SECONDS = 600  # of a busy machine; half a minute of a quiet one
# the tiny base learns little in a minute, and its rounding is coarse
LENIENT = (
    "max_perplexity_ratio=10 min_similarity_gain=-2 min_lookup_f1_gain=-1 max_invented_gain=1 "
    "max_parity_nats=10"
)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny base; what that was made from is ``tiny`` beside the folder."""
    folder = tmp_path_factory.mktemp("made") / "bases"
    make_tiny_base(folder)
    return folder


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory, postgres: Path) -> Iterator[Up]:
    """``tenantune up`` over a tiny base: the real trainer, the real engine, a real PostgreSQL.

    Empty at first: nobody can sign in yet. One start for all tests of this folder that want it; an
    engine takes half a minute to start.
    """
    home = tmp_path_factory.mktemp("installation") / "home"
    make_tiny_base(home / "bases", heads=2)
    up = Up(
        home,
        engine="vllm",
        TENANTUNE_DATABASE_URL=url_of(postgres, asyncio.run(new_database(postgres))),
        TENANTUNE_RECIPE="cpu-demo",
        TENANTUNE_OBJECTIVES=LENIENT,
        TENANTUNE_ENGINE_OPTIONS=f"VLLM_CACHE_ROOT={shlex.quote(str(CACHE))}",
    )
    try:
        up.start()
        up.wait(up.ready, "the engine is ready", seconds=READY_SECONDS)
        yield up
    finally:
        up.end()
