"""Every recipe that ships is read, and its header tells the truth."""

import re
from importlib import resources

import pytest

from training.errors import BadInput
from training.spec import load_recipe, recipe_names


def header_of(name: str) -> str:
    text = (resources.files("training.recipes") / f"{name}.toml").read_text("utf-8")
    return "\n".join(line[1:].strip() for line in text.split("\nname = ")[0].splitlines())


def test_the_promised_recipes_ship() -> None:
    assert {"cpu-small", "cpu-demo", "gpu-24gb", "gpu-80gb"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_begins_with_its_command_and_its_memory(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    header = header_of(name)
    assert f"tenantune train --tenant SLUG --recipe {name}" in header
    assert "python -m training SPEC.json OUT" in header
    stated = re.search(r"^Memory: ([0-9.]+) GB", header, re.MULTILINE)
    assert stated is not None
    assert float(stated.group(1)) * 1e9 == recipe.memory_bytes


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_validates_saves_and_can_stop_early(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.checkpoint_every > 0
    assert recipe.validate_every > 0
    assert recipe.patience > 0


def test_an_unknown_recipe_is_answered_with_those_that_exist() -> None:
    with pytest.raises(BadInput, match="cpu-small"):
        load_recipe("gpu-small")
