"""The top level holds what the README's drawing names, and no file that came there by accident."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "pyproject.toml",
}


def listed() -> list[str]:
    """Every file of the repository, also one that is only added."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:  # an unpacked archive
        pytest.skip("not in a git checkout")
    return listing.stdout.decode().rstrip("\0").split("\0")


def test_nothing_stands_at_the_top_that_does_not_belong_there() -> None:
    drawing = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2]
    lines = re.findall(r"^((?:[a-z]+/ ?)+)", drawing.split("```")[1], re.MULTILINE)
    folders = {name for line in lines for name in re.findall(r"[a-z]+", line)}
    assert {path.partition("/")[0] for path in listed()} == FILES | folders | {".ci"}


def test_folders_in_the_drawing_exist() -> None:
    drawing = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2].split("```")[1]
    )
    top = ""
    for line in drawing.splitlines():
        if started := re.match(r"([a-z]+)/", line):
            top = started[1]
        elif line.startswith(("├", "└")):
            # names stand at the beginning, and what they are after three blanks or more
            names = re.split(r" {3,}", line[4:])[0].split()
            missing = [name for name in names if not (ROOT / top / name).exists()]
            assert missing == [], top
