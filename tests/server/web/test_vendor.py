"""Code of others is what its makers published, and says whose it is."""

import hashlib
import tomllib

import pytest

from server.web.static import FOLDERS

VENDOR = FOLDERS[-1]
FILES = tomllib.loads((VENDOR / "vendor.toml").read_text())["file"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["name"])
def test_a_file_is_as_it_was_published(file):
    content = (VENDOR / file["name"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert f"{file['package'].rpartition('/')[2]}-{file['version']}.tgz" in file["source"]
    assert file["licence"] in {"0BSD", "MIT"}
    licence = (VENDOR / file["licence_file"]).read_text()
    words = {"0BSD": "Zero-Clause BSD", "MIT": "Permission is hereby granted, free of charge"}
    assert words[file["licence"]] in licence


def test_every_file_is_in_the_list():
    listed = {name for file in FILES for name in (file["name"], file["licence_file"])}
    assert {path.name for path in VENDOR.iterdir()} == listed | {"vendor.toml"}
