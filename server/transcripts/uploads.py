"""A tenant's uploads as its pages list them: a word for the state, the main figures, what was rejected.

Lists load neither options nor reports: figures are taken out of them, and texts cut, in SQL. They are
paged by the last row's id.
"""

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Row, Select, Text, cast, func, or_
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.conversation import Conversation, Role
from connectors.importers import IMPORTERS, Reason, Rejected, choose
from connectors.redaction.placeholders import PLACEHOLDER
from connectors.report import ImportReport
from server import spreadsheets
from server.db.models import (
    ConversationRow,
    Import,
    ImportedAgain,
    ImportState,
    SourceFile,
    Tenant,
)
from server.db.scope import of_tenant
from server.files import originals
from server.files.names import clean_name
from server.transcripts import service

PAGE = 25
CELL = 200  # characters of a text in a list
SAMPLE = "loaf.jsonl"  # in connectors/samples: conversations of an invented bakery
SAMPLE_CONVERSATIONS = 260
CSV_COLUMNS = (
    "file",
    "state",
    "format",
    "bytes",
    "kept",
    "new",
    "rejected",
    "partially_rejected",
    "uploaded_at",
    "import",
)
REJECTED_COLUMNS = ("line", "reason", "extent", "detail")
_SNIPPETS_FROM = 40  # conversations in which examples of redaction are looked for
_SNIPPET_BYTES = 20_000  # larger ones are passed over
_AROUND = 90  # characters before and after a placeholder
_FOR_THE_COMMAND_LINE = re.compile(
    r"[;,] (?:pass|say \w+(?: they are)? with) (?:--|').*?(?=\. The file|$)"
)

Tone = Literal["plain", "going", "ok", "warn", "bad"]


class UploadState(msgspec.Struct, frozen=True, kw_only=True):
    """What an import's state is called, and how it is shown. ``going``: it will change by itself."""

    word: str
    tone: Tone
    going: bool = False


STATES: dict[ImportState, UploadState] = {
    "draft": UploadState(word="Check its columns", tone="warn"),
    "queued": UploadState(word="Waits its turn", tone="plain", going=True),
    "running": UploadState(word="Being read", tone="going", going=True),
    "done": UploadState(word="Read", tone="ok"),
    "failed": UploadState(word="Failed", tone="bad"),
}

REASONS: dict[str, str] = {
    Reason.LINE_TOO_LONG: "The line is too long",
    Reason.UNDECODABLE: "The bytes are no text in the file's encoding",
    Reason.NUL_BYTE: "A NUL character",
    Reason.BAD_JSON: "No valid JSON",
    Reason.BAD_RECORD: "Not built like a record of this format",
    Reason.BAD_ROLE: "It is not clear who speaks",
    Reason.EMPTY_TEXT: "A message without text",
    Reason.NO_TURNS: "A conversation without messages",
    Reason.TOOL_MESSAGE: "A message to or from a tool",
    Reason.NOT_TEXT: "Not text, such as an image",
    Reason.WRONG_COLUMNS: "Too many or too few columns",
    Reason.UNCLOSED_QUOTE: "A quotation mark that never closes",
    Reason.STRAY_QUOTE: "A quotation mark in the wrong place",
    Reason.CONVERSATION_REAPPEARS: "Goes on with a conversation that had ended",
    Reason.TOO_MANY_TURNS: "Too many messages for one conversation",
    Reason.BAD_COMPRESSION: "Damaged compression",
    Reason.TOO_LARGE: "Too large for one conversation",
    Reason.TOO_SLOW: "It took too long to redact",
    Reason.ROUNDED_ID: "A spreadsheet has rounded the conversation's id",
}

KINDS: dict[str, str] = {
    "EMAIL": "E-mail addresses",
    "PHONE": "Telephone numbers",
    "CARD": "Card numbers",
    "CARD_CODE": "Card security codes",
    "CARD_EXPIRY": "Card expiry dates",
    "IBAN": "Bank accounts (IBAN)",
    "IP": "Network addresses",
    "URL": "Links",
    "NAME": "Names",
    "ADDRESS": "Postal addresses",
    "TERM": "Your own words",
}


SPEAKERS: dict[str, str] = {
    Role.CUSTOMER: "customers",
    Role.AGENT: "agents",
    Role.BOT: "bots",
    Role.NOTE: "internal notes",
    Role.SYSTEM: "the system",
}


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """One upload in a list. Figures are None until it was read; ``problem``: why it failed."""

    id: str
    filename: str
    size_bytes: int
    state: UploadState
    format: str
    kept: int | None
    new: int | None
    rejected: int | None
    partially_rejected: int | None
    problem: str
    created_at: datetime.datetime
    finished_at: datetime.datetime | None


class RejectedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What was rejected for one reason: how many, and those that the report names."""

    reason: str
    word: str
    count: int
    examples: Sequence[Rejected]


class Part(NamedTuple):
    """A piece of stored text: ``same`` as it came, or a placeholder, ``new``: what stood there is gone."""

    kind: Literal["same", "new"]
    text: str


async def list_uploads(
    session: AsyncSession,
    tenant: Tenant,
    *,
    limit: int = PAGE,
    after: str | None = None,
    states: Collection[ImportState] | None = None,
) -> list[Upload]:
    """The tenant's uploads, newest first, behind the import ``after``, in all states or in ``states``."""
    query = _query(tenant).order_by(Import.id.desc()).limit(limit)
    if states is not None:
        query = query.where(Import.state.in_(states))
    if after is not None:
        query = query.where(Import.id < after)
    return [_upload(row) for row in await session.execute(query)]


async def find_same(session: AsyncSession, tenant: Tenant, sha256: str) -> Upload | None:
    """The newest upload of the same bytes that did not fail."""
    query = _query(tenant).where(SourceFile.sha256 == sha256, Import.state != "failed")
    row = (await session.execute(query.order_by(Import.id.desc()).limit(1))).one_or_none()
    return None if row is None else _upload(row)


async def count_unfinished(session: AsyncSession, tenant_id: str) -> dict[ImportState, int]:
    """How many uploads wait or are being read, by state."""
    query = of_tenant(tenant_id).select(Import.state, func.count(Import.id))
    query = query.where(Import.state.in_(originals.UNFINISHED)).group_by(Import.state)
    rows = await session.execute(query)
    return dict(rows.all())


async def names_of(
    session: AsyncSession, tenant: Tenant, import_ids: Sequence[str]
) -> dict[str, str]:
    """The file names of these imports, by id; those that were deleted are absent."""
    query = (
        of_tenant(tenant.id)
        .select(Import.id, SourceFile.filename)
        .join(SourceFile, Import.source_file_id == SourceFile.id)
        .where(Import.id.in_(import_ids))
    )
    rows = await session.execute(query)
    return {import_id: clean_name(filename) for import_id, filename in rows}


async def add(
    session: AsyncSession,
    tenant: Tenant,
    *,
    sha256: str,
    size_bytes: int,
    filename: str,
    head: bytes,
) -> Import:
    """Queue an upload whose bytes are stored; a table becomes a draft until its columns are confirmed.

    Args:
        session: a transaction.
        tenant: whose upload it is.
        sha256: of the bytes.
        size_bytes: how many there are.
        filename: as it was called.
        head: its first ``connectors.importers.HEAD_BYTES``, by which its format is known.

    Raises:
        connectors.errors.UnknownFormat: it is no transcript that is understood.
    """
    importer = choose(head, filename).name
    row, _ = await service.queue_import(
        session,
        tenant,
        sha256=sha256,
        size_bytes=size_bytes,
        filename=filename,
        importer=importer,
        draft=importer == "csv",
    )
    return row


def sample() -> bytes:
    """The transcripts of an invented bakery, to try everything with."""
    return (resources.files("connectors.samples") / SAMPLE).read_bytes()


def formats() -> list[tuple[str, str]]:
    """Each format that is understood: its name, and how its files look."""
    return [(each.name, each.description) for each in IMPORTERS.values()]


def report_of(row: Import) -> ImportReport | None:
    """The report of an import; None before it was read."""
    return None if row.report is None else msgspec.convert(row.report, ImportReport)


def rejected_groups(report: ImportReport) -> list[RejectedGroup]:
    """What was rejected, the most frequent reason first."""
    return [
        RejectedGroup(
            reason=reason,
            word=REASONS.get(reason, reason),
            count=count,
            examples=[each for each in report.examples if each.reason == reason],
        )
        for reason, count in _most_first(report.reasons)
    ]


def kinds_redacted(report: ImportReport) -> list[tuple[str, int]]:
    """(what it is in words, how often it was replaced), the most frequent first."""
    return [(KINDS.get(kind, kind), count) for kind, count in _most_first(report.redacted)]


def speakers(report: ImportReport) -> list[tuple[str, int]]:
    """(whose, how many messages), the most frequent first."""
    return [(SPEAKERS.get(role, role), count) for role, count in _most_first(report.roles)]


async def snippets(
    session: AsyncSession, tenant: Tenant, import_id: str, *, limit: int = 5
) -> list[list[Part]]:
    """Messages of an import's first conversations that hold placeholders, cut; each kind comes first once."""
    mine = of_tenant(tenant.id)
    again = mine.select(ImportedAgain.conversation_id).where(ImportedAgain.import_id == import_id)
    query = (
        mine.select(ConversationRow.body)
        .where(or_(ConversationRow.import_id == import_id, ConversationRow.id.in_(again)))
        .where(func.length(cast(ConversationRow.body, Text)) < _SNIPPET_BYTES)
        .order_by(ConversationRow.id)
        .limit(_SNIPPETS_FROM)
    )
    kinds: set[str] = set()
    first: list[list[Part]] = []
    others: list[list[Part]] = []
    for body in await session.scalars(query):
        for turn in msgspec.convert(body, Conversation).turns:
            parts = _parts(turn.text)
            here = {text.rpartition("_")[0] for kind, text in parts if kind == "new"}
            if here:
                (others if here <= kinds else first).append(parts)
                kinds |= here
    return [*first, *others][:limit]


def to_csv(uploads: Sequence[Upload]) -> bytes:
    """Uploads, a line each."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                each.filename,
                each.state.word,
                each.format,
                each.size_bytes,
                each.kept,
                each.new,
                each.rejected,
                each.partially_rejected,
                each.created_at.isoformat(timespec="seconds"),
                each.id,
            )
            for each in uploads
        ),
    )


def rejected_to_csv(report: ImportReport) -> bytes:
    """The records that a report names, a line each."""
    return spreadsheets.to_csv(
        REJECTED_COLUMNS,
        (
            (each.line or None, each.reason, "a part" if each.part else "the record", each.detail)
            for each in report.examples
        ),
    )


def for_a_page(message: str) -> str:
    """An importer's message as a page says it: without what is to be typed on the command line."""
    return _FOR_THE_COMMAND_LINE.sub("", message).strip()


def as_sentence(message: str) -> str:
    """The same, beginning with a capital."""
    text = for_a_page(message)
    return text[:1].upper() + text[1:]


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    # PostgreSQL does not keep the order of an object's keys
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _query(tenant: Tenant) -> Select[*tuple[Any, ...]]:
    figures = (
        Import.report[name].as_integer().label(name)
        for name in ("read", "stored", "rejected", "partially_rejected")
    )
    return (
        of_tenant(tenant.id)
        .select(
            Import.id,
            Import.state,
            Import.importer,
            Import.created_at,
            Import.finished_at,
            func.substr(Import.error["message"].as_string(), 1, CELL).label("problem"),
            *figures,
            SourceFile.filename,
            SourceFile.size_bytes,
        )
        .join(SourceFile, Import.source_file_id == SourceFile.id)
    )


def _upload(row: Row[*tuple[Any, ...]]) -> Upload:
    return Upload(
        id=row.id,
        filename=clean_name(row.filename),
        size_bytes=row.size_bytes,
        state=STATES[row.state],
        format=row.importer or "",
        kept=row.read,
        new=row.stored,
        rejected=row.rejected,
        partially_rejected=row.partially_rejected,
        problem=as_sentence(row.problem or ""),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _parts(text: str) -> list[Part]:
    """A text around its first placeholder, in pieces; all of one piece where it has none."""
    begins = PLACEHOLDER.search(text)
    if begins is None:
        return [Part("same", text)]
    start = max(0, begins.start() - _AROUND)
    end = begins.end() + _AROUND
    parts: list[Part] = [Part("same", "…")] if start else []
    at = start
    for found in PLACEHOLDER.finditer(text, start):
        if found.start() > end:
            break
        parts += [Part("same", text[at : found.start()]), Part("new", found[0])]
        at, end = found.end(), max(end, found.end())
    return [*parts, Part("same", text[at:end] + ("…" if end < len(text) else ""))]
