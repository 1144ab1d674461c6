import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.engine.backends.fake.concurrency import Turns
from tests.server.engine.vllm.vllm_process import CACHE

ROOT = Path(__file__).parents[4]


async def test_keys_beyond_the_places_get_their_turn_before_anybody_is_done():
    turns = Turns(2, 0.01)
    first: dict[str, int] = {}
    done: list[str] = []
    clock = 0

    async def generate(key: str) -> None:
        nonlocal clock
        async with turns.taking(key):
            for _ in range(40):
                await turns.wait(key)
                clock += 1
                if key not in first:
                    assert not done
                    first[key] = clock
                await asyncio.sleep(0.001)
        done.append(key)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(generate(f"k{number}"))
    assert len(first) == len(done) == 6


async def test_without_turns_a_further_key_waits_for_an_end():
    turns = Turns(1, 0)
    order: list[str] = []

    async def generate(key: str) -> None:
        async with turns.taking(key):
            for _ in range(3):
                await turns.wait(key)
                await asyncio.sleep(0)
                order.append(key)

    async with asyncio.TaskGroup() as group:
        group.create_task(generate("a"))
        group.create_task(generate("b"))
    assert order == ["a"] * 3 + ["b"] * 3


@pytest.mark.heavy
@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_in_vllm_adapters_take_turns_and_every_answer_is_as_if_it_were_alone(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "VLLM_PLUGINS": "",
        "VLLM_CACHE_ROOT": str(CACHE),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
    }
    script = str(Path(__file__).with_name("turns_process.py"))
    process = subprocess.run(
        [sys.executable, script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:] + process.stdout[-4000:]
    result = json.loads((tmp_path / "result.json").read_text())
    together, alone = result["together"], result["alone"]
    assert len(together) == 12
    last_to_begin = max(entry["first_step"] for entry in together.values())
    first_to_end = min(entry["last_step"] for entry in together.values())
    assert last_to_begin < first_to_end, "an adapter waited for another's answer to end"
    assert len({tuple(entry["tokens"]) for entry in alone.values()}) == 12
    for name, entry in together.items():
        assert entry["tokens"] == alone[name]["tokens"], name
