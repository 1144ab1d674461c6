"""The command line: what it prints, where, and how it exits."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.server.cli.running import Run, made, running
from tests.tiny import TINY

Given = Callable[..., str]
SAMPLE = Path(__file__).parents[3] / "connectors" / "samples" / "loaf.jsonl"


@pytest.fixture
def tenantune(tmp_path: Path) -> Iterator[Run]:
    """Commands in this process, which start at once."""
    with running(tmp_path / "home") as run:
        yield run


@pytest.fixture
def given(tenantune: Run) -> Given:
    """What there is before, made by commands that work; what they print."""
    return lambda *words: made(tenantune, *words).stdout


def in_its_own_process(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "server", *words],
        env={**os.environ, "TENANTUNE_HOME": str(home), "COLUMNS": "100", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_key_is_all_that_standard_output_holds(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    done = tenantune("keys", "create", "--tenant", "acme", "--scopes", "chat,train")
    assert done.exit_code == 0
    assert re.fullmatch(r"tt_[0-9A-Za-z]+\n", done.stdout)
    listed = json.loads(tenantune("keys", "list", "--tenant", "acme", "--json").stdout)
    assert listed[0]["scopes"] == ["chat", "train"]
    assert done.stdout.strip() not in json.dumps(listed)


def test_a_rotated_key_is_all_that_standard_output_holds(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    key_id = json.loads(given("keys", "create", "--tenant", "acme", "--json"))["details"]["id"]
    rotated = tenantune("keys", "rotate", key_id, "--tenant", "acme", "--overlap", "60")
    assert re.fullmatch(r"tt_[0-9A-Za-z]+\n", rotated.stdout), rotated.stderr
    assert tenantune("keys", "rotate", key_id, "--tenant", "acme").exit_code == 4


def test_a_webhooks_secret_is_all_that_standard_output_holds(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    url = "https://example.com/hook"
    done = tenantune("webhooks", "create", url, "--tenant", "acme")
    assert re.fullmatch(r"whsec_[0-9A-Za-z+/]{32}\n", done.stdout), done.stderr
    [listed] = json.loads(tenantune("webhooks", "list", "--tenant", "acme", "--json").stdout)
    assert listed["url"] == url
    refused = tenantune("webhooks", "create", "https://127.0.0.1/", "--tenant", "acme")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "public" in refused.stderr
    assert tenantune("webhooks", "deliveries", listed["id"], "--tenant", "acme").stdout == ""


def test_a_widget_is_switched_on_and_says_what_goes_on_the_site(tenantune: Run) -> None:
    tenantune("tenants", "create", "acme")
    assert tenantune("widget", "show", "--tenant", "acme").exit_code == 3
    made = tenantune("widget", "enable", "--tenant", "acme")
    assert re.fullmatch(
        r'<script async src="http://127\.0\.0\.1:8000/widget\.js" data-key="tt_pub_[0-9A-Za-z]{24}" '
        r'data-theme="[^"<>]+"></script>\n',
        made.stdout,
    ), made.stderr
    shown = tenantune("widget", "show", "--tenant", "acme").stdout.splitlines()
    rows = dict(line.split("\t", 1) for line in shown)
    assert (rows["state"], rows["snippet"]) == ("on", made.stdout.strip())
    assert tenantune("widget", "disable", "--tenant", "acme").exit_code == 0


def test_a_widgets_sites_and_secret_are_kept(tenantune: Run) -> None:
    tenantune("tenants", "create", "acme")
    tenantune("widget", "enable", "--tenant", "acme")
    site = "https://Shop.example:443"
    assert tenantune("widget", "origins", "add", site, "--tenant", "acme").exit_code == 0
    secret = tenantune("widget", "secret", "rotate", "--tenant", "acme").stdout
    assert re.fullmatch(r"tt_jwt_[0-9A-Za-z]{43}\n", secret)
    shown = json.loads(tenantune("widget", "show", "--tenant", "acme", "--json").stdout)
    assert shown["widget"]["origins"] == ["https://shop.example"]
    assert shown["widget"]["identity_secret_hint"] == f"...{secret.strip()[-4:]}"
    assert shown["refused_origins"] == []


def test_usage_comes_as_csv(tenantune: Run) -> None:
    done = tenantune("usage", "--csv", "--by", "day", "--first", "2026-01-31")
    assert done.stdout.splitlines() == [
        "tenant,day,model,key_id,requests,errors,refused,prompt_tokens,cached_tokens,completion_tokens,"
        "gpu_seconds"
    ], done.stderr
    assert tenantune("usage", "--tenant", "nobody").exit_code == 3


def test_limits_are_given_and_taken_away(tenantune: Run) -> None:
    def limits(*words: str) -> object:
        done = tenantune("tenants", *words, "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)["limits"]

    assert limits("create", "acme", "--limit", "requests_per_minute=9") == {
        "requests_per_minute": 9
    }
    assert limits("update", "acme", "--limit", "default") is None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("keys", "create"), 2, "--tenant"),
        (("keys", "create", "--tenant", "nobody"), 3, "nobody"),
        (("tenants", "create", "Not A Slug"), 2, "SLUG 'Not A Slug'"),
        (("jobs", "list", "--tenant", "nobody"), 3, "nobody"),
        (("tenants", "create", "acme", "--limit", "requests_per_minute=x"), 2, "--limit"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_exit_codes_and_messages_mean_something(
    tenantune: Run, words: tuple[str, ...], code: int, says: str
) -> None:
    done = tenantune(*words)
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_process_exits_with_the_code_of_its_command(tmp_path: Path, given: Given) -> None:
    given("tenants", "create", "acme")
    made = in_its_own_process(tmp_path / "home", "keys", "create", "--tenant", "acme")
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"tt_[0-9A-Za-z]+\n", made.stdout)
    refused = in_its_own_process(tmp_path / "home", "keys", "create", "--tenant", "nobody")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "nobody" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_slug_that_is_taken_is_a_conflict(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    again = tenantune("tenants", "create", "acme")
    assert again.exit_code == 4
    assert "acme" in again.stderr


def test_transcripts_are_imported_without_a_server_and_only_once(
    tenantune: Run, given: Given
) -> None:
    given("tenants", "create", "loaf")
    first = tenantune("transcripts", "import", str(SAMPLE), "--tenant", "loaf")
    assert first.exit_code == 0, first.stderr
    assert "260 conversations" in first.stdout
    asked = ("transcripts", "import", str(SAMPLE), "--tenant", "loaf", "--format", "json")
    again = json.loads(tenantune(*asked).stdout)
    assert again["report"]["stored"] == 260
    listed = json.loads(tenantune("transcripts", "list", "--tenant", "loaf", "--json").stdout)
    assert [each["id"] for each in listed] == [again["id"]]
    gone = tenantune("transcripts", "delete", again["id"], "--tenant", "loaf")
    assert (gone.exit_code, gone.stdout) == (0, "")
    assert "260 conversations" in gone.stderr
    assert tenantune("transcripts", "delete", again["id"], "--tenant", "loaf").exit_code == 3


def test_a_file_that_no_importer_knows_says_what_there_is(
    tenantune: Run, given: Given, tmp_path: Path
) -> None:
    given("tenants", "create", "acme")
    strange = tmp_path / "strange.bin"
    strange.write_bytes(b"\x7fELF nothing to read")
    done = tenantune("transcripts", "import", str(strange), "--tenant", "acme")
    assert done.exit_code == 1
    assert "openai" in done.stderr


def test_a_job_without_a_worker_waits_and_says_so(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    given("transcripts", "import", str(SAMPLE), "--tenant", "acme")
    done = tenantune("train", "--tenant", "acme", "--recipe", "cpu-demo", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "queued"
    assert "tenantune up" in done.stderr


def test_a_job_is_paused_and_resumed(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    given("transcripts", "import", str(SAMPLE), "--tenant", "acme")
    asked = ("train", "--tenant", "acme", "--recipe", "cpu-demo", "--json")
    job = json.loads(given(*asked))["id"]
    assert tenantune("jobs", "pause", job, "--tenant", "acme").exit_code == 0
    shown = tenantune("jobs", "show", job, "--tenant", "acme")
    assert json.loads(shown.stdout)["state"] == "paused"
    assert tenantune("jobs", "resume", job, "--tenant", "acme").exit_code == 0
    assert tenantune("jobs", "resume", job, "--tenant", "acme").exit_code == 4


def test_a_misspelt_objective_names_those_that_exist(tenantune: Run, given: Given) -> None:
    given("tenants", "create", "acme")
    done = tenantune("train", "--tenant", "acme", "--objective", "max_perplexty=3")
    assert done.exit_code == 2
    assert "max_perplexity" in done.stderr


def test_doctor_tells_what_is_missing_and_what_to_do(tenantune: Run) -> None:
    done = tenantune("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["python"]["good"]
    assert not checks["base"]["good"]
    assert "tenantune up" in checks["base"]["advice"]
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("options", "heads", "reason"),
    [
        ("", 36, "attention heads of 16 dimensions"),
        ("max_lora_rank=5", 9, "engine option max_lora_rank=5"),
    ],
)
def test_up_says_in_words_why_the_engine_cannot_serve(
    tmp_path: Path, options: str, heads: int, reason: str
) -> None:
    serving = tmp_path / "bases" / "tiny" / "serving"
    serving.mkdir(parents=True)
    (serving.parent / "base.json").write_bytes(msgspec.json.encode(TINY))
    (serving / "config.json").write_text(json.dumps({"num_attention_heads": heads}))
    refused = in_its_own_process(
        tmp_path, "up", TENANTUNE_BASE="tiny", TENANTUNE_ENGINE_OPTIONS=options
    )
    assert refused.returncode == 2
    assert reason in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
