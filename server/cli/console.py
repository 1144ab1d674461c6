"""The output of commands: tables for people, JSON for programs, exit codes with a meaning.

Exit codes:

0    done
1    tried without success: a job failed, or its adapter did not go live
2    the command or its input is wrong
3    no such thing
4    conflict with what is there
69   a part is not running
130  stopped by Ctrl-C (143: by SIGTERM) before it was done
141  the reader of the output has ended (``| head``); no error

Everything is printed as text, never as markup: names, headers of files and answers of models may
hold brackets. A style is given beside its text: ``print_message(("ok", "green"), f" {name}")``.
"""

import contextlib
import errno
import functools
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Concatenate, NoReturn, ParamSpec, TextIO

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import ConnectorError
from server import shutdown
from server.audit.actors import COMMAND_LINE, acting
from server.db.session import Database
from server.errors import Conflict, NotFound, ServerError, Unavailable
from server.home import claim, keep_private
from server.logs import configure_logging
from server.settings import Settings, SettingsError
from training.errors import TrainingError

P = ParamSpec("P")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONFLICT = 4
EXIT_UNAVAILABLE = 69
EXIT_INTERRUPTED = 128 + signal.SIGINT
STOP_SECONDS = 9.0  # a child that saves takes 6
EXIT_NO_READER = 128 + 13  # as a shell counts a program that SIGPIPE ended

# also those that change the direction of text or end lines
_MORE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROLS = re.compile(rf"[\x00-\x1f{_MORE}]")
_CONTROLS_BUT_LINE_ENDS = re.compile(rf"[\x00-\x08\x0b-\x1f{_MORE}]")


class Terminal(Console):
    """Prints text as it is: no markup, no emoji codes, no colours of its own."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - rich's own
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Called by rich when the output's reader has ended."""
        self.quiet = True
        exit_for_os_error(BrokenPipeError())


stderr = Terminal(stderr=True, soft_wrap=True)
stdout = Terminal()


def escape_controls(text: object, *, lines: bool = False) -> str:
    """The text with its control characters escaped; with ``lines``, except line ends and tabs.

    A stored name could otherwise move a terminal's cursor, or add a row to a list in a pipe.
    """
    pattern = _CONTROLS_BUT_LINE_ENDS if lines else _CONTROLS
    return pattern.sub(lambda found: repr(found[0])[1:-1], str(text))


def print_message(*parts: str | tuple[str, str]) -> None:
    """Print a line on standard error, made of texts and of (text, style) pairs."""
    texts = [part if isinstance(part, tuple) else (part, "") for part in parts]
    stderr.print(
        Text.assemble(*((escape_controls(text, lines=True), style) for text, style in texts))
    )


def fail(message: str, *, code: int) -> NoReturn:
    """Print the error on standard error and exit with the code."""
    print_message(("error:", "bold red"), f" {message}")
    sys.exit(code)


def flush_output() -> None:
    """Write out what was printed, so that a full disk or a closed pipe raises here."""
    if sys.stdout is not None:  # None where the parent process closed it
        sys.stdout.flush()


def exit_for_os_error(exc: OSError) -> NoReturn:
    """Exit because something could not be read or written; without a message if the pipe is closed."""
    name = exc.filename
    failure = _output_error(exc)
    if failure is not None:
        _discard_output(sys.stdout)
        if name is None:
            exc, name = failure, "standard output"
    if isinstance(exc, BrokenPipeError):
        _discard_output(sys.stdout, sys.stderr)
        sys.exit(EXIT_NO_READER)
    reason = exc.strerror or str(exc)
    code = EXIT_FAILED if name == "standard output" else EXIT_USAGE
    fail(f"{name}: {reason}" if name else reason, code=code)


def _output_error(exc: OSError) -> OSError | None:
    """The error of standard output, if it was standard output that failed."""
    try:
        flush_output()  # keeps what it could not write, and so fails again
        if exc.errno == errno.ENOSPC:  # without a buffer (PYTHONUNBUFFERED) nothing was kept
            os.write(sys.stdout.fileno(), b"\n")
    except io.UnsupportedOperation:  # a test's stream
        return None
    except OSError as failure:
        return failure
    return None


def _discard_output(*streams: TextIO) -> None:
    """Let the interpreter's last flush succeed (see "Note on SIGPIPE" in Python's documentation)."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # a test's stream has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class RootGroup(click.RichGroup):
    """The root command: imports the others when they are asked for, and sees that output is written.

    Args:
        elsewhere: where each command is, by its name: ``"server.cli.up:up"``.
    """

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **extra: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **extra)
        self._elsewhere = elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *self._elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; None where there is none."""
        if cmd_name not in self.commands and cmd_name in self._elsewhere:
            module, _, name = self._elsewhere[cmd_name].partition(":")
            with shutdown.ctrl_c_at_once():
                self.add_command(getattr(importlib.import_module(module), name))
        return super().get_command(ctx, cmd_name)

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's own
        """Run a command and exit with its code."""
        keep_private()
        try:
            try:
                return super().main(*args, **extra)
            finally:
                flush_output()
        except SystemExit as exc:
            if isinstance(exc.__context__, BrokenPipeError):  # click makes a failure of it
                exit_for_os_error(exc.__context__)
            if isinstance(exc.__context__, click.Abort):  # and of Ctrl-C before a command began
                sys.exit(EXIT_INTERRUPTED)
            raise
        except BrokenPipeError as exc:
            exit_for_os_error(exc)
        except OSError as exc:
            if _output_error(exc) is not None:
                exit_for_os_error(exc)
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
    """Turn a coroutine that takes an ``App`` into a command's function; errors become exit codes.

    For example::

        @main.command("count")
        @tenant_option
        @command
        async def count(app: App, tenant: str) -> None:
            async with app.database.reading() as session: ...
    """

    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        settings = Settings.from_env()
        # a command's output is its own; only problems are logged, to standard error
        configure_logging(msgspec.structs.replace(settings, log_level="warning"))
        claim(settings)
        app = App(settings)
        try:
            await app.database.migrate()
            with acting(COMMAND_LINE):
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
            exit_for_os_error(exc)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
tenant_option = click.option("--tenant", required=True, metavar="SLUG", help="Whose.")


def overlap_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option for how long an old secret stays valid: a day, at most 30; in seconds."""
    return click.option(
        "--overlap",
        type=click.IntRange(0, 30 * 86_400),
        default=86_400,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


def print_secret(secret: str, document: object, *, hint: str, as_json: bool) -> None:
    """Print a secret that is shown once: alone on standard output, for a pipe, or as JSON.

    Args:
        secret: The key or the signing secret.
        document: The secret with what it belongs to, for JSON.
        hint: A line for a person, on standard error and only on a terminal.
        as_json: Whether to print ``document`` instead.
    """
    if as_json:
        print_json(document)
        return
    print(secret)
    if sys.stderr.isatty():
        print_message((hint, "dim"))


def progress_bar(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """A bar on standard error with the share done and the time left; ``columns`` come after them."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        *columns,
        console=stderr,
        disable=disable,
    )


def print_json(value: object) -> None:
    """Print one JSON document on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows; tab-separated where standard output is a pipe."""
    cells = [["" if cell is None else escape_controls(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in cells)
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column)
    for row in cells:
        shown.add_row(*row)
    stdout.print(shown if rows else f"{title}: none")
