"""What a knowledge reader is: bytes in, articles and what was left out of them."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from connectors.errors import ConnectorError
from connectors.importers.base import MIB

MAX_FILE_BYTES = 64 * MIB
"""Of one file, compressed or not: a reader holds it whole, in a process of its own."""
MAX_ARTICLE_CHARACTERS = 2 * MIB
"""Of one article, as of one conversation: redaction takes about 5 s for a MiB of the worst text. A book
of 800 pages has as many."""
MAX_SECTIONS = 20_000
"""Of one article. One with more is a list of headings, or made to be a burden."""
MAX_TITLE_CHARACTERS = 200
"""Of a title or heading; the rest is cut off. It stands before each piece that is searched."""
MAX_HEADINGS = 6
"""How deep a heading path goes; as deep as HTML's and Markdown's."""


class Reason(StrEnum):
    """Why an article, or a part of one, was left out."""

    UNKNOWN_FORMAT = "unknown_format"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_MANY_SECTIONS = "too_many_sections"
    TOO_MANY_ENTRIES = "too_many_entries"
    BAD_COMPRESSION = "bad_compression"
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"
    NO_TEXT = "no_text"
    TOO_SLOW = "too_slow"
    REPEATED_NAME = "repeated_name"
    NO_COLUMNS = "no_columns"
    BAD_ROW = "bad_row"
    UNDECODABLE = "undecodable"
    HIDDEN = "hidden"
    CONTROL_CHARACTERS = "control_characters"
    CONTROL_TOKENS = "control_tokens"
    NO_FILE = "no_file"


class Section(msgspec.Struct, frozen=True):
    """Text under one heading path, outermost first. ``place`` is where it begins: "line 3", "page 2"."""

    headings: tuple[str, ...]
    text: str
    place: str = ""


class Article(msgspec.Struct, frozen=True):
    """One article. ``name`` is where it is from: the file's name, a page's address or its path."""

    name: str
    title: str
    format: str
    sections: tuple[Section, ...]


class Skipped(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was left out: an article, or with ``part`` a part of one, and the rest was kept.

    ``place``: the entry of an archive, the page, the line, as far as known. ``count``: of how many such
    things it tells. ``detail`` quotes of the text at most a name.
    """

    place: str
    reason: str
    detail: str
    part: bool = False
    count: int = 1


class Unreadable(ConnectorError):
    """An article cannot be read at all; ``reason`` says why in a word, the message in a sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class KnowledgeReader(Protocol):
    """One format of articles.

    To add one, write a module with a class of this shape and add it to ``READERS``; the contract tests
    in ``tests/contracts/test_knowledge.py`` then cover it.
    """

    @property
    def name(self) -> str:
        """What reports call the format."""

    @property
    def description(self) -> str:
        """One line for ``--help`` and the pages."""

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether a file that begins with ``head`` (64 KiB, or all of it) is of this format."""

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the file's articles, and a ``Skipped`` for everything that is not kept.

        Raises:
            Unreadable: nothing of the file can be read.
        """


def too_large(characters: int) -> str:
    """Why an article with so many characters is refused."""
    return (
        f"{characters:,} characters are more than the {MAX_ARTICLE_CHARACTERS:,} of one article; "
        "split it"
    )


def title_of(text: str) -> str:
    """A title or heading in one line, at most ``MAX_TITLE_CHARACTERS`` long."""
    return " ".join(text.split())[:MAX_TITLE_CHARACTERS].strip()


def stem_of(filename: str) -> str:
    """The title of a file that has none: its name without folder and extension."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    known = bool(dot) and len(extension) <= 8 and extension.isalnum()  # noqa: PLR2004 - ".markdown"
    return title_of((stem if known and stem else name).replace("_", " ")) or "Untitled"


class Headings:
    """The heading path while an article is read from its beginning to its end."""

    def __init__(self) -> None:
        self._levels: list[tuple[int, str]] = []

    def enter(self, level: int, text: str) -> None:
        """A heading of this level begins: it ends those of its level and below."""
        self._levels = [each for each in self._levels if each[0] < level]
        if title := title_of(text):
            self._levels.append((level, title))

    @property
    def path(self) -> tuple[str, ...]:
        """The headings above what comes now, outermost first."""
        return tuple(text for _, text in self._levels[:MAX_HEADINGS])
