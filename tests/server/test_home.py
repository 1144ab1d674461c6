"""The data folder: closed to other users, whatever writes into it and however it was before."""

import grp
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from server.engine.process.command import socket_path
from server.home import claim, open_to_others, private_folder
from server.settings import Settings, SettingsError
from tests.tiny import TINY

SAMPLE = Path(__file__).parents[2] / "connectors" / "samples" / "loaf.jsonl"
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "TENANTUNE_HOME": str(home),
        "TENANTUNE_ENGINE": "fake",
        "TENANTUNE_BASE": "tiny",
        "COLUMNS": "200",
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "home"


@pytest.fixture
def tenantune(home: Path) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "server", *words],
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
            umask=0o022,
        )

    return run


def everything(home: Path) -> Iterator[Path]:
    yield home
    yield from home.rglob("*")


def open_ones(home: Path) -> dict[str, str]:
    """What others have any permission for."""
    modes = {str(path): path.lstat().st_mode for path in everything(home) if not path.is_symlink()}
    return {path: oct(mode) for path, mode in modes.items() if mode & 0o077}


def open_up(home: Path) -> None:
    """As an older version left it, and more so."""
    for path in everything(home):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def make_base(home: Path) -> None:
    serving = home / "bases" / "tiny" / "serving"
    serving.mkdir(parents=True)
    (serving.parent / "base.json").write_bytes(msgspec.json.encode(TINY))
    (serving / "config.json").write_text(json.dumps({"num_attention_heads": 9}))


def test_what_commands_write_is_its_owners_alone(tenantune: Run, home: Path) -> None:
    tenantune("tenants", "create", "acme")
    imported = tenantune("transcripts", "import", str(SAMPLE), "--tenant", "acme")
    assert imported.returncode == 0, imported.stderr
    made = tenantune("transcripts", "create-dataset", "--tenant", "acme")
    assert Path(made.stdout.split()[-1]).parent == home / "datasets"
    assert {"tenantune.sqlite", "blobs", "datasets"} <= {path.name for path in home.iterdir()}
    assert open_ones(home) == {}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_an_older_data_folder_is_told_of_by_doctor_and_closed_by_the_next_command(
    tenantune: Run, home: Path
) -> None:
    make_base(home)
    for name in ("tenantune.sqlite", "blobs/sha256/ab/abc", "jobs/j/checkpoints/1", "run/x.log"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    open_up(home)
    checks = {c["name"]: c for c in json.loads(tenantune("doctor", "--json").stdout)}
    assert not checks["data folder"]["good"]
    assert str(home) in checks["data folder"]["found"]
    assert open_ones(home), "doctor looks and changes nothing"
    done = tenantune("tenants", "list")
    assert done.returncode == 0
    assert "open to other users; closed" in done.stderr
    assert open_ones(home) == {}
    assert open_to_others(Settings(home=home)) == []


def test_all_processes_of_up_write_for_their_owner_alone(tenantune: Run, home: Path) -> None:
    """Server, worker, engine and encoder, started on a folder that others could read."""
    tenantune("tenants", "create", "acme")
    make_base(home)
    open_up(home)
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "up", "--port", "0"],
        env=environment(home),
        stderr=subprocess.PIPE,
        text=True,
        umask=0o022,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "engine    ready" in line:
                break
        wait_for((home / "run" / "worker.lock").exists)
        assert (home / "run" / "engine.sock").is_socket()
        assert {"engine.log", "worker.log"} <= {path.name for path in (home / "run").iterdir()}
        wait_for((home / "dbos.sqlite").exists)
        imported = tenantune("transcripts", "import", str(SAMPLE), "--tenant", "acme")
        assert imported.returncode == 0, imported.stderr
        assert (home / "tenantune.sqlite-wal").exists()
        assert open_ones(home) == {}
        assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert open_ones(home) == {}


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_database_and_uploads_elsewhere_are_closed_too(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "blobs" / "sha256" / "ab").mkdir(parents=True)
    for name in ("blobs/sha256/ab/abc", "rows.sqlite", "rows.sqlite-wal", "not-ours"):
        (elsewhere / name).write_text("x")
        (elsewhere / name).chmod(0o644)
    settings = Settings(
        home=tmp_path / "home",
        database_url=str(elsewhere / "rows.sqlite"),
        blobs_url=(elsewhere / "blobs").as_uri(),
    )
    claim(settings, thorough=True)
    assert stat.S_IMODE((elsewhere / "not-ours").stat().st_mode) == 0o644
    assert not open_ones(elsewhere / "blobs" / "sha256")
    assert not (elsewhere / "rows.sqlite").stat().st_mode & 0o077
    assert not (elsewhere / "rows.sqlite-wal").stat().st_mode & 0o077


def test_a_folder_that_is_a_link_to_another_disk_is_closed_and_other_links_are_left(
    tmp_path: Path,
) -> None:
    disk, foreign = tmp_path / "disk", tmp_path / "foreign"
    for folder in (disk, foreign):
        folder.mkdir()
        (folder / "file").write_text("x")
        (folder / "file").chmod(0o644)
    home = tmp_path / "home"
    home.mkdir()
    (home / "datasets").symlink_to(disk)
    (disk / "link").symlink_to(foreign)
    claim(Settings(home=home), thorough=True)
    assert not (disk / "file").stat().st_mode & 0o077
    assert stat.S_IMODE((foreign / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("shared", ["/", "sticky"])
def test_a_folder_that_others_need_is_refused_not_closed(tmp_path: Path, shared: str) -> None:
    folder = Path("/")
    if shared == "sticky":
        folder = tmp_path / "tmp"
        folder.mkdir()
        folder.chmod(0o1777)
    before = folder.stat().st_mode
    with pytest.raises(SettingsError, match="TENANTUNE_HOME"):
        claim(Settings(home=folder))
    assert folder.stat().st_mode == before


def test_the_folder_of_sockets_is_closed_though_it_was_there_before(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(0o755)
    socket_path(run)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    run.chmod(0o777)
    private_folder(run)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", engine_group="no-such-group")
    with pytest.raises(SettingsError, match=r"TENANTUNE_ENGINE_GROUP.*no-such-group"):
        claim(settings)


READ = """
import os, sys
gid, home = int(sys.argv[1]), sys.argv[2]
os.setgroups([gid]); os.setgid(65534); os.setuid(65534)
def tried(do):
    try:
        do()
    except PermissionError:
        return "no"
    return "yes"
print(*(tried(do) for do in (
    lambda: open(home + "/bases/tiny/base.json").read(),
    lambda: open(home + "/adapters/acme.0/weights").read(),
    lambda: os.listdir(home + "/adapters"),
    lambda: os.listdir(home),
    lambda: open(home + "/tenantune.sqlite").read(),
    lambda: os.listdir(home + "/run"),
    lambda: open(home + "/adapters/acme.0/weights", "a"),
)))
"""


@pytest.mark.parametrize("was_open", [False, True])
def test_an_engines_group_reads_bases_and_adapters_and_nothing_else(
    home: Path, *, was_open: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    group = grp.getgrnam("daemon")
    settings = Settings(home=home, engine_group=group.gr_name)
    make_base(home)
    (home / "run").mkdir()
    (home / "tenantune.sqlite").write_text("rows")
    old = home / "adapters" / "acme.0"
    old.mkdir(parents=True)
    (old / "weights").write_text("x")
    (old / "weights").chmod(0o444)
    if was_open:
        open_up(home)
    claim(settings, thorough=True)
    assert open_to_others(settings) == []
    argv = [sys.executable, "-I", "-S", "-c", READ, str(group.gr_gid), str(home)]
    for folder in (home.parent, *home.parent.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    seen = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["yes", "yes", "yes", "no", "no", "no", "no"]
    claim(Settings(home=home), thorough=True)
    seen = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert set(seen.stdout.split()) == {"no"}
