"""The recipe of runs that name none, by the machine; and what cannot run on it."""

import msgspec
import pytest

from server.engine.backends.vllm.hardware import Gpu, Machine
from server.jobs import recipes
from server.settings import Settings
from training.config import recipe_names

GPUS = (Gpu("small", 16 * 10**9), Gpu("large", 141 * 10**9))


@pytest.mark.parametrize(
    ("gpu_bytes", "name"),
    [
        (0, "cpu-small"),
        (16 * 10**9, "cpu-small"),
        (24 * 10**9, "gpu-24gb"),
        (141 * 10**9, "gpu-24gb"),
    ],
)
def test_a_recipe_suits_the_gpu_and_leaves_the_engine_its_part(gpu_bytes: int, name: str) -> None:
    assert recipes.recipe_for(gpu_bytes) == name
    assert recipes.why_not(name, gpu_bytes) == ""


def test_what_cannot_run_is_told_with_its_reason() -> None:
    told = {name: recipes.why_not(name, 0) for name in recipe_names()}
    assert told == {
        "cpu-demo": "",
        "cpu-small": "",
        "gpu-24gb": "it needs a GPU with 22 GB, and the server found none",
        "gpu-80gb": "it needs a GPU with 78 GB, and the server found none",
    }
    assert recipes.why_not("gpu-80gb", 24 * 10**9).endswith("found one with 24 GB")
    assert not any(recipes.why_not(name, 141 * 10**9) for name in recipe_names())


async def test_the_installations_recipe_is_before_the_machines(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(cores=2, memory_bytes=1, gpus=GPUS, vllm="gpu")
    monkeypatch.setattr(recipes, "this_machine", lambda: machine)
    recipes._gpu_memory.cache_clear()
    assert await recipes.gpu_memory() == 141 * 10**9
    for chosen, found in (("", "gpu-24gb"), ("cpu-demo", "cpu-demo")):
        installed = msgspec.structs.replace(settings, recipe=chosen)
        assert await recipes.default_recipe(installed) == found
    recipes._gpu_memory.cache_clear()
