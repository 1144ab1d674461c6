"""Writes the pages of ``docs/reference/`` that say what the code says already.

    python docs/generate.py            write them
    python docs/generate.py --check    exit with 1 where one is out of date

A test holds the pages to the code, so a change of a setting, a command, a recipe, a gate, an event,
a state or an endpoint is committed together with its page.
"""

import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import rich_click as click

from connectors.importers import IMPORTERS
from server.api.openai.fine_tuning.views import STATUS
from server.api.reference.document import build
from server.app import create_app
from server.cli import main as program
from server.db.models import FINISHED_JOB_STATES, DeliveryState, JobState
from server.jobs.states import ENDS, PAUSABLE
from server.settings import Settings, describe
from server.webhooks.dispatcher import RETRY_SECONDS
from server.webhooks.schemas import EVENT_TEXTS, EVENT_TYPES, TEST_EVENT
from training.config import Objectives, Recipe, load_recipe, recipe_names

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py: change the code and run `make docs-pages`. -->\n"

_ITEM = re.compile(r"``\w+``(?:(?:, | and )``\w+``)*:")

STATES: dict[JobState, str] = {
    "queued": "waits for a worker, and for its tenant's turn",
    "validating": "imports are being read, the dataset version is made, the recipe is checked",
    "running": "the trainer is at work; its events have steps, losses and the time left",
    "evaluating": "the new adapter is scored on held-out conversations, then compared with the engine",
    "awaiting_approval": "a person decides: `tenantune jobs approve`",
    "succeeded": "the adapter is there and answers to its own name; `outcome` says whether it is live",
    "failed": "ended with an error, which has a code and a sentence",
    "cancelled": "stopped by request; its adapter, if it had made one, is deleted",
    "paused": "saved and out of the queue, until `tenantune jobs resume`",
}
DELIVERIES: dict[DeliveryState, str] = {
    "pending": "not sent yet, or to be tried again at `due_at`",
    "delivered": "the endpoint answered with a 2xx",
    "failed": "given up: all attempts failed, or the endpoint answered 410 and was switched off",
}


def settings() -> str:
    """Every environment variable."""
    rows = [(f"`{name}`", _code(default), text) for name, default, text in describe()]
    return "\n".join(
        [
            "# Settings",
            "",
            "Every setting is an environment variable, read when a process starts. All have defaults",
            "that run on one machine. `tenantune settings` prints this list.",
            "",
            *_table(("variable", "default", "what it does"), rows),
        ]
    )


def commands() -> str:
    """Every command with its options."""
    lines = [
        "# Commands",
        "",
        "`tenantune COMMAND --help` prints what is here, in colour. Where a command has `--json`,",
        "standard output holds JSON and nothing else.",
    ]
    for name, command in _subcommands(program, click.Context(program)):
        lines += _command(command, f"tenantune {name}", level=2)
    return "\n".join(lines)


def _subcommands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield name, command


def _command(command: click.Command, name: str, *, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield from ("", f"{'#' * level} {name}", "", _prose(command.help or ""), "")
    if isinstance(command, click.Group):
        for sub, child in _subcommands(command, context):
            yield from _command(child, f"{name} {sub}", level=level + 1)
        return
    yield from ("```text", context.get_usage().removeprefix("Usage: ").strip(), "```")
    options = [param for param in command.params if isinstance(param, click.Option)]
    shown = [option.get_help_record(context) for option in options]
    rows = [(f"`{record[0]}`", record[1]) for record in shown if record]
    if rows:
        yield from ("", *_table(("option", "what it does"), rows))


def recipes() -> str:
    """Every recipe side by side."""
    names = recipe_names()
    found = [load_recipe(name) for name in names]
    rows = [
        (f"`{field}`", *(_code(getattr(recipe, field)) for recipe in found))
        for field in Recipe.__struct_fields__
        if field != "name"
    ]
    return "\n".join(
        [
            "# Recipes",
            "",
            "A recipe is how a run trains: a TOML file in `training/recipes/`, chosen with",
            "`tenantune train --recipe NAME`, by `TENANTUNE_RECIPE`, or else by the machine's device.",
            "The comment at the top of each file says what it is for and how much memory it needs.",
            "",
            *_table(("value", *names), rows),
            "",
            "## What the values mean",
            "",
            _prose(Recipe.__doc__ or ""),
        ]
    )


def gates() -> str:
    """What a job may declare that its adapter must reach."""
    rows = [
        (f"`{field.name}`", "off" if field.default is None else _code(field.default))
        for field in msgspec.structs.fields(Objectives)
    ]
    return "\n".join(
        [
            "# Gates",
            "",
            "A job declares before it runs what its adapter must reach to go live by itself:",
            "`tenantune train --objective NAME=NUMBER`, the field `objectives` of a job, or",
            "`TENANTUNE_OBJECTIVES` for jobs that declare none. How a figure is held against its bound",
            "is said in [](../how-to/train-and-read-the-report.md#what-the-gates-say).",
            "",
            *_table(("objective", "default"), rows),
            "",
            _prose(Objectives.__doc__ or ""),
        ]
    )


def formats() -> str:
    """What can be imported."""
    rows = [(f"`{name}`", importer.description) for name, importer in IMPORTERS.items()]
    return "\n".join(
        [
            "# Transcript formats",
            "",
            "The format of a file is found out by its first bytes, or named: `--importer NAME`.",
            "",
            *_table(("importer", "what it reads"), rows),
        ]
    )


def states() -> str:
    """The states of a job."""
    _same(STATES, get_args(JobState))
    rows = [
        (
            f"`{state}`",
            STATES[state],
            "yes" if state in PAUSABLE else "no",
            "yes" if state in FINISHED_JOB_STATES else "no",
            f"`{STATUS[state]}`",
        )
        for state in get_args(JobState)
    ]
    return "\n".join(
        [
            "# States of a job",
            "",
            "The row in the database is the truth; `tenantune jobs show ID --tenant SLUG` prints it.",
            "OpenAI's API has fewer words, so `/v1/fine_tuning/jobs` shows the status in the fifth",
            "column.",
            "",
            *_table(("state", "meaning", "can be paused", "final", "under /v1"), rows),
            "",
            f"Webhooks hear of {_names(ENDS)}: see [](webhook-events.md).",
        ]
    )


def events() -> str:
    """The events of webhooks."""
    _same(DELIVERIES, get_args(DeliveryState))
    _same(EVENT_TEXTS, (*EVENT_TYPES, TEST_EVENT))
    rows = [(f"`{event}`", text.when) for event, text in EVENT_TEXTS.items()]
    waits = ", ".join(_duration(seconds) for seconds in RETRY_SECONDS)
    return "\n".join(
        [
            "# Webhook events",
            "",
            "How to receive them is in [](../how-to/receive-webhooks.md).",
            "",
            *_table(("event", "when"), rows),
            "",
            'Of a job `data` holds the public id, `{"id": "ftjob-..."}`; of a hand-off, what is in',
            "[](../how-to/put-the-widget-on-a-site.md#talk-to-a-person). An attempt that fails is",
            f"repeated after {waits}, each give or take a fifth.",
            "",
            "## States of a delivery",
            "",
            *_table(
                ("state", "meaning"),
                [(f"`{state}`", DELIVERIES[state]) for state in get_args(DeliveryState)],
            ),
        ]
    )


def api() -> str:
    """Every endpoint, from the document that the server serves."""
    with tempfile.TemporaryDirectory() as home:
        document = build(create_app(Settings.from_env({}, home=Path(home))))
    lines = [
        "# HTTP API",
        "",
        "Every endpoint, from the OpenAPI document. A running server has all of it: `/docs` as a page,",
        "with fields, examples and errors, and `/openapi.json` for programs.",
        "",
        document["info"]["description"].strip(),
    ]
    for tag in document["tags"]:
        lines += ["", f"## {tag['name']}", "", tag["description"], ""]
        rows = [row for row in _operations(document) if row[0] == tag["name"]]
        lines += _table(("request", "key", "what it does"), [row[1:] for row in rows])
    return "\n".join(lines)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            keys = [
                scope for each in operation.get("security", []) for scope in each.get("bearer", [])
            ]
            optional = {} in operation.get("security", [])
            key = "none" if not keys else ", ".join(f"`{scope}`" for scope in keys)
            yield (
                operation["tags"][0],
                f"`{method.upper()} {path}`",
                f"{key}, or none nearby" if optional else key,
                operation["summary"],
            )


def imports() -> str:
    """Which package may import which."""
    text = (FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    lines = [
        "# Which package may import which",
        "",
        "From `[tool.importlinter]` in `pyproject.toml`; `make imports` checks it. Each layer may import",
        "what stands below it, never what stands above or beside it, unless that is said.",
    ]
    for contract in tomllib.loads(text)["tool"]["importlinter"]["contracts"]:
        lines += ["", f"## {contract['name'][0].upper()}{contract['name'][1:]}", ""]
        match contract["type"]:
            case "layers":
                lines += _table(("layer",), [(_layer(layer),) for layer in contract["layers"]])
            case "forbidden":
                lines += _table(
                    ("these", "import none of these, not even by way of others"),
                    [(_names(contract["source_modules"]), _names(contract["forbidden_modules"]))],
                )
            case "acyclic_siblings":
                lines.append(f"Inside {_names(contract['ancestors'])} nothing imports in a circle.")
            case kind:
                lines.append(f"A contract of the type `{kind}`.")
    return "\n".join(lines)


def _layer(layer: str) -> str:
    free = ":" in layer  # of import-linter: neighbours that may import one another
    shown = _names(name.strip() for name in re.split(r"[|:]", layer))
    return f"{shown} (these may import one another)" if free else shown


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "commands.md": commands,
    "recipes.md": recipes,
    "gates.md": gates,
    "formats.md": formats,
    "job-states.md": states,
    "webhook-events.md": events,
    "api.md": api,
    "imports.md": imports,
}


def pages() -> dict[Path, str]:
    """The generated pages: path and text."""
    return {FOLDER / name: f"{NOTE}\n{make().rstrip()}\n" for name, make in PAGES.items()}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _code(value: object) -> str:
    if isinstance(value, tuple):
        value = ", ".join(map(str, value))
    return "" if value == "" else f"`{value}`"


def _prose(text: str) -> str:
    """A docstring as Markdown; a line that begins with names and a colon becomes an item."""
    lines = [line.strip() for line in text.strip().splitlines()]
    listed = [f"- {line}" if _ITEM.match(line) else line for line in lines]
    return "\n".join(listed).replace("``", "`")


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _same(described: Iterable[object], known: Iterable[object]) -> None:
    if set(described) != set(known):
        raise SystemExit(
            f"docs/generate.py describes {set(described) ^ set(known)} no more, or not yet"
        )


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or say which are out of date."""
    stale = {
        path: text
        for path, text in pages().items()
        if not path.exists() or path.read_text("utf-8") != text
    }
    for path, text in stale.items():
        if "--check" in arguments:
            sys.stderr.write(f"{path.name} is out of date: run make docs-pages\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
