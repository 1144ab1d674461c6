"""The columns of a table before it is imported: what is guessed, what a person chose, and a trial.

The file is the tenant's own, but what is shown of it is redacted as an import redacts. Headers and
roles are chosen by their position, so that a page need not hold what stands in the file.
"""

import asyncio
import io
from collections.abc import Mapping, Sequence

import msgspec

from connectors.conversation import Role
from connectors.importers import ImportOptions
from connectors.importers.csv.headers import Field
from connectors.importers.csv.table import TableHead, look_at
from connectors.report import ImportReport
from server.db.models import Import, SourceFile, Tenant
from server.files.names import clean_name
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.transcripts.reading import ReadingRequest, preview
from server.transcripts.redaction import redaction_rules
from server.transcripts.uploads import as_sentence

ROWS = 20
HEAD_BYTES = 256 << 10  # of the file, for the trial: its redaction takes 2 s at the worst
RECORD_SECONDS = 2.0
_DIGITS = 6  # of a position in a form

CHOICES: tuple[tuple[Field, str, str], ...] = (
    ("conversation", "Conversation", "What the rows of one conversation have in common."),
    ("role", "Who speaks", "Says for each row whether it is the customer or the agent."),
    ("text", "Message", "What was said."),
    ("question", "Question", "Where a row holds a whole exchange: what the customer asked."),
    ("answer", "Answer", "Where a row holds a whole exchange: what the agent answered."),
    ("time", "Time", "When it was said; puts the messages in order."),
    ("customer_name", "Customer's name", "Taken out of the messages wherever it occurs."),
    ("agent_name", "Agent's name", "Taken out of the messages wherever it occurs."),
)
DATES = ("day-first", "month-first")
ORDERS = ("oldest-first", "newest-first")
ROLES: dict[Role, str] = {
    Role.CUSTOMER: "Customer",
    Role.AGENT: "Agent",
    Role.BOT: "Bot",
    Role.NOTE: "Internal note",
    Role.SYSTEM: "System",
}


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What a person chose: columns by position, roles by the value's position in ``TableHead.roles``.

    ``role_column``: the position of the role column to which ``roles`` belong. What is absent, or
    empty, is found out.
    """

    columns: dict[Field, int] = {}
    roles: dict[int, Role] = {}
    role_column: int | None = None
    dates: str = ""
    order: str = ""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it would be read, as far as ``HEAD_BYTES`` go.

    ``head`` may be shown. ``report`` is of the trial; None where ``problem`` says why it cannot be read.
    ``whole``: the trial was of the whole file. ``options`` are not to be shown: they quote the file.
    """

    options: ImportOptions
    head: TableHead
    report: ImportReport | None
    problem: str
    whole: bool


async def look(
    row: Import,
    source: SourceFile,
    tenant: Tenant,
    *,
    chosen: Chosen,
    blobs: BlobStore,
    settings: Settings,
) -> Look:
    """Read the beginning of a draft's file with what was chosen.

    Raises:
        NotFound: the file was removed.
        Invalid: the process that reads it did not survive it.
    """
    data = await _beginning(blobs, source.sha256)
    whole = len(data) >= source.size_bytes
    if not whole and not data.startswith(b"\x1f\x8b"):
        data = data[: data.rfind(b"\n") + 1] or data
    options = await asyncio.to_thread(_options, data, chosen)
    with scratch(settings, "preview") as folder:
        path = folder / "head"
        await asyncio.to_thread(path.write_bytes, data)
        outcome = await preview(
            ReadingRequest(
                source=str(path),
                spool=str(folder / "conversations.jsonl"),
                filename=clean_name(source.filename),
                importer=row.importer,
                options=options,
                redaction=redaction_rules(tenant, settings),
                record_seconds=RECORD_SECONDS,
                preview_rows=ROWS,
            )
        )
    head = outcome.head or TableHead()
    problem = head.problem
    if outcome.report is None:
        problem = problem or outcome.message
    elif not outcome.report.read:
        problem = "No conversation can be read like this."
    return Look(
        options=options,
        head=head,
        report=outcome.report,
        problem=as_sentence(problem),
        whole=whole,
    )


def options_of(headers: Sequence[str], roles: Sequence[str], chosen: Chosen) -> ImportOptions:
    """The options of an import by what was chosen; positions that are not there are passed over."""
    mapping = {field: headers[at] for field, at in chosen.columns.items() if 0 <= at < len(headers)}
    by_value = {roles[at]: role for at, role in chosen.roles.items() if 0 <= at < len(roles)}
    plain = {
        name: value
        for name, value, known in (
            ("dates", chosen.dates, DATES),
            ("order", chosen.order, ORDERS),
        )
        if value in known
    }
    return msgspec.convert({"mapping": mapping, "roles": by_value, **plain}, ImportOptions)


def read_choice(fields: Mapping[str, str]) -> Chosen:
    """What a form says: ``column-text=3``, ``role-0=agent``, ``roles-of=2``, ``dates``, ``order``."""
    columns = {
        field: at
        for field, _, _ in CHOICES
        if (at := _position(fields.get(f"column-{field}", ""))) is not None
    }
    roles = {}
    for name, value in fields.items():
        at = _position(name.removeprefix("role-")) if name.startswith("role-") else None
        if at is not None and value in set(ROLES):
            roles[at] = Role(value)
    return Chosen(
        columns=columns,
        roles=roles,
        role_column=_position(fields.get("roles-of", "")),
        dates=fields.get("dates", ""),
        order=fields.get("order", ""),
    )


def _options(data: bytes, chosen: Chosen) -> ImportOptions:
    plain = look_at(io.BytesIO(data), ImportOptions(), rows=0)
    options = options_of(plain.headers, (), chosen)
    if not chosen.roles:
        return options
    head = look_at(io.BytesIO(data), options, rows=0)
    if head.columns.get("role") != chosen.role_column:
        return options  # the roles are of another column's values
    return options_of(head.headers, head.roles, chosen)


async def _beginning(blobs: BlobStore, sha256: str) -> bytes:
    data = b""
    async for chunk in blobs.iterate(sha256):
        data += chunk
        if len(data) >= HEAD_BYTES:
            break
    return data[:HEAD_BYTES]


def _position(text: str) -> int | None:
    return int(text[:_DIGITS]) if text.isascii() and text.isdigit() else None
