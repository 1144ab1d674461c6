"""How commands speak: tables for people, JSON for programs, exit codes that mean something.

0 done; 1 it was tried and did not succeed (a job failed, or its adapter did not go live); 2 the
command or its input is wrong; 3 no such thing; 4 conflict with what is there; 69 a part is not
0 done; 1 it was tried and did not succeed (a job failed, or its adapter did not go live); 2 the
command or its input is wrong; 3 no such thing; 4 conflict with what is there; 69 a part is not
running; 130 and 143 stopped by Ctrl-C or SIGTERM before it was done; 141 who read the output has
gone (``| head``), which is no error.

What is printed is text, never markup: names, files' headers and models' answers hold brackets.
Colour is given beside the text: ``tell(("ok", "green"), f" {name}")``.
"""

import contextlib
import errno
import functools
import io
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Concatenate, NoReturn, ParamSpec, TextIO

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import ConnectorError
from server import shutdown
from server.db.session import Database
from server.errors import Conflict, NotFound, ServerError, Unavailable
from server.home import keep_private, take
from server.logs import configure_logging
from server.settings import Settings, SettingsError
from training.errors import TrainingError

P = ParamSpec("P")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONFLICT = 4
EXIT_UNAVAILABLE = 69
STOP_SECONDS = 9.0  # a child that saves takes 6
EXIT_NO_READER = 128 + 13  # as a shell counts a program that SIGPIPE ended

# those that turn the direction of text or make lines, too
_MORE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL = re.compile(rf"[\x00-\x1f{_MORE}]")
_CONTROL_BUT_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_MORE}]")


class Terminal(Console):
    """Prints text as it is: no markup, no emoji codes, no colours of its own."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - rich's own
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more."""
        self.quiet = True
        give_up(BrokenPipeError())


err = Terminal(stderr=True, soft_wrap=True)
out = Terminal()


def plain(text: object, *, lines: bool = False) -> str:
    """The text with its control characters spelt out; with ``lines``, not those that make lines.

    A stored name could otherwise move a terminal's cursor, or add a row to a list in a pipe.
    """
    pattern = _CONTROL_BUT_LINES if lines else _CONTROL
    return pattern.sub(lambda found: repr(found[0])[1:-1], str(text))


def tell(*parts: str | tuple[str, str]) -> None:
    """A line on standard error, of texts and of (text, style)."""
    texts = [part if isinstance(part, tuple) else (part, "") for part in parts]
    err.print(Text.assemble(*((plain(text, lines=True), style) for text, style in texts)))


def fail(message: str, *, code: int) -> NoReturn:
    """Say why on standard error and leave with the code."""
    tell(("error:", "bold red"), f" {message}")
    sys.exit(code)


def flush() -> None:
    """Hand over what was printed, so that a full disk or a reader that left is found out here."""
    if sys.stdout is not None:  # closed by who started us
        sys.stdout.flush()


def give_up(exc: OSError) -> NoReturn:
    """Leave because something could not be read or written: quietly if nobody reads the output."""
    name = exc.filename
    failure = _output_failure(exc)
    if failure is not None:
        _hang_up(sys.stdout)
        if name is None:
            exc, name = failure, "standard output"
    if isinstance(exc, BrokenPipeError):
        _hang_up(sys.stdout, sys.stderr)
        sys.exit(EXIT_NO_READER)
    reason = exc.strerror or str(exc)
    code = EXIT_FAILED if name == "standard output" else EXIT_USAGE
    fail(f"{name}: {reason}" if name else reason, code=code)


def _output_failure(exc: OSError) -> OSError | None:
    """Why standard output takes no more, where it was that which failed."""
    try:
        flush()  # keeps what it could not write, and so fails again
        if exc.errno == errno.ENOSPC:  # without a buffer (PYTHONUNBUFFERED) nothing was kept
            os.write(sys.stdout.fileno(), b"\n")
    except io.UnsupportedOperation:  # a test's stream
        return None
    except OSError as failure:
        return failure
    return None


def _hang_up(*streams: TextIO) -> None:
    """Let the interpreter's last flush succeed (see "Note on SIGPIPE" in Python's documentation)."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # a test's stream has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class Program(click.RichGroup):
    """The root command. Sees to it that what was printed has arrived."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's own
        """Run, and leave with an exit code."""
        keep_private()
        try:
            try:
                return super().main(*args, **extra)
            finally:
                flush()
        except SystemExit as exc:
            if isinstance(exc.__context__, BrokenPipeError):  # click makes a failure of it
                give_up(exc.__context__)
            raise
        except BrokenPipeError as exc:
            give_up(exc)
        except OSError as exc:
            if _output_failure(exc) is not None:
                give_up(exc)
            raise


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
        take(settings)
        app = App(settings)
        try:
            await app.database.migrate()
            await function(app, *args, **kwargs)
        finally:
            await app.database.dispose()

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            shutdown.run(run(*args, **kwargs), seconds=STOP_SECONDS)
        except shutdown.Stopped as exc:
            fail(str(exc), code=exc.status)
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
            give_up(exc)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
tenant_option = click.option("--tenant", required=True, metavar="SLUG", help="Whose.")


def show(value: object) -> None:
    """One JSON document on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows for people; tab-separated where standard output is a pipe."""
    cells = [["" if cell is None else plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in cells)
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column)
    for row in cells:
        shown.add_row(*row)
    out.print(shown if rows else f"{title}: none")
