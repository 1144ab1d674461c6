"""Fields that were renamed. The old name is still read, and answered beside the new one; it is deprecated.

The only list of them, old name -> new name, of what programs write and read: fields of JSON bodies,
of reports and of files. Options of commands are in ``server.cli.options``.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")

TENANT: Mapping[str, str] = {"number_patterns": "custom_patterns", "keep": "allowlist"}
TURN: Mapping[str, str] = {"speaker": "role"}
"""Of the format ``tenantune``, and of ``--map``."""
IMPORT_OPTIONS: Mapping[str, str] = {"speakers": "roles"}
IMPORT_REPORT: Mapping[str, str] = {"speakers": "roles", "trimmed": "partially_rejected"}
IMPORT_NOTES: Mapping[str, str] = {"speakers": "roles"}


class BothNamesGiven(ValueError):
    """A field was given under its old and under its new name, with different values. ``new`` is the new one."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(
            f"'{new}' and '{old}', its old name, are both given and differ: give '{new}' alone"
        )
        self.new = new


def with_new_names(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """What was given, with each old name replaced by the new one.

    For example::

        with_new_names({"speaker": "agent", "text": "Hi"}, {"speaker": "role"})
        # {"text": "Hi", "role": "agent"}

    Raises:
        BothNamesGiven: an old and its new name are both there, with different values.
    """
    renamed = {name: value for name, value in values.items() if name not in names}
    for old, new in names.items():
        if old in values:
            if new in values and values[new] != values[old]:
                raise BothNamesGiven(old, new)
            renamed[new] = values[old]
    return renamed


def with_old_names(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """What is answered, with each old name beside the new one; where that is absent, so is the old."""
    old_ones = {old: values[new] for old, new in names.items() if new in values}
    return {**values, **old_ones}


def move_to_new_names(body: msgspec.Struct, names: Mapping[str, str]) -> None:
    """Set the new fields of a decoded body from its old ones; for ``__post_init__``.

    What was not given must be ``msgspec.UNSET``, under both names.

    Raises:
        BothNamesGiven: a field was given under both names, with different values.
    """
    given = {
        name: value
        for name in (*names, *names.values())
        if (value := getattr(body, name)) is not msgspec.UNSET
    }
    for name, value in with_new_names(given, names).items():
        msgspec.structs.force_setattr(body, name, value)


def copy_to_old_names(answer: msgspec.Struct, names: Mapping[str, str]) -> None:
    """Set the old fields of an answer from its new ones; for ``__post_init__``."""
    for old, new in names.items():
        msgspec.structs.force_setattr(answer, old, getattr(answer, new))


def deprecated(old: str, names: Mapping[str, str]) -> msgspec.Meta:
    """What the OpenAPI document says of a field's old name."""
    return msgspec.Meta(
        description=f"Deprecated: the old name of ``{names[old]}``.",
        extra_json_schema={"deprecated": True},
    )
