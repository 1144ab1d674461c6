"""Every recipe that ships is read, and its header tells the truth."""

import re
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from training.config import (
    Recipe,
    TrainingSpec,
    load_recipe,
    load_spec,
    method_recipe,
    recipe_names,
)
from training.errors import BadInput


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


def test_a_recipe_file_that_is_not_text_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "café"'.encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin.toml is not UTF-8"):
        load_recipe(str(path))


def test_a_spec_that_is_not_text_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes('{"label": "café"}'.encode("latin-1"))
    with pytest.raises(BadInput, match=r"spec.json: .*utf-8"):
        load_spec(path)


@pytest.mark.parametrize("name", recipe_names())
def test_preferences_are_learnt_at_a_lower_rate_and_without_dropout(name: str) -> None:
    recipe = msgspec.structs.replace(load_recipe(name), dropout=0.1)
    spec = TrainingSpec(label="loaf", base="/b", dataset="/d", recipe=recipe)
    assert method_recipe(spec) == recipe
    for method in ("dpo", "kto"):
        trained = method_recipe(msgspec.structs.replace(spec, method=method))
        assert trained.dropout == 0
        assert 0 < trained.learning_rate <= recipe.learning_rate / 10
        assert 0 < trained.beta <= 2


def test_the_readme_explains_every_field_and_lists_every_recipe() -> None:
    text = (resources.files("training.recipes") / "README.md").read_text("utf-8")
    explained = set(re.findall(r"^\| `([a-z_0-9-]+)` \|", text, re.MULTILINE))
    assert explained == {*Recipe.__struct_fields__, *recipe_names()} - {"name"}
