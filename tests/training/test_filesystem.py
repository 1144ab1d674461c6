import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training.filesystem import read_or_create, replacing, write_atomically


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "state.json"
    write_atomically(path, b"one")
    with replacing(path) as beside:
        beside.write_bytes(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "state.json"
    write_atomically(path, b"one")

    def write() -> None:
        with replacing(path) as beside:
            beside.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


DIES = """
import os, sys
from pathlib import Path
from training.filesystem import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_bytes(b"half")
    os._exit(9)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_one_and_what_is_in_use_is_not(tmp_path):
    path = tmp_path / "a[1].zip"
    other = tmp_path / ".a[1].zip.mine"
    other.touch()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", DIES, str(path)], check=False)
        assert len(list(tmp_path.iterdir())) == 2, "one file, whoever was killed how often"
    with replacing(path) as first:
        first.write_bytes(b"first")
        assert set(tmp_path.iterdir()) == {first, other}
        write_atomically(path, b"second")
        assert first.exists()
    assert path.read_bytes() == b"first"
    assert set(tmp_path.iterdir()) == {path, other}


def test_all_who_create_a_secret_together_get_the_same_one(tmp_path):
    path = tmp_path / "keys" / "secret"
    numbers = iter(range(100))

    def create(_: int) -> bytes:
        return read_or_create(path, lambda: str(next(numbers)).encode())

    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(create, range(16)))
    assert secrets == {path.read_bytes()}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert read_or_create(path, _never) in secrets


def _never() -> bytes:
    raise AssertionError


def test_a_secret_that_cannot_be_made_leaves_no_file(tmp_path: Path):
    with pytest.raises(AssertionError):
        read_or_create(tmp_path / "secret", _never)
    assert list(tmp_path.iterdir()) == []
