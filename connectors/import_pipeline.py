"""The import pipeline: choose the format, hash, parse, redact, count. The caller stores."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from io import RawIOBase
from typing import IO, cast

import msgspec

from connectors.conversation import Conversation, Role, Turn
from connectors.errors import TookTooLong
from connectors.importers import (
    HEAD_BYTES,
    Importer,
    ImportOptions,
    Rejected,
    choose,
)
from connectors.importers.base import Reason, quoted
from connectors.redaction.redactor import Redactor
from connectors.report import EXAMPLES_OF_A_REASON, ImportReport

RecordLimit = Callable[[], AbstractContextManager[None]]
"""Makes a context manager that raises ``TookTooLong`` in its block when the limit is reached."""

_NOTHING_TO_TRAIN_ON = "no turn in this file is theirs, so nothing can be learnt from it"
_HOW_TO_MAP = "say who they are with --map 'role:VALUE={}'"


class ImportRun:
    """One import. Iterate once; then ``report`` is complete. Made by ``run_import``."""

    def __init__(
        self,
        source: "_Source",
        filename: str,
        *,
        importer: Importer,
        options: ImportOptions,
        redactor: Redactor | None,
        record_limit: RecordLimit,
    ) -> None:
        self.importer = importer
        self._limit = record_limit
        self._source = source
        self._options = options
        self._redactor = redactor
        self._report = ImportReport(importer=importer.name, filename=filename)
        self._reasons: Counter[str] = Counter()
        self._redacted: Counter[str] = Counter()
        self._ids: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Conversation]:
        """Yield the conversations that are kept, redacted; raises BadMapping before the first."""
        stream = cast("IO[bytes]", self._source)
        for item in self.importer.read(stream, self._options, self._note):
            if isinstance(item, Rejected):
                self._reject(item)
                continue
            try:
                kept = self._keep(item)
            except TookTooLong as exc:  # never kept unredacted
                detail = f"conversation {quoted(item.id)}: {exc}"
                self._reject(Rejected(line=0, reason=Reason.TOO_SLOW, detail=detail))
                continue
            yield kept
        if self._report.read:
            self._note_missing_sides()
        self._source.drain()  # an importer may stop early; the hash covers the whole file

    @property
    def report(self) -> ImportReport:
        """The counts so far; complete after the last conversation."""
        return msgspec.structs.replace(
            self._report,
            sha256=self._source.sha256,
            size_bytes=self._source.position,
            reasons={str(reason): count for reason, count in self._reasons.most_common()},
            roles=dict(self._roles.most_common()),
            redacted=dict(self._redacted.most_common()),
            examples=sorted(self._report.examples, key=lambda rejected: rejected.line),
            notes=dict(self._report.notes),
        )

    def _keep(self, conversation: Conversation) -> Conversation:
        if self._redactor:
            with self._limit():
                conversation, counts = redact(conversation, self._redactor)
            self._redacted += counts
        conversation = msgspec.structs.replace(conversation, names={}, places=())
        self._roles.update(turn.role.value for turn in conversation.turns)
        wanted = conversation.id
        self._ids[wanted] += 1
        while self._ids[wanted] > 1:
            taken = f"{wanted}#{self._ids[wanted]}"
            if taken not in self._ids:
                self._ids[taken] = 1
                conversation = msgspec.structs.replace(conversation, id=taken)
                self._report.renamed += 1
                break
            self._ids[wanted] += 1
        self._report.read += 1
        self._report.turns += len(conversation.turns)
        return conversation

    def _note(self, what: str, found: str) -> None:
        """Add a note, redacted: it may quote a value of the file."""
        self._report.notes[what] = self._redactor.redact_text(found) if self._redactor else found

    def _note_missing_sides(self) -> None:
        answers = self._roles[Role.AGENT] + self._roles[Role.BOT]
        if not answers:
            self._note("no agent", f"{_NOTHING_TO_TRAIN_ON}; {_HOW_TO_MAP.format('agent')}")
        elif not self._roles[Role.CUSTOMER]:
            self._note("no customer", f"{_NOTHING_TO_TRAIN_ON}; {_HOW_TO_MAP.format('customer')}")

    def _reject(self, item: Rejected) -> None:
        self._report.partially_rejected += item.part
        self._report.rejected += not item.part
        self._reasons[item.reason] += 1
        if self._reasons[item.reason] <= EXAMPLES_OF_A_REASON:
            if self._redactor:
                detail = self._redactor.redact_text(item.detail)
                item = msgspec.structs.replace(item, detail=detail)
            self._report.examples.append(item)


def redact(conversation: Conversation, redactor: Redactor) -> tuple[Conversation, Counter[str]]:
    """Without personal data; each of ``names`` counts as the author of an extra, empty turn."""
    people = tuple(Turn(side, "", author=name) for name, side in conversation.names.items())
    turns = conversation.turns
    whole = msgspec.structs.replace(conversation, turns=(*turns, *people), names={})
    redacted, counts = redactor.redact(whole)
    kept = redacted.turns[: len(turns)]
    for person, hidden in zip(people, redacted.turns[len(turns) :], strict=True):
        if hidden.author != person.author and hidden.author:
            kind = hidden.author.strip("[]").rpartition("_")[0]
            counts[kind] -= 1
    return msgspec.structs.replace(redacted, turns=kept), +counts


def run_import(
    stream: IO[bytes],
    filename: str,
    *,
    importer: str | None = None,
    options: ImportOptions | None = None,
    redactor: Redactor | None = None,
    progress: Callable[[int], None] | None = None,
    record_limit: RecordLimit = nullcontext,
) -> ImportRun:
    """Choose the importer and return the run, not yet started.

    For example::

        with path.open("rb") as stream:
            run = run_import(stream, path.name, redactor=Redactor())
            for conversation in run:
                store(conversation)
        print(render_table(run.report))

    Args:
        stream: The file, open until the run ends. It is read once, from its current position, and
            need not be seekable.
        filename: For the report and as a hint at the format.
        importer: A name of ``IMPORTERS``; chosen by the file's first bytes when absent.
        options: What the operator says about the file.
        redactor: Applied to each conversation, and to what the report quotes; None keeps all.
        progress: Called about every 64 KiB with the bytes read so far (compressed, for gzip).
        record_limit: Entered for the redaction of each record. A record for which it raises
            ``TookTooLong`` is rejected.

    Raises:
        UnknownFormat: no importer has that name, or none fits. Iterating may raise BadMapping.
    """
    source = _Source(stream, progress)
    chosen = choose(source.peek(HEAD_BYTES), filename, name=importer)
    return ImportRun(
        source,
        filename,
        importer=chosen,
        options=options or ImportOptions(),
        redactor=redactor,
        record_limit=record_limit,
    )


class _Source(RawIOBase):
    """Reads a stream, counting and hashing; ``peek`` looks at the first bytes without using them up."""

    def __init__(self, stream: IO[bytes], progress: Callable[[int], None] | None) -> None:
        super().__init__()
        self._stream = stream
        self._progress = progress
        self._head = b""
        self._digest = hashlib.sha256()
        self.position = 0

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
        self.position += len(data)
        if self._progress and data:
            self._progress(self.position)
        return data

    def drain(self) -> None:
        while self.read(HEAD_BYTES):
            pass
