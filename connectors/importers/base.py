"""What an importer is: bytes in, conversations and rejected records out, in the file's order."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import IO, Literal, Protocol

import msgspec

from connectors.conversation import Conversation, Role, Split

MIB = 1024 * 1024
_QUOTED_CHARACTERS = 40

MAX_TURNS = 10_000
MAX_CONVERSATION_CHARACTERS = 2 * MIB
"""The most for one conversation. A longer one is a file that was split wrongly, and would delay other
imports: redaction takes about 5 s for a MiB of the worst text.
"""

Note = Callable[[str, str], None]
"""Takes what an importer detected in the file: ``("encoding", "cp1252 (guessed)")``."""


class Reason(StrEnum):
    """Why a record, or a part of one, was rejected."""

    LINE_TOO_LONG = "line_too_long"
    UNDECODABLE = "undecodable"
    NUL_BYTE = "nul_byte"
    BAD_JSON = "bad_json"
    BAD_RECORD = "bad_record"
    BAD_ROLE = "bad_role"
    EMPTY_TEXT = "empty_text"
    NO_TURNS = "no_turns"
    TOOL_MESSAGE = "tool_message"
    NOT_TEXT = "not_text"
    WRONG_COLUMNS = "wrong_columns"
    UNCLOSED_QUOTE = "unclosed_quote"
    STRAY_QUOTE = "stray_quote"
    CONVERSATION_REAPPEARS = "conversation_reappears"
    TOO_MANY_TURNS = "too_many_turns"
    BAD_COMPRESSION = "bad_compression"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    ROUNDED_ID = "rounded_id"


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record, or a part of one, that was rejected.

    ``line`` is the first physical line of the record, from 1; 0 where that is not known. ``part``
    is true where only a part was rejected (a tool message, say) and the rest was kept. ``detail``
    quotes of the transcript at most a role, or a person's name.
    """

    line: int
    reason: str
    detail: str
    part: bool = False


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the operator says about a file; everything has a default.

    ``mapping``: field -> column header, for tables (``{"text": "Message"}``), and
    ``private:VALUE`` -> yes or no: what a value of the private or public column means.
    ``roles``: a value of the role column, or a role of the file -> its role here. ``encoding``: decode with this and nothing else. ``delimiter``: of a table.
    ``dates``: which comes first in ``03/04/2024``. ``order``: of a conversation's rows, where they
    have no times. ``split``: pin every conversation of the file to one split.
    """

    mapping: dict[str, str] = {}
    roles: dict[str, Role] = {}
    encoding: str | None = None
    delimiter: str | None = None
    dates: Literal["day-first", "month-first"] | None = None
    order: Literal["oldest-first", "newest-first"] | None = None
    split: Split | None = None
    max_line_bytes: int = 4 * MIB
    max_unpacked_bytes: int = 1024 * MIB


def ignore_note(_key: str, _value: str) -> None:
    """A ``Note`` that drops everything."""


class Importer(Protocol):
    """One file format.

    To add one, write a module with a class of this shape, add a fixture file to
    ``tests/data/transcripts`` and the importer to ``IMPORTERS``. The contract tests then cover it
    (``tests/contracts/test_importers.py``). A format of JSON lines derives from ``JsonLines`` or,
    where its records hold messages with a role and a text, from ``MessageLines``::

        _ROLES = {"client": Role.CUSTOMER, "staff": Role.AGENT}

        class Desk(MessageLines):
            name = "desk"
            description = 'JSON lines with {"thread": [{"who", "what"}]}'
            key = "thread"
            role_field = "who"
            text_field = "what"
            roles = _ROLES
    """

    @property
    def name(self) -> str:
        """What the operator types: ``--importer openai``."""

    @property
    def description(self) -> str:
        """One line for ``--help``."""

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether a file that begins with ``head`` (64 KiB, or all of it) is of this format."""

    def read(
        self, stream: IO[bytes], options: ImportOptions, note: Note = ignore_note
    ) -> Iterator[Conversation | Rejected]:
        """Yield every conversation, and a ``Rejected`` for everything that is not kept.

        The stream is read once, in pieces; it may be compressed with gzip. What a record holds
        never raises.

        Raises:
            BadMapping: the options do not fit the file; raised before anything is yielded.
        """


class BadRecord(Exception):
    """Raised while a record is parsed; the reader turns it into a ``Rejected``."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def clean_text(text: str) -> str:
    """The text with LF line ends, without white space around it.

    Raises:
        BadRecord: the text holds a NUL, which no text column of a database takes.
    """
    if "\0" in text:
        raise BadRecord(Reason.NUL_BYTE, "the text holds a NUL character")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def quoted(value: object) -> str:
    """A short, one-line form of a value of the file, for a message."""
    text = repr(value)
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "…"
