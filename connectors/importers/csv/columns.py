"""Chooses a table's columns: guessed from the headers, unless the operator named them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from connectors.conversation import Role
from connectors.errors import BadMapping
from connectors.importers.address_columns import is_address_header
from connectors.importers.csv.headers import (
    ANOTHER_TIME,
    CERTAIN_ROLE_LINES,
    CLOCKS,
    DATES,
    FIELDS,
    HEADERS,
    LIKE_A_TIME,
    Field,
)
from connectors.importers.name_columns import NameColumn, name_column
from connectors.importers.normalization import NO_WORDS, YES_WORDS, normalize, normalized_words
from connectors.importers.visibility import VisibilityColumn, visibility_columns
from connectors.renamed import TURN, BothNamesGiven

_MAX_COLUMNS = 2_000  # real exports have some hundreds
_SHOWN_COLUMNS = 60
_PRIVATE = "private:"
_ROLE = "role:"
_IN_BRACKETS = re.compile(
    r"\s+(?:\([^()]*\)|\[(?:utc|gmt)[^\[\]]*\])\s*$", re.IGNORECASE
)  # "Created at (UTC)"


class Columns(NamedTuple):
    """The position of each column that is used.

    ``pairs`` is true where each row has a question and its answer, false where it has one turn.
    ``date`` is the column of the day where ``time`` is a time of day. ``visibility`` are the columns
    that mark internal notes, ``names`` those with people's names, ``places`` the positions of those
    with postal addresses. ``certain`` is false where only the values can show whether the role column is one.
    """

    pairs: bool
    at: dict[Field, int]
    date: int | None = None
    visibility: tuple[VisibilityColumn, ...] = ()
    names: tuple[NameColumn, ...] = ()
    places: tuple[int, ...] = ()
    certain: bool = True


def parse_map(items: Iterable[str]) -> tuple[dict[str, str], dict[str, Role]]:
    """Read ``--map`` arguments: ``text=Message,author=Name`` and ``role:Kunde=customer``.

    ``private:Intern=yes`` says what a value of the column ``private`` (or ``public``) means.
    Returns ``mapping`` (with the values of ``private:``) and ``roles`` of ``ImportOptions``.

    Raises:
        BadMapping: an item is not of that form, names an unknown field or role, or contradicts one
            that has the field's old name.
    """
    given: dict[str, tuple[str, str]] = {}  # new name -> the name that was used, and the value
    for item in (part for text in items for part in text.split(",") if part.strip()):
        left, equals, right = (part.strip() for part in item.partition("="))
        if not (left and equals and right):
            raise BadMapping(f"--map {item!r}: write field=Column, or role:Value=customer")
        field, colon, value = left.partition(":")
        name = f"{TURN.get(field, field)}{colon}{value}"
        used, said = given.get(name, (left, right))
        if used != left and said != right:
            old = used if used != name else left
            raise BadMapping(f"--map {item!r}: {BothNamesGiven(old, name)}")
        given[name] = left, right
    mapping: dict[str, str] = {}
    roles: dict[str, Role] = {}
    for left, (used, right) in given.items():
        if left.startswith(_ROLE):
            try:
                roles[left.removeprefix(_ROLE)] = Role(right.lower())
            except ValueError as exc:
                known = ", ".join(Role)
                raise BadMapping(f"--map {used}={right}: {right!r} is none of {known}") from exc
        else:
            if not left.startswith(_PRIVATE):
                _check_field(left)
            mapping[left] = right
    private_values(mapping)
    return mapping, roles


def private_values(mapping: Mapping[str, str]) -> dict[str, bool]:
    """The ``private:VALUE`` items of a mapping: value -> whether the row is internal.

    Raises:
        BadMapping: one is neither yes nor no.
    """
    values = {}
    for left, right in mapping.items():
        if left.startswith(_PRIVATE):
            if normalize(right) not in YES_WORDS | NO_WORDS:
                raise BadMapping(f"--map {left}={right}: {right!r} is neither yes nor no")
            values[left.removeprefix(_PRIVATE)] = normalize(right) in YES_WORDS
    return values


def choose_columns(headers: Sequence[str], mapping: Mapping[str, str]) -> Columns:
    """Choose the columns; those that the operator named come first.

    Args:
        headers: The table's header, at most 2,000 columns.
        mapping: Field -> header, as in ``ImportOptions``.

    Raises:
        BadMapping: a named column is missing, a needed one cannot be guessed, the table could be
            both questions with answers and turns, or it has too many columns.
    """
    if len(headers) > _MAX_COLUMNS:
        raise BadMapping(f"{len(headers):,} columns; a table has at most {_MAX_COLUMNS:,}")
    bare = [_IN_BRACKETS.sub("", header) or header for header in headers]
    given = {
        _check_field(name): _position(header, headers)
        for name, header in mapping.items()
        if not name.startswith(_PRIVATE)
    }
    guess = _guess(bare, given)
    pairs = _is_pairs(guess.at, mapping, headers, certain=guess.certain)
    needed = _NEEDED_BY_PAIRS if pairs else _NEEDED_BY_TURNS
    missing = [field for field in needed if field not in guess.at]
    if missing:
        unclear = {field: [headers[at] for at in found] for field, found in guess.unclear.items()}
        raise BadMapping(_missing_columns_message(headers, missing, unclear))
    used = (*needed, *_OPTIONAL, *_GIVEN_ONLY, *(() if pairs else ("author",)))
    index = {field: at for field, at in guess.at.items() if field in used}
    if pairs and "conversation" not in index:
        rows = [at for at, header in enumerate(bare) if normalize(header) == "id"]
        if len(rows) == 1:
            index["conversation"] = rows[0]
    taken = {*index.values(), guess.date}
    named = {field: index.pop(field) for field in _GIVEN_ONLY if field in index}
    return Columns(
        pairs,
        index,
        date=guess.date,
        visibility=_visibility(bare, index, named, taken),
        names=_names(bare, named, taken),
        places=tuple(
            at for at, header in enumerate(bare) if at not in taken and is_address_header(header)
        ),
        certain=guess.certain or pairs,
    )


_NEEDED_BY_PAIRS: tuple[Field, ...] = ("question", "answer")
_NEEDED_BY_TURNS: tuple[Field, ...] = ("conversation", "role", "text")
_OPTIONAL: tuple[Field, ...] = ("conversation", "time", "channel", "language")
_GIVEN_ONLY: tuple[Field, ...] = ("customer_name", "agent_name", "private", "public")


class _Guess(NamedTuple):
    """The given and the guessed columns. ``unclear`` fields have several candidates."""

    at: dict[Field, int]
    date: int | None
    certain: bool
    unclear: dict[Field, list[int]]


def _guess(headers: Sequence[str], given: Mapping[Field, int]) -> _Guess:
    at = dict(given)
    unclear: dict[Field, list[int]] = {}
    certain = True
    date, clock = _date_and_clock(headers) if "time" not in at else (None, None)
    if clock is not None:
        at["time"] = clock
    for field in FIELDS:
        if field not in at:
            found, line = _candidates(field, headers, taken={*at.values(), date})
            if len(found) == 1 or (found and field == "time"):
                at[field] = found[0]
                certain = certain and (field != "role" or line <= CERTAIN_ROLE_LINES)
            elif found:
                unclear[field] = found
    return _Guess(at, date, certain, unclear)


def missing_columns_error(headers: Sequence[str], missing: Sequence[Field]) -> BadMapping:
    """The error for columns whose values are not what their headers promised."""
    return BadMapping(_missing_columns_message(headers, missing, {}))


def _visibility(
    headers: Sequence[str],
    index: Mapping[Field, int],
    named: Mapping[Field, int],
    taken: set[int | None],
) -> tuple[VisibilityColumn, ...]:
    given = tuple(
        VisibilityColumn(named[field], headers[named[field]], field, given=True)
        for field in ("private", "public")
        if field in named
    )
    free = [(at, header) for at, header in enumerate(headers) if at not in taken]
    if "channel" in index:
        free.append((index["channel"], headers[index["channel"]]))
    return given or visibility_columns(free)


def _names(
    headers: Sequence[str], named: Mapping[Field, int], taken: set[int | None]
) -> tuple[NameColumn, ...]:
    found: list[NameColumn] = []
    for at, header in enumerate(headers):
        if at == named.get("customer_name"):
            found.append(NameColumn(at, Role.CUSTOMER))
        elif at == named.get("agent_name"):
            found.append(NameColumn(at, Role.AGENT))
        elif at not in taken and (column := name_column(at, header)):
            found.append(column)
    return tuple(found)


def _date_and_clock(headers: Sequence[str]) -> tuple[int | None, int | None]:
    dates = [at for at, header in enumerate(headers) if normalize(header) in DATES]
    clocks = [at for at, header in enumerate(headers) if normalize(header) in CLOCKS]
    return (dates[0], clocks[0]) if len(dates) == len(clocks) == 1 else (None, None)


def _check_field(name: str) -> Field:
    for field in FIELDS:
        if field == name:
            return field
    raise BadMapping(f"no field {name!r}; there are: {', '.join(FIELDS)}")


def _listed(headers: Sequence[str]) -> str:
    more = len(headers) - _SHOWN_COLUMNS
    shown = ", ".join(headers[:_SHOWN_COLUMNS])
    return f"{shown} and {more:,} more" if more > 0 else shown


def _position(header: str, headers: Sequence[str]) -> int:
    exact = [at for at, found in enumerate(headers) if found == header]
    loose = [at for at, found in enumerate(headers) if normalize(found) == normalize(header)]
    found = exact or loose
    if len(found) != 1:
        how = "no column" if not found else "more than one column"
        raise BadMapping(f"{how} {header!r}; the file has: {_listed(headers)}")
    return found[0]


def _candidates(
    field: Field, headers: Sequence[str], *, taken: set[int | None]
) -> tuple[list[int], int]:
    """The columns that fit best, and the line of ``HEADERS`` (negative: the field's own names).

    The old name comes first: a table with both columns is read as it always was.
    """
    own = [*(old for old, new in TURN.items() if new == field), field]
    known_words = map(normalized_words, (*own, *HEADERS[field]))
    free = [(at, normalize(header)) for at, header in enumerate(headers) if at not in taken]
    for line, known in enumerate(known_words, start=-len(own)):
        if found := [at for at, word in free if word in known]:
            return found, line
        if not known:
            found = [
                at
                for at, word in free
                if LIKE_A_TIME.fullmatch(word) and not ANOTHER_TIME.search(word)
            ]
            return found, line
    return [], 0


def _is_pairs(
    index: Mapping[Field, int], mapping: Mapping[str, str], headers: Sequence[str], *, certain: bool
) -> bool:
    if "question" in mapping or "answer" in mapping:
        return True
    if "text" in mapping or "role" in mapping:
        return False
    pairs = "question" in index and "answer" in index
    turns = "role" in index and "text" in index
    if pairs and turns and not certain:  # "type" beside questions and answers
        return True
    if pairs and turns:
        raise BadMapping(
            "the file could be questions with answers, or one turn a row; say which with --map "
            f"question=... or --map text=... (columns: {_listed(headers)})"
        )
    return pairs


def _missing_columns_message(
    headers: Sequence[str], missing: Sequence[Field], unclear: Mapping[Field, list[str]]
) -> str:
    parts = []
    for field in missing:
        several = f" (several fit: {', '.join(unclear[field])})" if field in unclear else ""
        parts.append(f"{field}{several}")
    example = ",".join(f"{field}=COLUMN" for field in missing)
    return (
        f"cannot tell which column is: {', '.join(parts)}; pass --map {example}, "
        "or --map question=COLUMN,answer=COLUMN for one exchange a row. "
        f"The file has: {_listed(headers)}"
    )
