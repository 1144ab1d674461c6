import re
import runpy
from pathlib import Path

import pytest

from server import settings as module
from server.engine.backends import fake
from server.engine.build import build_engine
from server.engine.process.command import EngineCommand
from server.logs import redact
from server.settings import Limits, Settings, SettingsError, describe
from training.config import Objectives


def test_defaults_run_on_one_machine_without_any_variable():
    settings = Settings.from_env({"HOME": "/home/ada"})
    assert settings.database.startswith("sqlite+aiosqlite:////")
    assert settings.database.endswith("/tenantune/tenantune.sqlite")
    assert settings.blobs == str(settings.home / "blobs")
    assert settings.port == 8000


def test_variables_are_read_with_their_types():
    settings = Settings.from_env(
        {
            "TENANTUNE_HOME": "/srv/tt",
            "TENANTUNE_PORT": "81",
            "TENANTUNE_DRAIN_SECONDS": "1.5",
            "TENANTUNE_ENGINE_OPTIONS": "max_loras=8 note='two words'",
            "TENANTUNE_LIMITS": "requests_per_minute=600 tokens_per_day=2000000",
            "TENANTUNE_OBJECTIVES": "max_perplexity=3.5",
            "TENANTUNE_CORS_ORIGINS": "https://app.example.com, http://localhost:3000",
        }
    )
    assert settings.home == Path("/srv/tt")
    assert settings.port == 81
    assert settings.drain_seconds == 1.5
    assert settings.engine_options == {"max_loras": "8", "note": "two words"}
    assert settings.objectives == Objectives(max_perplexity=3.5)
    assert settings.cors_origins == ("https://app.example.com", "http://localhost:3000")
    assert settings.limits == Limits(requests_per_minute=600, tokens_per_day=2_000_000)


def test_what_the_command_line_says_wins_and_what_it_leaves_out_does_not():
    settings = Settings.from_env(
        {"TENANTUNE_PORT": "81", "TENANTUNE_HOST": "::1"}, port=82, host=None
    )
    assert settings.port == 82
    assert settings.host == "::1"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TENANTUNE_PORT", "x"),
        ("TENANTUNE_PORT", "99999"),
        ("TENANTUNE_LOG_LEVEL", "loud"),
        ("TENANTUNE_WORKER_JOBS", "0"),
        ("TENANTUNE_DEFAULT_REGION", "england"),
        ("TENANTUNE_ENGINE_OPTIONS", "max_loras"),
        ("TENANTUNE_LIMITS", "requests_per_minute"),
        ("TENANTUNE_LIMITS", "requests_per_minute=many"),
        ("TENANTUNE_LIMITS", "requests_per_minute=0"),
        ("TENANTUNE_LIMITS", "requests_per_second=1"),
        ("TENANTUNE_OBJECTIVES", "max_perplexity=low"),
        ("TENANTUNE_CORS_ORIGINS", "app.example.com"),
        ("TENANTUNE_CORS_ORIGINS", "* https://app.example.com"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_variable(variable, value):
    with pytest.raises(SettingsError, match=variable):
        Settings.from_env({variable: value})


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgres://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("sqlite:////x/y", "sqlite+aiosqlite:////x/y"),
        ("/x/y.sqlite", "sqlite+aiosqlite:////x/y.sqlite"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
    ],
)
def test_a_database_url_gets_its_asynchronous_driver(given, used):
    assert Settings.from_env({"TENANTUNE_DATABASE_URL": given}).database == used


def test_the_old_word_for_the_fake_engine_still_works():
    assert Settings.from_env({"TENANTUNE_ENGINE": "scripted"}).engine == "fake"
    assert Settings.from_env({}, engine="scripted").engine == "fake"


def test_every_setting_is_described_with_a_default_and_a_line_of_help():
    rows = describe()
    assert [name for name, _, _ in rows] == [
        module.PREFIX + field.upper() for field in Settings.__struct_fields__
    ]
    assert all(text and not text.endswith(".") for _, _, text in rows)


def test_keys_and_passwords_never_reach_a_log():
    key = "tt_admin_" + "a" * 49
    event = {
        "event": f"called with {key}",
        "Authorization": "Bearer x",
        "nested": [{"url": "postgresql://me:pw@db/x"}, Path("/tmp")],
        "count": 3,
    }
    assert redact(event) == {
        "event": "called with tt_admin_***",
        "Authorization": "***",
        "nested": [{"url": "postgresql://me:***@db/x"}, "/tmp"],
        "count": 3,
    }


def with_options(tmp_path: Path, options: str, **variables: str) -> Settings:
    names = {"TENANTUNE_HOME": str(tmp_path), "TENANTUNE_ENGINE_OPTIONS": options}
    return Settings.from_env({**names, **variables})


def test_options_reach_the_fake_engine(tmp_path, monkeypatch):
    commands: list[EngineCommand] = []

    class Service:
        def __init__(self, *, command: EngineCommand, **_rest: object) -> None:
            commands.append(command)

    monkeypatch.setattr("server.engine.build.EngineService", Service)
    options = "words=40 tokens-per-second=12.5 max_num_seqs=3 max_model_len=100 start_seconds=2"
    build_engine(with_options(tmp_path, options, TENANTUNE_ENGINE="fake"))
    [command] = commands
    assert command.max_num_seqs == 3
    given = dict(zip(command.argv, command.argv[1:], strict=False))
    assert given["--words"] == "40"
    assert given["--tokens-per-second"] == "12.5"
    assert given["--max-num-seqs"] == "3"
    assert given["--max-model-len"] == "100"
    assert given["--start-seconds"] == "2.0"


def test_each_option_is_one_of_the_fake_engines_command_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fake", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module("server.engine.backends.fake", run_name="__main__")
    known = set(re.findall(r"--([a-z-]+) [A-Z]", capsys.readouterr().out))
    assert {name.replace("_", "-") for name in fake.MINIMUM} == known - {
        "uds",
        "base",
        "adapters",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("max_lora_rank=64", "'max_lora_rank': the fake engine has none of this name; it has "),
        ("uds=/tmp/x", "max_cpu_loras, max_loras, max_model_len, max_num_seqs, start_seconds"),
        ("words=many", "words='many': a whole number of at least 0"),
        ("words=1.5", "a whole number"),
        ("words=-1", "a whole number"),
        ("max_num_seqs=0", "of at least 1"),
        ("tokens_per_second=0", "a number"),
        ("tokens_per_second=nan", "a number"),
        ("start_seconds=inf", "a number"),
    ],
)
def test_an_option_that_the_fake_engine_has_not_is_refused(tmp_path, options, words):
    with pytest.raises(SettingsError) as refused:
        build_engine(with_options(tmp_path, options, TENANTUNE_ENGINE="fake"))
    assert words in str(refused.value)


def test_options_of_an_engine_that_runs_already_are_refused(tmp_path):
    url = "http://127.0.0.1:9000"
    with pytest.raises(SettingsError, match=r"max_loras.*TENANTUNE_ENGINE_URL"):
        build_engine(with_options(tmp_path, "max_loras=8", TENANTUNE_ENGINE_URL=url))
