"""The README against the code: what it tells people to type exists."""

import re
from pathlib import Path

import pytest
import rich_click as click

from connectors.importers import IMPORTERS
from server.cli import main
from server.settings import describe
from training.config import recipe_names

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"\btenantune ((?:[a-z]+ ?){1,2})", README)))


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_that_the_readme_names_exists(words: str) -> None:
    first, *rest = words.split()
    assert first in main.commands, f"tenantune {first}"
    group = main.commands[first]
    if rest and isinstance(group, click.Group):
        assert rest[0] in group.commands, f"tenantune {words}"


def test_every_variable_that_the_readme_names_is_a_setting() -> None:
    known = {variable for variable, _, _ in describe()}
    assert set(re.findall(r"\bTENANTUNE_[A-Z_]+", README)) <= known


def test_every_importer_and_recipe_in_the_readme_exists() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \| (?:JSONL|one message)", README, re.MULTILINE)) == set(
        IMPORTERS
    )
    assert set(re.findall(r"`((?:cpu|gpu)-[a-z0-9]+)`", README)) <= set(recipe_names())


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
