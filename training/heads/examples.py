"""Reads labelled texts: JSON lines, or a table (CSV), with ``text`` and ``label``.

Labelled images are read by ``images``.
"""

import csv
import io
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from training.errors import BadInput

MAX_TEXT = 10_000  # characters; the encoder reads some 1,000 of them
MAX_LABEL = 60
MAX_EXAMPLES = 50_000
MAX_BYTES = 64 << 20
_COLUMNS = ("text", "label")


class Labelled(msgspec.Struct, frozen=True):
    """A text and what it is. Other fields of a line are not read."""

    text: str
    label: str


class LabelledImage(msgspec.Struct, frozen=True):
    """A picture, by the hash of its pixels (``images``), and what it is."""

    image: str
    label: str


Example = Labelled | LabelledImage
"""Of one dataset all are of one kind."""


class Reason(StrEnum):
    """Why an image cannot be used."""

    EMPTY = "empty"
    NO_LABEL = "no_label"
    NOT_AN_IMAGE = "not_an_image"
    WRONG_EXTENSION = "wrong_extension"
    DAMAGED = "damaged"
    ANIMATED = "animated"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an upload that was left out. ``place``: its name there."""

    place: str
    reason: Reason
    detail: str


_decoder = msgspec.json.Decoder(Labelled)


def pictures_of(root: Path) -> Path:
    """Where the pictures of all datasets in ``root`` lie, each under its name as a PNG."""
    return root / "pictures"


def read_examples(path: Path, *, name: str | None = None) -> list[Labelled]:
    """Read a file of labelled texts, in their order; white space around both is cut.

    What begins with ``{`` is read as JSON lines, all else as CSV with a line of column names. Empty
    lines are skipped.

    Args:
        path: UTF-8, with or without a byte order mark.
        name: What messages call the file, for one that has another name on this disk.

    Raises:
        BadInput: the file cannot be read, is too large, or a line has no text or no label. The
            message names the file and the line.
    """
    name = name or path.name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(f"{name}: larger than {MAX_BYTES >> 20} MiB; give fewer texts")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise BadInput(f"cannot read {name}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise BadInput(f"{name}, line {line}: not UTF-8; save the file as UTF-8") from exc
    rows = _json_lines(text, name) if text.lstrip().startswith("{") else _table(text, name)
    found: list[Labelled] = []
    for line, example in rows:
        if len(found) == MAX_EXAMPLES:
            raise BadInput(f"{name}, line {line}: more than {MAX_EXAMPLES:,} texts; give fewer")
        found.append(_checked(example, f"{name}, line {line}"))
    if not found:
        raise BadInput(f"{name}: there is no text in it; give lines with text and label")
    return found


def _json_lines(text: str, name: str) -> Iterator[tuple[int, Labelled]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, _decoder.decode(line)
        except msgspec.DecodeError as exc:
            raise BadInput(
                f'{name}, line {number}: {exc}; a line is {{"text": "...", "label": "..."}}'
            ) from exc


def _table(text: str, name: str) -> Iterator[tuple[int, Labelled]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise BadInput(
                f"{name}, line 1: no column {' and no column '.join(missing)}; the first line of a "
                "table is text,label"
            )
        before = reader.line_num
        for row in reader:
            # a quoted text may have line breaks: a row begins on the line after the one before
            yield before + 1, Labelled(row["text"] or "", row["label"] or "")
            before = reader.line_num
    except csv.Error as exc:
        raise BadInput(f"{name}, line {reader.line_num}: {exc}") from exc


def _checked(example: Labelled, where: str) -> Labelled:
    text, label = example.text.strip(), example.label.strip()
    if not text:
        raise BadInput(f"{where}: there is no text")
    if not label:
        raise BadInput(f"{where}: there is no label")
    if len(text) > MAX_TEXT:
        raise BadInput(f"{where}: a text of {len(text):,} characters; at most {MAX_TEXT:,}")
    if len(label) > MAX_LABEL or not label.isprintable():
        raise BadInput(f"{where}: a label is at most {MAX_LABEL} printable characters")
    return Labelled(text, label)
