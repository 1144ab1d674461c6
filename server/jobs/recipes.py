"""Which recipes this machine has what it takes for, and which one a run gets that names none."""

import asyncio
from functools import cache

from server.engine.backends.vllm.hardware import this_machine
from server.settings import Settings
from training.config import load_recipe, recipe_names

ON_CPU = "cpu-small"
"""Of jobs that name none where there is no GPU to train on."""
GB = 10**9


async def default_recipe(settings: Settings) -> str:
    """The recipe of runs that name none: the installation's, else one that suits this machine.

    On a GPU it is the one that takes the least of those that fit: the engine is on the same GPU.
    """
    if settings.recipe:
        return settings.recipe
    return recipe_for(await gpu_memory())


def recipe_for(gpu_bytes: int) -> str:
    """The recipe that suits a GPU with so much memory; 0 where there is none."""
    fitting = {
        name: recipe.memory_bytes
        for name in recipe_names()
        if (recipe := load_recipe(name)).device == "gpu" and recipe.memory_bytes <= gpu_bytes
    }
    return min(fitting, key=fitting.__getitem__) if fitting else ON_CPU


def why_not(name: str, gpu_bytes: int) -> str:
    """Why a recipe cannot run with such a GPU, in words; empty where it can."""
    recipe = load_recipe(name)
    if recipe.device == "cpu" or recipe.memory_bytes <= gpu_bytes:
        return ""
    needs = f"it needs a GPU with {recipe.memory_bytes / GB:.0f} GB"
    return f"{needs}, and the server found {f'one with {gpu_bytes / GB:.0f} GB' if gpu_bytes else 'none'}"


async def gpu_memory() -> int:
    """Bytes of the largest GPU that runs can use on this machine, 0 where there is none."""
    return await asyncio.to_thread(_gpu_memory)


@cache
def _gpu_memory() -> int:
    """Asked once: the tool that knows takes a second."""
    machine = this_machine()
    return max((gpu.memory_bytes for gpu in machine.gpus), default=0) * (machine.device == "gpu")
