"""Converts the options of commands into the structs that the services take, with the API's constraints."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import rich_click as click

from server.cli.console import EXIT_USAGE, fail

T = TypeVar("T", bound=msgspec.Struct)

OPTION_NAMES = {
    "slug": "SLUG",
    "url": "URL",
    "custom_patterns": "--custom-pattern",
    "limits": "--limit",
    "events": "--event",
    "objectives": "--objective",
    "overlap_seconds": "--overlap",
}
"""The options of fields that have another name."""

RULE_WORDS = {
    "description": "{}",
    "enum": "of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "exclusiveMaximum": "less than {}",
    "maximum": "at most {}",
    "maxItems": "at most {} of them",
}
"""Constraints of a JSON schema, in words."""

MAX_SHOWN_LENGTH = 60


class RenamedOption(click.RichOption):
    """An option with a value that had another name: ``old`` still works, and no help shows it.

    Where the option may be repeated, values under both names add up.
    """

    def __init__(self, declarations: Sequence[str], *, old: str, **settings: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(declarations, **settings)
        self.old = old

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: ANN401 - private to click
        """Let the parser take both names."""
        super().add_to_parser(parser, ctx)
        action = "append" if self.multiple else "store"
        parser.add_option(
            obj=self, opts=[self.old], dest=self.name, action=action, nargs=self.nargs
        )


def add_old_name(group: click.Group, command: click.Command, old: str) -> None:
    """Let a command that had another name work under it too; no help shows it."""
    alias = copy.copy(command)
    alias.name, alias.hidden = old, True
    group.add_command(alias)


def convert_options(
    kind: type[T], values: Mapping[str, Any], *, names: Mapping[str, str] = {}
) -> T:
    """Convert values to a struct, so that its constraints are checked: its constructor does not.

    A value that does not fit ends the command with exit code 2 and a message with the option's name.

    Args:
        kind: The struct, as the API's body.
        values: By the names of its fields on the wire.
        names: Options that are not named as their field; besides ``OPTION_NAMES``.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(values), kind)
    except msgspec.ValidationError as exc:
        found = re.search(r" - at `\$\.(\w+)", str(exc))
        if found is None:
            raise
        field = found[1]
        name = names.get(field) or OPTION_NAMES.get(field) or "--" + field.replace("_", "-")
        value = values[field]
        shown = repr(" ".join(value) if isinstance(value, list | tuple) else value)
        said = f" {shown}" if len(shown) <= MAX_SHOWN_LENGTH else ""
        rules = _describe_rules(kind, field) or str(exc)[: found.start()]
        fail(f"{name}{said}: expected {rules}", code=EXIT_USAGE)


def _describe_rules(kind: type[msgspec.Struct], field: str) -> str:
    """The constraints of a field, or of each of its items, as the API's document has them."""
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"][field]
    rules: dict[str, Any] = dict(schema)
    for part in (schema.get("items", {}), *schema.get("anyOf", ())):
        rules |= part
    if "enum" in rules:
        rules["enum"] = ", ".join(map(str, rules["enum"]))
    found = [words.format(rules[rule]) for rule, words in RULE_WORDS.items() if rule in rules]
    if not found and "pattern" in rules:
        found = [f"what {rules['pattern']} matches"]
    return ", ".join(found)
