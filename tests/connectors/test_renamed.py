"""Old names of fields: read and answered, and refused where they contradict the new ones."""

import msgspec
import pytest

from connectors.renamed import (
    BothNamesGiven,
    copy_to_old_names,
    move_to_new_names,
    with_new_names,
    with_old_names,
)

NAMES = {"keep": "allowlist"}


class Body(msgspec.Struct, frozen=True):
    allowlist: int | msgspec.UnsetType = msgspec.UNSET
    keep: int | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        move_to_new_names(self, NAMES)


class Answer(msgspec.Struct, frozen=True):
    allowlist: int
    keep: int = 0

    def __post_init__(self) -> None:
        copy_to_old_names(self, NAMES)


@pytest.mark.parametrize("given", [{"keep": 1}, {"allowlist": 1}, {"keep": 1, "allowlist": 1}])
def test_either_name_is_read_as_the_new_one(given: dict[str, int]) -> None:
    assert with_new_names(given | {"x": 2}, NAMES) == {"allowlist": 1, "x": 2}
    assert msgspec.convert(given, Body).allowlist == 1


def test_what_was_not_given_stays_away() -> None:
    assert with_new_names({"x": 2}, NAMES) == {"x": 2}
    assert with_old_names({"x": 2}, NAMES) == {"x": 2}
    assert msgspec.convert({}, Body).allowlist is msgspec.UNSET


def test_both_names_with_different_values_are_refused_by_name() -> None:
    with pytest.raises(BothNamesGiven, match="'allowlist' and 'keep', its old name"):
        with_new_names({"keep": 1, "allowlist": 2}, NAMES)
    with pytest.raises(msgspec.ValidationError, match="'allowlist' and 'keep', its old name"):
        msgspec.convert({"keep": 1, "allowlist": 2}, Body)


def test_answers_have_both_names() -> None:
    assert with_old_names({"allowlist": 1}, NAMES) == {"allowlist": 1, "keep": 1}
    assert msgspec.to_builtins(Answer(allowlist=3)) == {"allowlist": 3, "keep": 3}
