"""The bill of materials and the audit: of the lock files as they are, and of cases made for the rules."""

import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from deploy.locked import ROOT, Pin, affects, audit, bill_of, pins, refreshed

LOCKS = [
    ROOT / name
    for name in (
        "deploy/requirements-cpu.lock",
        "deploy/requirements-gpu.lock",
        "deploy/torch-cpu.lock",
        "deploy/uv.lock",
    )
]
KNOWN = ROOT / "deploy" / "advisories.json"


def advisory(*events: dict[str, str], name: str = "Some_Package", **fields: Any) -> dict[str, Any]:
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    return {"id": "X-1", "summary": "bad", "affected": [affected], **fields}


def pin(version: str, name: str = "some-package") -> Pin:
    return Pin(name, version, [], [])


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_is_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = pins(path)
    assert len(found) == sum(line[:1].isalnum() for line in text.splitlines())
    assert sum(len(one.hashes) for one in found) == text.count("--hash=sha256:")
    assert all(one.hashes for one in found)


def test_what_is_installed_is_in_the_bill_with_what_asked_for_it() -> None:
    bill = bill_of(LOCKS[:1])
    versions = {part["name"]: part["version"] for part in bill["components"]}
    for name in ("litestar", "uvicorn", "sqlalchemy", "transformers"):
        assert versions[canonicalize_name(name)] == metadata.version(name)
    needs = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert f"pkg:pypi/litestar@{versions['litestar']}" in needs["tenantune"]
    aiohttp = f"pkg:pypi/aiohttp@{versions['aiohttp']}"
    assert f"pkg:pypi/aiosignal@{versions['aiosignal']}" in needs[aiohttp]
    references = {part["bom-ref"] for part in bill["components"]}
    assert len(references) == len(bill["components"])
    assert set(needs) == references | {"tenantune"}
    assert {one for each in needs.values() for one in each} <= references


def test_the_bill_is_the_same_for_the_same_locks_and_another_for_others() -> None:
    assert bill_of(LOCKS[:1]) == bill_of(LOCKS[:1])
    assert bill_of(LOCKS[:1])["serialNumber"] != bill_of(LOCKS[1:2])["serialNumber"]


@pytest.mark.parametrize(
    ("version", "hit"),
    [("1.0", False), ("1.1", True), ("1.9.9+cpu", True), ("2.0rc1", True), ("2.0", False),
     ("2.1", False), ("3.0", True), ("3.5", True), ("3.5.post1", False)],
)  # fmt: skip
def test_a_version_is_within_the_ranges_or_not(version: str, *, hit: bool) -> None:
    ranges = advisory(
        {"introduced": "1.1"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"last_affected": "3.5"}
    )
    assert affects(ranges, pin(version)) is hit
    assert not affects(ranges, pin(version, "another"))
    assert not affects({**ranges, "withdrawn": "2026-01-01T00:00:00Z"}, pin(version))


def test_versions_may_be_listed_and_other_kinds_of_range_say_nothing() -> None:
    listed = advisory()
    listed["affected"][0] |= {
        "versions": ["1.0", "2004d"],
        "ranges": [{"type": "GIT", "events": []}],
    }
    assert affects(listed, pin("1.0.0"))
    assert not affects(listed, pin("1.1"))
    other = advisory({"introduced": "0"})
    other["affected"][0]["package"]["ecosystem"] = "npm"
    assert not affects(other, pin("1.0"))


def test_an_advisory_that_applies_is_a_problem_unless_it_is_accepted_for_a_reason() -> None:
    known: dict[str, Any] = {
        "accepted": {},
        "advisories": [advisory({"introduced": "0"}, {"fixed": "2"})],
    }
    assert audit(known, [pin("1")]) == ["some-package 1: X-1: bad"]
    assert audit(known, [pin("2")]) == []
    known["accepted"] = {"X-1": ""}
    assert len(audit(known, [pin("1")])) == 1
    known["accepted"] = {"X-1": "the function is not called"}
    assert audit(known, [pin("1")]) == []
    assert audit(known, [pin("2")]) == [
        "accepted: X-1 applies to nothing that is locked: remove it"
    ]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "deploy/locked.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_nothing_is_known_against_what_is_locked_and_an_old_version_would_be_found(
    tmp_path: Path,
) -> None:
    now = run("audit", KNOWN, *LOCKS)
    assert now.returncode == 0, now.stderr
    assert "advisories of 20" in now.stderr
    old = tmp_path / "old.lock"
    for known in json.loads(KNOWN.read_text(encoding="utf-8"))["advisories"]:
        (affected,) = known["affected"]
        name, since = affected["package"]["name"], affected["ranges"][0]["events"][0]["introduced"]
        version = "0.0.1" if since == "0" else since
        old.write_text(f"{name}=={version} \\\n    --hash=sha256:{'0' * 64}\n", encoding="utf-8")
        assert affects(known, pins(old)[0]), known["id"]
    then = run("audit", KNOWN, old)
    assert then.returncode == 1
    assert f"{name} {version}: " in then.stderr


def test_the_list_is_renewed_from_an_archive_of_all_advisories(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    long = advisory({"introduced": "0"}, {"fixed": "1"}, details="long", references=[{"url": "x"}])
    with zipfile.ZipFile(archive, "w") as records:
        records.writestr("X-1.json", json.dumps(long))
        records.writestr("X-2.json", json.dumps({**long, "id": "X-2", "withdrawn": "2026-01-01"}))
        records.writestr("X-3.json", json.dumps({**advisory(name="unknown"), "id": "X-3"}))
    old = {"collected": "2020-01-01", "source": "", "accepted": {"X-1": "why"}, "advisories": []}
    new = refreshed(archive, old, [pin("2")])
    assert new["accepted"] == {"X-1": "why"}
    assert new["collected"] > "2026"
    assert new["source"] == "all.zip"
    (kept,) = new["advisories"]
    assert kept["id"] == "X-1"
    assert set(kept) == {"id", "summary", "affected"}


def test_it_says_how_it_is_called() -> None:
    wrong = run("audit")
    assert wrong.returncode == 2
    assert "python deploy/locked.py audit" in wrong.stderr
