"""Commands in the process of the tests, where what a process does at its start and end is not asked."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from server.cli import console, main

Run = Callable[..., Result]


@contextmanager
def running(home: Path, env: Mapping[str, str] | None = None) -> Iterator[Run]:
    """Commands in this process, which leave its logging alone."""

    def call(*words: str) -> Result:
        return CliRunner(env=env).invoke(main, words)

    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        patch.setattr(console, "configure_logging", lambda _settings: None)
        patch.setenv("TENANTUNE_HOME", str(home))
        yield call


def made(run: Run, *words: str) -> Result:
    """Run a command that works."""
    done = run(*words)
    assert done.exit_code == 0, done.output
    return done
