"""What the doctor makes of a machine: the recipe that jobs get here decides how much is enough."""

from pathlib import Path

import msgspec
import pytest

from server.cli.doctor import ENGINE_MEMORY_BYTES, Check, _memory
from server.engine.backends.vllm.hardware import Gpu, Machine
from server.settings import Settings
from training.config import load_recipe

SMALL = load_recipe("cpu-small").memory_bytes
LARGE = load_recipe("gpu-24gb").memory_bytes


def checked(tmp_path: Path, machine: Machine, recipe: str = "") -> Check:
    (check,) = _memory(Settings(home=tmp_path, recipe=recipe), machine)
    return check


def test_a_cpu_needs_room_for_the_engine_and_the_recipe(tmp_path: Path) -> None:
    enough = Machine(cores=2, memory_bytes=ENGINE_MEMORY_BYTES + SMALL)
    assert checked(tmp_path, enough).good
    short = checked(tmp_path, msgspec.structs.replace(enough, memory_bytes=SMALL))
    assert not short.good
    assert "cpu-small" in short.advice
    assert not checked(tmp_path, enough, recipe="gpu-24gb").good


@pytest.mark.parametrize(("memory", "good"), [(LARGE, True), (LARGE - 1, False)])
def test_a_gpu_needs_its_own_memory(tmp_path: Path, memory: int, good: bool) -> None:
    gpus = (Gpu("small", 1), Gpu("large", memory))
    machine = Machine(cores=2, memory_bytes=1, gpus=gpus, vllm="gpu")
    check = checked(tmp_path, machine, recipe="gpu-24gb")
    assert check.good is good
    assert "the GPU's" in check.found


def test_a_recipe_that_does_not_ship_is_told_with_those_that_do(tmp_path: Path) -> None:
    check = checked(tmp_path, Machine(cores=2, memory_bytes=1 << 50), recipe="gpu-24")
    assert not check.good
    assert "gpu-24gb" in check.advice
