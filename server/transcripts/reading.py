"""Reading an upload into a file of redacted conversations: the slow part, without a database."""

import hashlib
from collections import Counter
from pathlib import Path

import msgspec

from connectors.conversation import Conversation
from connectors.importers import HEAD_BYTES, ImportOptions, Rejected, choose
from connectors.redact import Redactor

REJECTED_SHOWN = 200


class Kept(msgspec.Struct, frozen=True):
    """A redacted conversation, and the digest of what was said in it."""

    digest: str
    conversation: Conversation


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import kept and what it left out.

    ``read`` conversations were found; of them ``stored`` are new, ``known`` were there already
    and ``repeated`` came more than once in this file. ``rejected`` records were left out whole,
    ``trimmed`` ones in part; ``reasons`` counts why, and ``examples`` are the first of them, with
    their lines. ``redacted`` counts replaced personal data by kind. ``notes`` are what the
    importer found out about the file (its encoding, say).
    """

    importer: str
    read: int = 0
    stored: int = 0
    known: int = 0
    repeated: int = 0
    turns: int = 0
    rejected: int = 0
    trimmed: int = 0
    reasons: dict[str, int] = {}
    examples: list[Rejected] = []
    redacted: dict[str, int] = {}
    notes: dict[str, str] = {}


def read_source(
    source: Path,
    spool: Path,
    *,
    filename: str,
    importer: str | None,
    options: ImportOptions,
    redactor: Redactor,
) -> ImportReport:
    """Parse and redact ``source`` and write a ``Kept`` a line to ``spool``.

    Raises:
        ConnectorError: no importer takes the file, or the options do not fit it.
    """
    with source.open("rb") as stream:
        chosen = choose(stream.read(HEAD_BYTES), filename, name=importer)
        stream.seek(0)
        report = ImportReport(importer=chosen.name)
        reasons: Counter[str] = Counter()
        redacted: Counter[str] = Counter()
        notes: dict[str, str] = {}
        seen: set[str] = set()
        with spool.open("wb") as out:
            for item in chosen.read(stream, options, notes.__setitem__):
                if isinstance(item, Rejected):
                    reasons[item.reason] += 1
                    report.trimmed += item.part
                    report.rejected += not item.part
                    if len(report.examples) < REJECTED_SHOWN:
                        report.examples.append(item)
                    continue
                report.read += 1
                conversation, counts = redactor.redact(item)
                redacted += counts
                digest = digest_of(conversation)
                if digest in seen:
                    report.repeated += 1
                    continue
                seen.add(digest)
                report.turns += len(conversation.turns)
                out.write(msgspec.json.encode(Kept(digest, conversation)) + b"\n")
    report.reasons = dict(reasons.most_common())
    report.redacted = dict(redacted)
    report.notes = notes
    return report


def digest_of(conversation: Conversation) -> str:
    """The SHA-256 of who said what; ids, times and labels aside."""
    said = [(turn.speaker, turn.text, turn.weight) for turn in conversation.turns]
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()
