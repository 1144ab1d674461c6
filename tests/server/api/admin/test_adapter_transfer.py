"""Adapters leave as zips and come in from elsewhere, over HTTP and on the command line."""

import io
import json
import os
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from httpx2 import AsyncClient, Response

from server.adapters import service
from server.db.session import Database
from server.jobs.steps.context import StepContext
from server.settings import Settings
from server.tenants import service as tenants
from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.bare import lora_of, make_bare_base, make_foreign
from training.adapters.export import entries, write_zip
from training.adapters.foreign import read_imported
from training.adapters.package import BaseRef, Foreign, verify, write_manifest
from training.base_models.manifest import load_base

Make = Callable[..., Awaitable[Any]]
HERE = "/admin/tenants/acme/adapters"
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def base(settings: Settings, tmp_path: Path) -> Path:
    """The installation's base."""
    made = make_bare_base(tmp_path / "made")
    settings.bases.mkdir(parents=True)
    return made.rename(settings.bases / settings.base)


@pytest.fixture
async def acme(make_tenant: Make, make_upload: Make, make_key: Make) -> dict[str, str]:
    """A tenant whose conversations are still being read, and its key."""
    await make_tenant("acme")
    await make_upload(state="queued")
    key: dict[str, str] = await make_key("acme", "train")
    return key


@pytest.fixture
async def version(
    database: Database, settings: Settings, acme: dict[str, str], *, base: Path, tmp_path: Path
) -> Path:
    """acme@1; its folder."""
    folder = make_foreign(tmp_path / "job" / "adapter", base_model_name_or_path=settings.base)
    manifest = load_base(base)
    ref = BaseRef(name=settings.base, serving_sha256=manifest.serving_sha256)
    write_manifest(folder, msgspec.structs.replace(MANIFEST, base=ref))
    async with database.transaction() as session:
        adapter = await service.register(
            session,
            await tenants.get(session, "acme"),
            None,
            settings=settings,
            folder=folder,
            report={"provenance": {"foreign": None}},
            state="ready",
        )
    return settings.adapters / adapter.engine_name


def packed(folder: Path, tmp_path: Path) -> bytes:
    """A zip as people make them: with the folder in it."""
    path = tmp_path / "adapter.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{folder.name}/{file.name}")
    return path.read_bytes()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


async def send(client: AsyncClient, key: dict[str, str], data: bytes, **query: str) -> Response:
    params = {"filename": "theirs.zip", **query}
    return await client.post(HERE, content=data, params=params, headers=key)


@only_sqlite
@pytest.mark.parametrize("form", ["peft", "merged", "base", "gguf"])
async def test_a_version_is_given_as_a_zip(
    client: AsyncClient, acme: dict[str, str], *, version: Path, tmp_path: Path, form: str
) -> None:
    answer = await client.get(f"{HERE}/1/download", params={"format": form}, headers=acme)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].endswith(f'filename="acme-1-{form}.zip"')
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        archive.extractall(tmp_path / "out")
    assert "README.md" in names
    assert (
        names
        > {
            "peft": {"adapter_model.safetensors", "adapter_config.json", "manifest.json"},
            "merged": {"model.safetensors", "config.json", "tokenizer_config.json"},
            "base": {"model.safetensors", "config.json", "tokenizer_config.json"},
            "gguf": {"adapter.gguf", "Modelfile"},
        }[form]
    )
    if form == "peft":
        (tmp_path / "out" / "README.md").unlink()
        assert verify(tmp_path / "out").label == "acme"
        weights = "adapter_model.safetensors"
        assert (tmp_path / "out" / weights).read_bytes() == (version / weights).read_bytes()


@only_sqlite
async def test_what_cannot_be_given_is_told_as_such(
    client: AsyncClient,
    acme: dict[str, str],
    *,
    version: Path,
    base: Path,
    make_tenant: Make,
    make_key: Make,
) -> None:
    await make_tenant("other")
    stranger = await make_key("other", "train")
    chat = await make_key("acme", "chat")
    assert (await client.get(f"{HERE}/1/download", headers=stranger)).status_code in {403, 404}
    assert (await client.get(f"{HERE}/1/download", headers=chat)).status_code == 403
    assert (await client.get(f"{HERE}/2/download", headers=acme)).status_code == 404
    odd = await client.get(f"{HERE}/1/download", params={"format": "onnx"}, headers=acme)
    assert odd.status_code == 400
    config = base / "serving" / "config.json"
    values = json.loads(config.read_bytes())
    config.write_text(json.dumps({**values, "architectures": ["MambaForCausalLM"]}))
    described = json.loads((base / "base.json").read_bytes())
    described["files"]["serving/config.json"]["size_bytes"] = config.stat().st_size
    (base / "base.json").write_text(json.dumps(described))
    gguf = await client.get(f"{HERE}/1/download", params={"format": "gguf"}, headers=acme)
    assert gguf.status_code == 400
    assert "MambaForCausalLM" in gguf.json()["detail"]
    os.rename(base, f"{base}-away")  # noqa: PTH104
    gone = await client.get(f"{HERE}/1/download", params={"format": "merged"}, headers=acme)
    assert (gone.status_code, gone.json()["code"]) == (404, "base_not_found")
    assert (await client.get(f"{HERE}/1/download", headers=acme)).status_code == 200


async def test_an_adapter_from_elsewhere_becomes_a_job_that_trains_nothing(
    client: AsyncClient,
    acme: dict[str, str],
    *,
    base: Path,
    tmp_path: Path,
    settings: Settings,
    database: Database,
) -> None:
    folder = make_foreign(tmp_path / "theirs", use_rslora=True)
    (folder / "training_args.bin").write_bytes(b"\x80pickle")
    answer = await send(
        client, acme, packed(folder, tmp_path), suffix="theirs", require_approval="true"
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["state"] == "queued"
    assert job["foreign"]["source"] == "theirs.zip"
    assert job["foreign"]["base"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (job["suffix"], job["require_approval"]) == ("theirs", True)
    seen = await client.get(f"/admin/tenants/acme/jobs/{job['id']}", headers=acme)
    assert seen.json() == job
    taken = settings.jobs / job["id"] / "foreign"
    assert read_imported(taken).foreign == msgspec.convert(job["foreign"], Foreign)
    assert {path.name for path in (settings.jobs / job["id"]).iterdir()} == {"foreign"}
    assert not list((settings.home / "blobs").rglob("sha256/*/*"))  # the upload itself is not kept
    assert StepContext(settings, database).folder(job["id"]) / "foreign" == taken


async def test_a_form_says_the_same_as_the_query(
    client: AsyncClient, acme: dict[str, str], *, base: Path, tmp_path: Path
) -> None:
    data = packed(make_foreign(tmp_path / "theirs"), tmp_path)
    answer = await client.post(
        HERE,
        files={"file": ("my\u202eadapter\n.zip", data)},
        data={"suffix": "theirs", "require_approval": "true"},
        headers=acme,
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["suffix"], job["require_approval"]) == ("theirs", True)
    assert job["foreign"]["source"].isprintable()
    for fields in ({"suffix": "a:b"}, {"require_approval": "perhaps"}, {"sufix": "a"}):
        refused = await client.post(
            HERE, files={"file": ("a.zip", data)}, data=fields, headers=acme
        )
        assert refused.status_code == 400
        assert refused.json()["param"] == next(iter(fields))


@only_sqlite
async def test_what_cannot_be_served_leaves_nothing_behind(
    client: AsyncClient, acme: dict[str, str], *, base: Path, tmp_path: Path, settings: Settings
) -> None:
    poison = lora_of()
    next(iter(poison.values()))[0, 0] = np.nan
    large = make_foreign(tmp_path / "large", tensors=lora_of(rank=65), r=65)
    cut = make_foreign(tmp_path / "cut")
    cut_short(cut / "adapter_model.safetensors")
    cases = [
        (packed(make_foreign(tmp_path / "dora", use_dora=True), tmp_path), "use_dora"),
        (packed(make_foreign(tmp_path / "nan", tensors=poison), tmp_path), "not finite"),
        (packed(cut, tmp_path), "bytes of data"),
        (packed(large, tmp_path), "max_lora_rank=128"),
        (b"no zip", "not a zip"),
    ]
    for data, reason in cases:
        refused = await send(client, acme, data)
        assert refused.status_code == 400, refused.text
        assert (refused.json()["code"], refused.json()["param"]) == ("adapter_refused", "file")
        assert reason in refused.json()["detail"]
        assert str(settings.home) not in refused.json()["detail"]
    assert not list(settings.jobs.glob("*"))
    assert not list((settings.home / "blobs").rglob("sha256/*/*"))
    jobs = await client.get("/admin/tenants/acme/jobs", headers=acme)
    assert jobs.json() == []
    os.rename(base, f"{base}-away")  # noqa: PTH104
    unmade = await send(client, acme, packed(make_foreign(tmp_path / "theirs"), tmp_path))
    assert (unmade.status_code, unmade.json()["code"]) == (409, "base_not_found")
    endless = await send(client, acme, bytes(settings.max_upload_bytes + 100_000))
    assert endless.status_code == 413


@only_sqlite
async def test_there_must_be_something_to_prove_it_on(
    client: AsyncClient, make_tenant: Make, make_key: Make, *, base: Path, tmp_path: Path
) -> None:
    await make_tenant("acme")
    key = await make_key("acme", "train")
    data = packed(make_foreign(tmp_path / "theirs"), tmp_path)
    refused = await send(client, key, data)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_transcripts")


@only_sqlite
async def test_an_export_is_taken_in_again(
    client: AsyncClient, acme: dict[str, str], *, version: Path, base: Path, tmp_path: Path
) -> None:
    write_zip(entries("peft", version, base), tmp_path / "export.zip")
    answer = await send(client, acme, (tmp_path / "export.zip").read_bytes())
    assert answer.status_code == 202, answer.text
    assert any("exactly this build" in note for note in answer.json()["foreign"]["notes"])


@only_sqlite
async def test_a_foreign_version_is_marked_wherever_it_is_shown(
    client: AsyncClient, acme: dict[str, str], *, version: Path, database: Database
) -> None:
    plain = await client.get(f"{HERE}/1", headers=acme)
    assert plain.json()["foreign"] is None
    foreign = Foreign(source="their.zip", sha256="0" * 64, base="x/y", notes=("a note",))
    async with database.transaction() as session:
        adapter = await service.get(session, await tenants.get(session, "acme"), version=1)
        adapter.report = {"provenance": {"foreign": msgspec.to_builtins(foreign)}}
    shown = (await client.get(HERE, headers=acme)).json()
    assert msgspec.convert(shown[0]["foreign"], Foreign) == foreign


@only_sqlite
async def test_a_tracker_that_is_not_installed_is_refused_with_the_command(
    client: AsyncClient,
    acme: dict[str, str],
    *,
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
) -> None:
    there = {"trl", "wandb"}
    monkeypatch.setattr("training.finetuning.trackers._is_there", lambda name: name in there)
    jobs = "/admin/tenants/acme/jobs"
    refused = await client.post(jobs, json={"report_to": ["mlflow", "wandb"]}, headers=acme)
    assert (refused.status_code, refused.json()["param"]) == (400, "report_to")
    assert "pip install mlflow" in refused.json()["detail"]
    unknown = await client.post(jobs, json={"report_to": ["comet"]}, headers=acme)
    assert unknown.status_code == 400
    made = await client.post(jobs, json={"report_to": ["wandb"]}, headers=acme)
    assert made.status_code == 201, made.text
    there.discard("trl")  # another machine trains: what it has is not known here
    made = await client.post(jobs, json={"report_to": ["mlflow"]}, headers=acme)
    assert made.status_code == 201
