"""Zips of strangers: three files come out, or nothing."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from training.adapters.foreign_zip import MAX_DIRECTORY_BYTES, largest_adapter_bytes, unpack_adapter
from training.errors import ArtifactError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_BYTES = 4096


def zipped(path: Path, entries: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def unpacked(archive: Path) -> dict[str, bytes]:
    out = archive.parent / "out"
    unpack_adapter(archive, out, max_bytes=MAX_BYTES)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*")}


@pytest.mark.parametrize("folder", ["", "run/", "a/b/"])
def test_the_adapter_is_found_and_nothing_else_is_unpacked(tmp_path: Path, folder: str) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        {
            f"{folder}checkpoint-3/{CONFIG}": b"other",
            f"{folder}{CONFIG}": b"{}",
            f"{folder}{WEIGHTS}": b"weights",
            f"{folder}training_args.bin": b"\x80pickle",
            "../../evil": b"x",
            "/etc/evil": b"x",
            f"../{WEIGHTS}": b"x",
            f"{folder}README.md": b"x",
        },
    )
    assert unpacked(archive) == {CONFIG: b"{}", WEIGHTS: b"weights"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "out"}


def test_paths_that_lead_outside_are_only_names(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"../{CONFIG}": b"{}", f"../{WEIGHTS}": b"weights"})
    assert unpacked(archive) == {CONFIG: b"{}", WEIGHTS: b"weights"}
    assert not (tmp_path / CONFIG).exists()


def test_a_zip_made_on_windows_is_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"run/{CONFIG}": b"{}", f"run/{WEIGHTS}": b"weights"})
    archive.write_bytes(archive.read_bytes().replace(b"run/", b"run\\"))
    assert unpacked(archive) == {CONFIG: b"{}", WEIGHTS: b"weights"}


def test_a_bomb_is_stopped(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {CONFIG: b"{}", WEIGHTS: bytes(10_000_000)})
    assert archive.stat().st_size < 20_000
    with pytest.raises(ArtifactError, match="at most 4,096"):
        unpacked(archive)
    data = archive.read_bytes()
    size = (10_000_000).to_bytes(4, "little")
    archive.write_bytes(data.replace(size, (100).to_bytes(4, "little")))  # as if it were small
    (tmp_path / "out").rename(tmp_path / "gone")
    with pytest.raises(ArtifactError, match=r"expands|cannot be read"):
        unpacked(archive)
    left = tmp_path / "out" / WEIGHTS
    assert left.stat().st_size <= MAX_BYTES


def test_links_locks_and_odd_methods_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo(WEIGHTS)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(CONFIG, "{}")
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArtifactError, match="not a file"):
        unpacked(tmp_path / "link.zip")
    (tmp_path / "out").rename(tmp_path / "1")
    odd = zipped(tmp_path / "odd.zip", {CONFIG: b"{}", WEIGHTS: b"x"}, method=zipfile.ZIP_LZMA)
    with pytest.raises(ArtifactError, match="usual way"):
        unpacked(odd)
    locked = zipped(tmp_path / "locked.zip", {CONFIG: b"{}", WEIGHTS: b"x"})
    data = bytearray(locked.read_bytes())
    for place in range(len(data) - 4):
        if data[place : place + 4] == b"PK\x01\x02":
            data[place + 8] |= 1
    locked.write_bytes(data)
    (tmp_path / "out").rename(tmp_path / "2")
    with pytest.raises(ArtifactError, match="encrypted"):
        unpacked(locked)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"README.md": b"x"}, "save_pretrained"),
        ({CONFIG: b"{}", "adapter_model.bin": b"x"}, "can run code"),
        ({CONFIG: b"{}"}, f"no {WEIGHTS}"),
        ({CONFIG: b"{}", "adapter_model-00001-of-00002.safetensors": b"x"}, "several files"),
        ({f"a/{CONFIG}": b"{}", f"b/{CONFIG}": b"{}"}, "several adapters"),
    ],
)
def test_a_zip_without_an_adapter_says_what_is_missing(
    tmp_path: Path, entries: dict[str, bytes], said: str
) -> None:
    with pytest.raises(ArtifactError, match=said):
        unpacked(zipped(tmp_path / "a.zip", entries))


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(CONFIG, "{}")
        archive.writestr(WEIGHTS, "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(WEIGHTS, "two")
    with pytest.raises(ArtifactError, match="twice"):
        unpacked(tmp_path / "a.zip")


def test_a_list_of_entries_without_end_is_not_read(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff" * 2
    end += (MAX_DIRECTORY_BYTES + 1).to_bytes(4, "little") + bytes(4) + bytes(2)
    archive.write_bytes(bytes(MAX_DIRECTORY_BYTES + 1) + end)
    with pytest.raises(ArtifactError, match="too many entries"):
        unpacked(archive)
    plain = zipped(tmp_path / "b.zip", {CONFIG: b"{}", WEIGHTS: b"x"}).read_bytes()
    place = plain.rfind(b"PK\x05\x06")
    archive.write_bytes(plain[:place] + b"PK\x06\x07" + bytes(16) + plain[place:])
    with pytest.raises(ArtifactError, match="64-bit"):
        unpacked(archive)


def test_damage_anywhere_is_reported_as_such(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", {CONFIG: b"{}", WEIGHTS: bytes(range(256)) * 4}).read_bytes()
    damaged = tmp_path / "b.zip"
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 0xFF
        damaged.write_bytes(data)
        try:
            found = unpacked(damaged)
        except ArtifactError:
            pass
        else:  # a date, or a comment
            assert found == {CONFIG: b"{}", WEIGHTS: bytes(range(256)) * 4}
        for left in (tmp_path / "out").glob("*"):
            left.unlink()
        if (tmp_path / "out").exists():
            (tmp_path / "out").rmdir()
    for cut in range(0, len(whole), 7):
        damaged.write_bytes(whole[:cut])
        with pytest.raises(ArtifactError):
            unpacked(damaged)


def test_what_is_no_zip_is_reported_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for data in (b"", b"PK", b"no zip at all" * 100, io.BytesIO(bytes(70_000)).getvalue()):
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match="not a zip"):
            unpacked(path)


def test_the_bound_follows_the_base() -> None:
    small = largest_adapter_bytes({"a": (10, 20)})
    assert largest_adapter_bytes({"a": (10, 20), "b": (1000, 1000)}) - small == 2000 * 256 * 4
