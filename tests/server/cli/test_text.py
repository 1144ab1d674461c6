"""The command line in this process: text from outside, options that do not fit, and its pipes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import AsyncMock

import msgspec
import pytest
from click.testing import _NamedTextIOWrapper

from server.cli import console
from server.cli.demo.api_client import DemoFailed
from server.cli.demo.command import Demo
from server.cli.demo.results import print_comparison
from server.cli.demo.samples import SAMPLES
from server.settings import Settings
from tests.server.cli.running import Run, made, running
from tests.tiny import SAMPLE, TINY
from training.config import Objectives

ODD = "[/x] [bold]Corp[/] [id] :smile:"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    with running(home) as call:
        yield call


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_NamedTextIOWrapper, "isatty", lambda _stream: True)
    monkeypatch.setattr(console, "stdout", console.Terminal(width=250, no_color=True))


@pytest.fixture(scope="module")
def acme_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where there is a tenant whose every name is odd, and one that has nothing."""
    folder = tmp_path_factory.mktemp("acme")
    file = folder / "[x] loaf :smile:.jsonl"
    file.write_bytes(SAMPLE.read_bytes())
    with running(folder / "home") as run:
        made(run, "tenants", "create", "acme", "--name", ODD)
        made(run, "tenants", "create", "bare")
        made(run, "keys", "create", "--tenant", "acme", "--label", ODD)
        made(run, "webhooks", "create", "https://example.com/[/x]", "--tenant", "acme")
        made(run, "transcripts", "import", str(file), "--tenant", "acme")
    return folder / "home"


@pytest.fixture
def acme(acme_home: Path) -> Iterator[Run]:
    with running(acme_home) as call:
        yield call


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("tenants", "list"), ODD),
        (("keys", "list", "--tenant", "acme"), ODD),
        (("webhooks", "list", "--tenant", "acme"), "https://example.com/[/x]"),
        (("transcripts", "list", "--tenant", "acme"), "[x] loaf :smile:.jsonl"),
        (("bases", "list"), ODD),
    ],
)
@pytest.mark.usefixtures("on_a_terminal")
def test_lists_on_a_terminal_show_names_as_they_are(
    acme: Run, acme_home: Path, words: tuple[str, ...], shown: str
) -> None:
    (acme_home / "bases" / "odd").mkdir(parents=True, exist_ok=True)
    base = msgspec.structs.replace(TINY, name=ODD)
    (acme_home / "bases" / "odd" / "base.json").write_bytes(msgspec.json.encode(base))
    done = made(acme, *words)
    assert shown in done.stdout
    assert "─" in done.stdout  # it was a table


@pytest.mark.parametrize("group", ["jobs", "adapters"])
@pytest.mark.usefixtures("on_a_terminal")
def test_lists_on_a_terminal_may_be_empty(acme: Run, group: str) -> None:
    assert ": none" in made(acme, group, "list", "--tenant", "bare").stdout


def test_a_name_cannot_add_a_row_to_a_list_or_move_the_cursor(run: Run) -> None:
    made(run, "tenants", "create", "acme", "--name", "one\ntwo\tthree\x1b[2J")
    [row] = made(run, "tenants", "list").stdout.splitlines()
    assert row.split("\t")[1] == r"one\ntwo\tthree\x1b[2J"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("tenants", "create", "Bad [x]!"), 2, "SLUG 'Bad [x]!': expected lower-case letters"),
        (("tenants", "create", "acme2", "--custom-pattern", "[/x]"), 2, "'[/x]' is not NAME=REGEX"),
        (("tenants", "create", "acme2", "--custom-pattern", "[/x]=[a"), 2, "[/x]"),
        (("tenants", "create", "acme2", "--limit", "[/x]=1"), 2, "--limit [/x]=1: "),
        (("keys", "create", "--tenant", "[/]"), 3, "[/]"),
        (("keys", "create", "--tenant", "acme", "--scopes", "[/x]"), 2, "--scopes '[/x]': "),
        (("keys", "revoke", "[/x]", "--tenant", "acme"), 3, "[/x]"),
        (("webhooks", "create", "ftp://[/x]", "--tenant", "acme"), 2, "error: "),
        (("webhooks", "delete", "[/x]", "--tenant", "acme"), 3, "[/x]"),
        (("transcripts", "report", "[/x]", "--tenant", "acme"), 3, "'[/x]'"),
        (("jobs", "show", "[/foo]", "--tenant", "acme"), 3, "no job [/foo]"),
        (("jobs", "cancel", "[/foo]", "--tenant", "acme"), 3, "no job [/foo]"),
        (("train", "--tenant", "acme", "--recipe", "[/b]"), 2, "no recipe '[/b]'"),
        (("train", "--tenant", "acme", "--objective", "[/b]=1"), 2, "`[/b]`"),
        (("train", "--tenant", "acme", "--objective", "[/b]"), 2, "'[/b]' is not NAME=NUMBER"),
        (("usage", "--tenant", "[/x]"), 3, "[/x]"),
        (("[/x]",), 2, "'[/x]'"),
    ],
)
def test_errors_show_what_was_given_as_it_is(
    acme: Run, words: tuple[str, ...], code: int, says: str
) -> None:
    done = acme(*words)
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_base_that_is_none_is_named_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess[str]([], 1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    done = run("bases", "add", "[/x]")
    assert (done.exit_code, "'[/x]'" in done.stderr) == (2, True)


@pytest.mark.parametrize("header", ["foo [x],Message", "Ticket [id],From[x],[/Message]"])
def test_columns_are_named_as_the_file_names_them(acme: Run, tmp_path: Path, header: str) -> None:
    (tmp_path / "tickets.csv").write_text(f"{header}\n" + ",".join("a" for _ in header.split(",")))
    words = ("transcripts", "import", str(tmp_path / "tickets.csv"), "--importer", "csv")
    done = acme(*words, "--tenant", "bare")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    for column in header.split(","):
        assert column in done.stderr


def test_doctor_shows_paths_as_they_are(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTUNE_HOME", str(tmp_path / "[b]home" / "[" / "x]"))
    done = run("doctor")
    assert str(tmp_path / "[b]home" / "[" / "x]") in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_the_demo_shows_answers_and_failures_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = {"perplexity": 1.0, "exact": 0.5, "token_f1": 0.5, "similarity": 0.5}
    scores = {"new": score, "base": score, "lookup": {}}
    results = {s.slug: {"model": f"{s.slug}@1", "scores": scores} for s in SAMPLES}
    demo = Demo(Settings(home=tmp_path))
    demo.on_progress("[/x]")
    answers = {"base": "[/b]", "loaf": "[bold]l[/]", "northgate": ":smile:"}
    print_comparison("[/q]", answers, results, base="tiny")
    shown = capsys.readouterr().err
    for text in ("[/x]", "[/q]", "[/b]", "[bold]l[/]", ":smile:"):
        assert text in shown

    async def fails(*_: object, **__: object) -> None:
        raise ExceptionGroup("", [DemoFailed("GET [/x]: 500")])

    monkeypatch.setattr(Demo, "run", fails)
    module = sys.modules["server.cli.demo.command"]
    monkeypatch.setattr(module, "configure_logging", lambda _: None)
    monkeypatch.setattr(module, "lock_home", AsyncMock())
    done = run("demo")
    assert (done.exit_code, done.stderr) == (1, "error: GET [/x]: 500\n")


def test_there_is_one_way_to_print_for_people() -> None:
    for file in (ROOT / "server" / "cli").rglob("*.py"):
        text = file.read_text()
        markup = re.findall(r"\[/\]|\[bold|\[dim\]|markup=True|from_markup|[^.\w]Console\(\)", text)
        assert not markup, f"{file.name}: print with console.print_message, .print_table or .stdout"
        assert text.count("TextColumn(") == text.count("markup=False)") or file.name in {
            "console.py",
            "up.py",
        }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "--tenant", "acme", "--seed", "-1"), "--seed -1: expected at least 0"),
        (("train", "--tenant", "acme", "--seed", str(1 << 32)), "--seed 4294967296: expected"),
        (("train", "--tenant", "acme", "--seed", str(1 << 70)), "--seed 1180591620717411303424: "),
        (("train", "--tenant", "acme", "--suffix", "x" * 65), "--suffix: expected what ^([A-Za"),
        (("train", "--tenant", "acme", "--recipe", "x" * 101), "--recipe: expected at most 100"),
        (("train", "--tenant", "acme", "--objective", "max_perplexity=nan"), "--objective"),
        (("tenants", "create", "b", "--name", "B"), "SLUG 'b': expected lower-case letters"),
        (("tenants", "create", "bb", "--name", "x" * 201), "--name: expected at most 200"),
        (("tenants", "create", "bb", "--keep", "x"), "--allowlist 'x': expected at least 3 charac"),
        (("tenants", "update", "acme", "--name", "x" * 201), "--name: expected at most 200"),
        (("tenants", "update", "acme", "--allowlist", "x"), "--allowlist 'x': expected at least 3"),
        (("keys", "create", "--tenant", "acme", "--label", "x" * 201), "--label: expected at most"),
        (("keys", "create", "--tenant", "acme", "--scopes", "x"), "of admin, chat, train"),
        (("webhooks", "create", "foo", "--tenant", "acme"), "URL 'foo': expected https://..., at"),
        (("webhooks", "update", "x", "--tenant", "acme", "--url", "foo"), "--url 'foo': expected"),
        (("webhooks", "update", "x", "--tenant", "acme"), "--url, --event, --enable or --disable"),
        (
            ("tenants", "update", "acme"),
            "--name, --system-prompt, --custom-pattern, --allowlist, --mask, --keep-uploads,",
        ),
        (("adapters", "promote", str(1 << 70), "--tenant", "acme"), "VERSION"),
    ],
)
def test_a_value_that_the_api_would_refuse_is_refused_with_its_option(
    acme: Run, words: tuple[str, ...], says: str
) -> None:
    done = acme(*words)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert "$." not in done.stderr


def test_what_is_given_changes_a_tenant(run: Run) -> None:
    made(run, "tenants", "create", "acme", "--limit", "tokens_per_day=5")
    words = ("--name", "", "--limit", "default", "--custom-pattern", "order=[0-9]+")
    view = json.loads(made(run, "tenants", "update", "acme", *words, "--json").stdout)
    assert (view["name"], view["limits"], view["custom_patterns"]) == (
        "",
        None,
        {"order": "[0-9]+"},
    )


def test_an_options_old_name_works_and_is_not_shown(run: Run) -> None:
    made(run, "tenants", "create", "acme", "--number-pattern", "a=[0-9]{4}")
    words = (
        "--number-pattern",
        "b=B-[0-9]+",
        "--custom-pattern",
        "c=C-[0-9]+",
        "--keep",
        "@b.example",
    )
    view = json.loads(made(run, "tenants", "update", "acme", *words, "--json").stdout)
    assert view["custom_patterns"] == {"b": "B-[0-9]+", "c": "C-[0-9]+"}
    assert view["allowlist"] == ["@b.example"]
    for command in ("create", "update"):
        text = made(run, "tenants", command, "--help").stdout
        for new, old in (("--custom-pattern", "--number-pattern"), ("--allowlist", "--keep ")):
            assert new in text
            assert old not in text


def test_a_commands_old_name_works_and_is_not_shown(run: Run) -> None:
    made(run, "tenants", "create", "acme")
    new, old = ("transcripts", "create-dataset"), ("transcripts", "freeze")
    answers = [run(*words, "--tenant", "acme") for words in (new, old)]
    assert "0 usable conversations" in answers[0].stderr
    assert (answers[0].exit_code, answers[0].stderr) == (answers[1].exit_code, answers[1].stderr)
    text = made(run, "transcripts", "--help").stdout
    assert "create-dataset" in text
    assert "freeze" not in text


def test_a_job_is_known_by_the_id_that_v1_gives(acme: Run) -> None:
    words = ("train", "--tenant", "acme", "--recipe", "cpu-demo", "--json")
    job = json.loads(made(acme, *words).stdout)["id"]
    known = ("ftjob-" + job, "--tenant", "acme")
    assert json.loads(made(acme, "jobs", "show", *known).stdout)["id"] == job
    for verb in ("pause", "resume"):
        assert job in made(acme, "jobs", verb, *known).stderr
    assert acme("jobs", "approve", *known).exit_code == 4
    assert job in made(acme, "jobs", "cancel", *known).stderr
    assert acme("jobs", "follow", *known).exit_code == 1


def test_help_of_train_names_every_objective(run: Run) -> None:
    text = made(run, "train", "--help").stdout
    for name in Objectives.__struct_fields__:
        assert name in text


@pytest.mark.parametrize(
    ("name", "text", "ends"),
    [
        ("a.csv", "", (2, "the file is empty")),
        ("a.jsonl", "", (2, "the file is empty")),
        ("a.csv", "conversation_id,role,text\n", (1, "could be used (")),
        ("a.jsonl", '{"messages": []}\n', (1, "could be used (")),
        ("a.jsonl", '{"conversations": []}\n', (1, "could be used (")),
    ],
)
def test_a_file_with_nothing_usable_is_an_error(
    acme: Run, tmp_path: Path, name: str, text: str, ends: tuple[int, str]
) -> None:
    code, says = ends
    (tmp_path / name).write_text(text)
    words = ("transcripts", "import", str(tmp_path / name), "--tenant", "bare")
    for again in (words, (*words, "--format", "json")):
        done = acme(*again)
        assert done.exit_code == code, done.output
        assert name in done.stderr
        assert says in done.stderr


def test_a_tenant_without_transcripts_is_not_trained(acme: Run) -> None:
    done = acme("train", "--tenant", "bare")
    assert done.exit_code == 4
    assert "`tenantune transcripts import FILE --tenant bare`" in done.stderr
    assert made(acme, "jobs", "list", "--tenant", "bare").stdout == ""


def _process(*words: str, home: Path, stdout: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "server", *words],
        env={**os.environ, "TENANTUNE_HOME": str(home), "COLUMNS": "100"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [("settings",), ("tenants", "list"), ("--help",), ("jobs",)])
def test_a_reader_that_has_gone_is_no_error(acme_home: Path, words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert _process(*words, home=acme_home, stdout=writer) == (141, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", [("settings",), ("tenants", "list"), ("train", "--help")])
def test_a_full_disk_is_told_with_what_was_written(acme_home: Path, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = _process(*words, home=acme_home, stdout=full.fileno())
    assert done == (1, "error: standard output: No space left on device\n")


def test_a_file_that_cannot_be_read_is_named(run: Run, home: Path) -> None:
    home.write_text("not a folder")
    done = run("tenants", "list")
    assert done.exit_code == 2
    assert str(home) in done.stderr
