"""Runs an import: choose the format, hash, parse, redact, count. Storing is the caller's.

run = run_import(stream, "chats.csv", redactor=Redactor())
for conversation in run:
...
print(render_table(run.report))
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from io import RawIOBase
from typing import BinaryIO, cast

import msgspec

from connectors.conversation import Conversation
from connectors.importers import (
    HEAD_BYTES,
    Importer,
    ImportOptions,
    Rejected,
    choose,
)
from connectors.redact import Redactor

DETAILS_A_REASON = 10
"""How many records of one reason the report names by line; all are counted."""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import kept, what it left out, and why.

    ``rejected`` counts whole records, ``skipped`` parts of records that were kept (tool
    messages, say); ``details`` names the first of each reason. ``redactions`` counts
    placeholders by kind. ``renamed``: conversations whose id was taken got ``#2``, ``#3``.
    ``findings``: what the importer worked out (columns, blank lines).
    """

    filename: str
    importer: str
    sha256: str
    size_bytes: int
    encoding: str
    conversations: int
    turns: int
    rejected: dict[str, int]
    skipped: dict[str, int]
    redactions: dict[str, int]
    renamed: int
    findings: dict[str, str]
    details: list[Rejected]


class ImportRun:
    """Iterate once for the conversations; then ``report`` is whole. Made by ``run_import``."""

    def __init__(
        self,
        source: "_Source",
        filename: str,
        *,
        importer: Importer,
        options: ImportOptions,
        redactor: Redactor | None,
    ) -> None:
        self.importer = importer
        self._source = source
        self._filename = filename
        self._options = options
        self._redactor = redactor
        self._conversations = 0
        self._turns = 0
        self._renamed = 0
        self._rejected: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._redactions: Counter[str] = Counter()
        self._findings: dict[str, str] = {}
        self._details: list[Rejected] = []
        self._ids: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Conversation]:
        """Yield what is kept, redacted. Raises BadMapping before the first."""
        stream = cast("BinaryIO", self._source)
        for item in self.importer.read(stream, self._options, self._findings.__setitem__):
            if isinstance(item, Rejected):
                self._leave_out(item)
            else:
                yield self._keep(item)
        self._source.drain()  # an importer may stop early; the hash covers the whole file

    @property
    def report(self) -> ImportReport:
        """The counts so far; the whole story after the last conversation."""
        findings = dict(self._findings)
        return ImportReport(
            filename=self._filename,
            importer=self.importer.name,
            sha256=self._source.sha256,
            size_bytes=self._source.done,
            encoding=findings.pop("encoding", "unknown"),
            conversations=self._conversations,
            turns=self._turns,
            rejected=_by_count(self._rejected),
            skipped=_by_count(self._skipped),
            redactions=_by_count(self._redactions),
            renamed=self._renamed,
            findings=findings,
            details=sorted(self._details, key=lambda rejected: rejected.line),
        )

    def _keep(self, conversation: Conversation) -> Conversation:
        if self._redactor:
            conversation, counts = self._redactor.redact(conversation)
            self._redactions += counts
        wanted = conversation.id
        self._ids[wanted] += 1
        while self._ids[wanted] > 1:
            taken = f"{wanted}#{self._ids[wanted]}"
            if taken not in self._ids:
                self._ids[taken] = 1
                conversation = msgspec.structs.replace(conversation, id=taken)
                self._renamed += 1
                break
            self._ids[wanted] += 1
        self._conversations += 1
        self._turns += len(conversation.turns)
        return conversation

    def _leave_out(self, item: Rejected) -> None:
        counter = self._skipped if item.part else self._rejected
        counter[item.reason] += 1
        if counter[item.reason] <= DETAILS_A_REASON:
            if self._redactor:
                detail = self._redactor.redact_text(item.detail)
                item = msgspec.structs.replace(item, detail=detail)
            self._details.append(item)


def run_import(
    stream: BinaryIO,
    filename: str,
    *,
    importer: str | None = None,
    options: ImportOptions | None = None,
    redactor: Redactor | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImportRun:
    """Choose the importer (by name, or by the file's first bytes) and return the run, not begun.

    The stream is read once, from where it stands; it need not be seekable. ``progress`` gets the
    bytes of the file read so far (compressed ones, for gzip), about every 64 KiB.

    Raises:
        UnknownFormat: no importer of that name, or none fits. Iterating may raise BadMapping.
    """
    source = _Source(stream, progress)
    chosen = choose(source.peek(HEAD_BYTES), filename, name=importer)
    return ImportRun(
        source, filename, importer=chosen, options=options or ImportOptions(), redactor=redactor
    )


class _Source(RawIOBase):
    """Reads on, counting and hashing; the first bytes can be looked at without being used up."""

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None] | None) -> None:
        super().__init__()
        self._stream = stream
        self._progress = progress
        self._head = b""
        self._digest = hashlib.sha256()
        self.done = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (data := self._stream.read(size - len(self._head))):
            self._head += data
        return self._head

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._head or self._stream.read(size)
        if 0 <= size < len(data):
            data, self._head = data[:size], data[size:]
        else:
            self._head = b""
        self._digest.update(data)
        self.done += len(data)
        if self._progress and data:
            self._progress(self.done)
        return data

    def drain(self) -> None:
        while self.read(HEAD_BYTES):
            pass


def render_table(report: ImportReport) -> str:
    """The report as plain text, for people; ends with a newline."""
    rows = [
        ("file", f"{report.filename} ({report.size_bytes:,} bytes, sha256 {report.sha256[:12]})"),
        ("read as", f"{report.importer}, {report.encoding}"),
        *report.findings.items(),
        ("kept", f"{report.conversations:,} conversations, {report.turns:,} turns"),
        ("redacted", _listed(report.redactions) or "nothing"),
        ("rejected", _listed(report.rejected) or "nothing"),
    ]
    if report.skipped:
        rows.append(("parts left out", _listed(report.skipped)))
    if report.renamed:
        rows.append(("renamed", f"{report.renamed:,} conversations whose id was taken"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if report.details:
        reasons = max(len("reason"), *(len(item.reason) for item in report.details))
        lines += ["", f"{'line':>8}  {'reason':<{reasons}}  detail"]
        lines += [
            f"{item.line:>8}  {item.reason:<{reasons}}  {item.detail}" for item in report.details
        ]
        unnamed = sum(report.rejected.values()) + sum(report.skipped.values()) - len(report.details)
        if unnamed:
            lines.append(f"... and {unnamed:,} more (the first {DETAILS_A_REASON} of each reason)")
    return "\n".join(lines) + "\n"


def render_json(report: ImportReport) -> str:
    """The report as one indented JSON object; ends with a newline."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def _by_count(counter: Counter[str]) -> dict[str, int]:
    return {str(name): count for name, count in counter.most_common()}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
