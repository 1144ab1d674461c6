"""Looks through a tenant's conversations, as a process of its own.

    python -m server.curation.scanning    (a ``ScanRequest`` on standard input, a ``Scan`` out)

A process, and not a thread, so that answers to customers do not wait while ten thousand messages are
read. It opens no database and reads no settings.
"""

import asyncio
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from connectors.conversation import Conversation
from connectors.redaction.redactor import RedactionRules, Redactor, UncertainHit
from server.curation.schemas import (
    MAX_DOUBT_CHARACTERS,
    ContradictionView,
    Doubt,
    Flagged,
    Place,
    Scan,
    StatementView,
)
from server.errors import Invalid
from training.data.curation.contradictions import exchanges_of, find_contradictions
from training.data.curation.duplicates import near_duplicates
from training.data.curation.flags import Flag, flags_of
from training.data.curation.languages import main_language

NICENESS = 10
MAX_DOUBTS = 500  # that a person is asked about, the most frequent first
MAX_PLACES = 3  # of one doubt that are shown
MAX_GROUPS, MAX_IN_GROUP = 50, 20
MAX_CONTRADICTIONS, MAX_STATEMENTS = 100, 5
_AROUND = 60  # characters beside a doubt
_REPLY_CHARACTERS = 400


class StoredConversation(msgspec.Struct, frozen=True):
    """A line of the file that is looked through."""

    id: str
    conversation: Conversation


class ScanRequest(msgspec.Struct, frozen=True):
    """What to look through: a file of ``StoredConversation``; ``redaction`` is the ``Redactor``'s."""

    source: str
    redaction: RedactionRules


async def scan(request: ScanRequest) -> Scan:
    """Run a process that looks. It ends when this call is cancelled.

    Raises:
        Invalid: the process did not survive it (``scan_ended``).
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.curation.scanning"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(msgspec.json.encode(request))
    except asyncio.CancelledError:
        process.kill()
        await asyncio.shield(process.wait())
        raise
    if process.returncode:
        raise Invalid(
            f"The process that looked through the conversations ended with status "
            f"{process.returncode} (was memory short?).",
            code="scan_ended",
        )
    return msgspec.json.decode(output, type=Scan)


def look_through(stored: Sequence[StoredConversation], redactor: Redactor) -> Scan:
    """All that is found in these conversations, oldest first."""
    ids = [each.id for each in stored]
    conversations = [each.conversation for each in stored]
    flags: dict[Flag, list[Flagged]] = defaultdict(list)
    for name, conversation in zip(ids, conversations, strict=True):
        for found in flags_of(conversation):
            flags[found.flag].append(Flagged(name, found.turn, found.why))
    return Scan(
        conversations=len(stored),
        doubts=_doubts(stored, redactor),
        flags=dict(flags),
        languages=dict(Counter(map(main_language, conversations)).most_common()),
        groups=[
            [ids[at] for at in group[:MAX_IN_GROUP]]
            for group in near_duplicates(conversations)[:MAX_GROUPS]
        ],
        contradictions=_contradictions(ids, conversations),
    )


def text_key(text: str) -> str:
    """What is the same for spellings of a doubtful text that differ in case and blanks."""
    return " ".join(text.split()).casefold()[:MAX_DOUBT_CHARACTERS]


def _doubts(stored: Sequence[StoredConversation], redactor: Redactor) -> list[Doubt]:
    found: dict[tuple[str, str], list[tuple[str, Conversation, UncertainHit]]] = defaultdict(list)
    for each in stored:
        for hit in redactor.uncertain(each.conversation):
            found[hit.rule, text_key(hit.text)].append((each.id, each.conversation, hit))
    often = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Doubt(
            rule=rule,
            entity_type=hits[0][2].entity_type,
            text=hits[0][2].text,
            count=len(hits),
            places=[_place(name, one, hit) for name, one, hit in hits[:MAX_PLACES]],
        )
        for (rule, _), hits in often[:MAX_DOUBTS]
    ]


def _place(name: str, conversation: Conversation, hit: UncertainHit) -> Place:
    text = conversation.turns[hit.turn].text
    before = text[max(0, hit.start - _AROUND) : hit.start]
    return Place(name, hit.turn, before, text[hit.end : hit.end + _AROUND])


def _contradictions(
    ids: Sequence[str], conversations: Sequence[Conversation]
) -> list[ContradictionView]:
    found = find_contradictions(exchanges_of(conversations))
    return [
        ContradictionView(
            question=one.question[:_REPLY_CHARACTERS],
            kind=one.kind,
            statements=[
                StatementView(
                    facts=[str(fact) for fact in statement.facts],
                    count=len(statement.exchanges),
                    conversation_id=ids[statement.newest.conversation],
                    reply=statement.newest.reply[:_REPLY_CHARACTERS],
                    sent_at=statement.newest.at,
                )
                for statement in one.statements[:MAX_STATEMENTS]
            ],
        )
        for one in found[:MAX_CONTRADICTIONS]
    ]


def main() -> None:
    """Look as the ``ScanRequest`` on standard input says, and write the ``Scan``."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ScanRequest)
    os.nice(NICENESS)
    decoder = msgspec.json.Decoder(StoredConversation)
    with Path(request.source).open("rb") as lines:
        stored = [decoder.decode(line) for line in lines]
    found = look_through(stored, request.redaction.redactor())
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
