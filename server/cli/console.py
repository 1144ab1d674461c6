"""How commands speak: tables for people, JSON for programs, exit codes that mean something.

0 done; 1 it was tried and did not succeed (a job failed, a gate was not passed); 2 the command or
its input is wrong; 3 no such thing; 4 conflict with what is there; 69 a part is not running.
"""

import asyncio
import functools
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Concatenate, NoReturn, ParamSpec

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import ConnectorError
from server.db.session import Database
from server.errors import Conflict, NotFound, ServerError, Unavailable
from server.logs import configure_logging
from server.settings import Settings, SettingsError
from training.errors import TrainingError

P = ParamSpec("P")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONFLICT = 4
EXIT_UNAVAILABLE = 69

err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, *, code: int) -> NoReturn:
    """Say why on standard error and leave with the code."""
    err.print(f"[bold red]error:[/] {message}", markup=True)
    sys.exit(code)


class App:
    """Settings and the database of one command."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """A session that commits at the end."""
        async with self.database.transaction() as session:
            yield session


def command(
    function: Callable[Concatenate[App, P], Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Make an ordinary function of a coroutine that takes an ``App``; errors become exit codes."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        settings = Settings.from_env()
        # a command's own words are its output; only what goes wrong is logged, to standard error
        configure_logging(msgspec.structs.replace(settings, log_level="warning"))
        settings.home.mkdir(parents=True, exist_ok=True)
        app = App(settings)
        try:
            await app.database.migrate()
            await function(app, *args, **kwargs)
        finally:
            await app.database.dispose()

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            asyncio.run(run(*args, **kwargs))
        except KeyboardInterrupt:
            fail("interrupted", code=130)
        except (SettingsError, ConnectorError, TrainingError) as exc:
            fail(str(exc), code=EXIT_USAGE)
        except NotFound as exc:
            fail(exc.message, code=EXIT_NOT_FOUND)
        except Conflict as exc:
            fail(exc.message, code=EXIT_CONFLICT)
        except Unavailable as exc:
            fail(exc.message, code=EXIT_UNAVAILABLE)
        except ServerError as exc:
            fail(exc.message, code=EXIT_USAGE)
        except OSError as exc:
            fail(f"{exc.filename or ''}: {exc.strerror or exc}", code=EXIT_USAGE)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
tenant_option = click.option("--tenant", required=True, metavar="SLUG", help="Whose.")


def show(value: object) -> None:
    """One JSON document on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows for people; tab-separated where standard output is a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join("" if cell is None else str(cell) for cell in row))
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    Console().print(shown if rows else f"{title}: none")
