from pathlib import Path

import pytest

from server import settings as module
from server.logs import redact
from server.settings import Limits, Settings, SettingsError, describe
from training.spec import Objectives


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
        }
    )
    assert settings.home == Path("/srv/tt")
    assert settings.port == 81
    assert settings.drain_seconds == 1.5
    assert settings.engine_options == {"max_loras": "8", "note": "two words"}
    assert settings.objectives == Objectives(max_perplexity=3.5)
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
