"""``tenantune adapters import`` and ``export``, in this process."""

import asyncio
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from click.testing import CliRunner, Result

from server.adapters import service
from server.cli import console, main
from server.db.session import Database
from server.jobs.steps.context import StepContext
from server.jobs.steps.prepare import prepare
from server.settings import Settings
from server.tenants import service as tenants
from tests.tiny import SAMPLE
from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.bare import make_bare_base, make_foreign
from training.adapters.package import BaseRef, Foreign, write_manifest
from training.base_models.manifest import load_base
from training.config import load_spec

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Commands, with a tenant that has transcripts and a base."""
    monkeypatch.setattr(console, "configure_logging", lambda _settings: None)
    monkeypatch.setenv("TENANTUNE_HOME", str(home))
    (home / "bases").mkdir(parents=True)
    make_bare_base(home / "made").rename(home / "bases" / Settings().base)

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, words)

    with structlog.testing.capture_logs():
        for words in (
            ("tenants", "create", "acme"),
            ("transcripts", "import", str(SAMPLE), "--tenant", "acme"),
        ):
            done = call(*words)
            assert done.exit_code == 0, done.output
        yield call


def register(home: Path, folder: Path, *, foreign: Foreign | None = None, seed: int = 17) -> None:
    """Make a version of what a job has left."""
    told = load_base(home / "bases" / Settings().base)
    ref = BaseRef(name=Settings().base, serving_sha256=told.serving_sha256)
    write_manifest(folder, msgspec.structs.replace(MANIFEST, base=ref, seed=seed))
    settings = Settings.from_env()

    async def work() -> None:
        database = Database(settings.database)
        async with database.transaction() as session:
            await service.register(
                session,
                await tenants.get(session, "acme"),
                None,
                settings=settings,
                folder=folder,
                report={"provenance": {"foreign": msgspec.to_builtins(foreign)}},
                state="ready",
            )
        await database.dispose()

    asyncio.run(work())


def prepared(job_id: str) -> Path:
    """Let a worker prepare a job; its folder."""
    settings = Settings.from_env()

    async def work() -> Path:
        database = Database(settings.database)
        context = StepContext(settings, database)
        await prepare(context, job_id, 0)
        await database.dispose()
        return context.folder(job_id)

    return asyncio.run(work())


def test_a_folder_from_elsewhere_becomes_a_job_whose_trainer_only_evaluates(
    run: Run, tmp_path: Path
) -> None:
    make_foreign(tmp_path / "axolotl" / "checkpoint-7")
    done = run("adapters", "import", str(tmp_path / "axolotl"), "--tenant", "acme", "--json")
    assert done.exit_code == 0, done.output
    job = json.loads(done.stdout)
    assert (job["state"], job["foreign"]["source"]) == ("queued", "axolotl")
    folder = prepared(job["id"])
    spec = load_spec(folder / "spec.json")
    assert spec.imported == str(folder / "foreign")
    assert (spec.recipe.rank, spec.recipe.adapter_dtype) == (4, "float32")


def test_a_refused_adapter_is_a_usage_error_with_its_reason(run: Run, tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "dora", use_dora=True)
    done = run("adapters", "import", str(folder), "--tenant", "acme")
    assert done.exit_code == 2
    assert "use_dora" in done.stderr
    assert run("adapters", "import", str(folder), "--tenant", "nobody").exit_code == 3
    assert run("jobs", "list", "--tenant", "acme", "--json").stdout.strip() == "[]"


def test_a_version_is_taken_away_in_each_form(run: Run, home: Path, tmp_path: Path) -> None:
    register(home, make_foreign(tmp_path / "job" / "adapter"))
    out = tmp_path / "out"
    out.mkdir()
    for form, inside in (
        ((), "adapter_config.json"),
        (("--merged",), "model.safetensors"),
        (("--gguf",), "adapter.gguf"),
        (("--base",), "model.safetensors"),
    ):
        name = "".join(form) or "peft"
        words = ("adapters", "export", "1", "--tenant", "acme", *form, "--out")
        for path in (out / f"{name}.zip", out / name):
            done = run(*words, str(path))
            assert done.exit_code == 0, done.output
            assert str(path.name) in done.stderr.replace("\n", "")
        with zipfile.ZipFile(out / f"{name}.zip") as archive:
            assert set(archive.namelist()) == {path.name for path in (out / name).iterdir()}
            assert inside in archive.namelist()
        again = run(*words, str(out / name))
        assert again.exit_code == 2
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    missing = run("adapters", "export", "2", "--tenant", "acme", "--out", str(out / "x.zip"))
    assert missing.exit_code == 3


def test_lists_mark_what_is_foreign(run: Run, home: Path, tmp_path: Path) -> None:
    register(home, make_foreign(tmp_path / "1" / "adapter"))
    theirs = Foreign(source="their.zip", sha256="0" * 64, base=None)
    register(home, make_foreign(tmp_path / "2" / "adapter", r=4, lora_alpha=4), foreign=theirs)
    rows = run("adapters", "list", "--tenant", "acme").stdout.splitlines()
    assert [row.split("\t")[-1] for row in rows] == ["foreign", ""]
    shown = json.loads(run("adapters", "list", "--tenant", "acme", "--json").stdout)
    assert [each["foreign"] and each["foreign"]["source"] for each in shown] == ["their.zip", None]


def test_a_canary_is_started_shown_changed_and_ended(run: Run, home: Path, tmp_path: Path) -> None:
    for seed in (1, 2):  # folders that are the same are one version
        register(home, make_foreign(tmp_path / str(seed) / "adapter"), seed=seed)
    tenant = ("--tenant", "acme")
    group = ("adapters", "canary")
    assert run("adapters", "promote", "1", *tenant).exit_code == 0
    assert run(*group, "show", *tenant).exit_code == 3
    assert run(*group, "end", *tenant).exit_code == 3
    assert run(*group, "start", "2", "--percent", "51", *tenant).exit_code == 2
    assert run(*group, "start", "1", "--percent", "10", *tenant).exit_code == 4
    done = run(*group, "start", "2", "--percent", "10", *tenant)
    assert (done.exit_code, done.stderr.strip()) == (0, "acme@2 answers 10 % of the requests")
    assert run(*group, "start", "2", "--percent", "20", *tenant).exit_code == 0
    shown = json.loads(run(*group, "show", *tenant, "--json").stdout)
    assert (shown["version"], shown["percent"], shown["live"]["version"]) == (2, 20, 1)
    table = run(*group, "show", *tenant)
    assert "acme@2 answers 20 % of the requests since" in table.stderr
    assert "thumbs: too little" in table.stderr
    assert table.stdout.startswith("requests\t0\t0\nfailed\t0 of 0\t0 of 0\n")
    assert "canary, 20 %" in run("adapters", "list", *tenant).stdout
    assert "acme@1 answers everything" in run(*group, "end", *tenant).stderr
    steps = json.loads(run("adapters", "history", *tenant, "--json").stdout)
    assert [step["kind"] for step in steps] == ["canary_end", "canary", "canary", "promote"]


def test_a_tracker_must_be_one_that_is_known(run: Run) -> None:
    done = run("train", "--tenant", "acme", "--report-to", "comet", "--no-wait")
    assert done.exit_code == 2
    assert "tensorboard" in done.stderr
