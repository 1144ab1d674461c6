"""The top level holds what the README's table names, and no file that came there by accident."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "pyproject.toml",
    "requirements-cpu.lock",
    "requirements-gpu.lock",
}


def listed() -> list[str]:
    """Every file of the repository, also one that is only added."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:  # an unpacked archive
        pytest.skip("not in a git checkout")
    return listing.stdout.decode().rstrip("\0").split("\0")


def test_nothing_stands_at_the_top_that_does_not_belong_there() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2]
    folders = set(re.findall(r"^\| `([a-z]+)/` \|", table, re.MULTILINE))
    assert {path.partition("/")[0] for path in listed()} == FILES | folders | {".ci"}
