"""Reading an upload into a file of redacted conversations: the slow part, without a database."""

import hashlib
from pathlib import Path

import msgspec

from connectors.conversation import Conversation
from connectors.importers import ImportOptions
from connectors.intake import run_import
from connectors.redact import Redactor
from connectors.report import ImportReport
from server.db.models import Tenant
from server.settings import Settings


class Kept(msgspec.Struct, frozen=True):
    """A redacted conversation, and the digest of what was said in it."""

    digest: str
    conversation: Conversation


def read_source(
    source: Path,
    spool: Path,
    *,
    filename: str,
    importer: str | None,
    options: ImportOptions,
    redactor: Redactor,
) -> ImportReport:
    """Parse and redact ``source`` and write a ``Kept`` a line to ``spool``, each text once.

    Raises:
        ConnectorError: no importer takes the file, or the options do not fit it.
    """
    repeated = 0
    seen: set[str] = set()
    with source.open("rb") as stream, spool.open("wb") as out:
        run = run_import(stream, filename, importer=importer, options=options, redactor=redactor)
        for conversation in run:
            digest = digest_of(conversation)
            if digest in seen:
                repeated += 1
                continue
            seen.add(digest)
            out.write(msgspec.json.encode(Kept(digest, conversation)) + b"\n")
    return msgspec.structs.replace(run.report, repeated=repeated)


def digest_of(conversation: Conversation) -> str:
    """The SHA-256 of who said what; ids, times and labels aside."""
    said = [(turn.speaker, turn.text, turn.weight) for turn in conversation.turns]
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def redactor_of(tenant: Tenant, settings: Settings) -> Redactor:
    """What takes personal details out of a tenant's texts; the same for every way in."""
    return Redactor(tenant.number_patterns, settings.default_region, keep=tenant.keep)
