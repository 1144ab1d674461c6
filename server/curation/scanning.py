"""Looks through a tenant's conversations, as a process of its own.

    python -m server.curation.scanning    (a ``ScanRequest`` on standard input, a ``Scan`` out)

A process, and not a thread, so that answers to customers do not wait while ten thousand messages are
read. It opens no database, reads no settings, and loads no model: it asks who started it for the vectors
of texts. Messages are lines of JSON: ``TextsToEmbed`` out and vectors in, as often as it asks, and
``Looked`` at the end.
"""

import asyncio
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from connectors.conversation import Conversation, Role
from connectors.redaction.redactor import RedactionRules, Redactor, UncertainHit
from server.curation.schemas import (
    MAX_DOUBT_CHARACTERS,
    ContradictionView,
    ConversationLabels,
    Doubt,
    Flagged,
    Place,
    Scan,
    ScanTopic,
    StatementView,
)
from server.errors import Invalid
from training.data.curation.contradictions import (
    Exchange,
    Vectors,
    exchanges_of,
    find_contradictions,
)
from training.data.curation.duplicates import near_duplicates
from training.data.curation.flags import Flag, flags_of
from training.data.curation.languages import languages_of, main_language

NICENESS = 10
MAX_DOUBTS = 500  # that a person is asked about, the most frequent first
MAX_PLACES = 3  # of one doubt that are shown
MAX_GROUPS, MAX_IN_GROUP = 50, 20
MAX_CONTRADICTIONS, MAX_STATEMENTS = 100, 5
_AROUND = 60  # characters beside a doubt
_REPLY_CHARACTERS = 400
TOPICS_SEED = 0
MAX_QUESTIONS = 1_500
"""Compared by meaning, and as many again grouped into topics; the newest. An encoder on one thread embeds 150 to 280 in a second."""
MAX_QUESTION_CHARACTERS = 1_000  # about what the encoder reads
MAX_LINE_BYTES = 64 << 20

EmbedTexts = Callable[[list[str]], Sequence[Vectors]]
"""Vectors of the first texts of a list, of as many as there was time for; perhaps of none."""


class StoredConversation(msgspec.Struct, frozen=True):
    """A line of the file that is looked through."""

    id: str
    conversation: Conversation


class TextsToEmbed(msgspec.Struct, frozen=True, tag="texts"):
    """What the process wants vectors of, the most important text first."""

    texts: list[str]


class Looked(msgspec.Struct, frozen=True, tag="looked"):
    """The end: what was found, and what is said of each conversation, by its id."""

    scan: Scan
    labels: dict[str, ConversationLabels]


class ScanRequest(msgspec.Struct, frozen=True):
    """What to look through: a file of ``StoredConversation``; ``redaction`` is the ``Redactor``'s."""

    source: str
    redaction: RedactionRules


_messages = msgspec.json.Decoder(TextsToEmbed | Looked)


async def scan(
    request: ScanRequest, embed: Callable[[list[str]], Awaitable[Sequence[bytes]]]
) -> Looked:
    """Run a process that looks. It ends when this call is cancelled.

    Args:
        request: What to look through.
        embed: Gives vectors (float32, little-endian) of the first texts of a list: of as many as it can.

    Raises:
        Invalid: the process did not survive it (``scan_ended``).
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.curation.scanning"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    try:
        found = await _converse(process, request, embed)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if found is None:
        raise Invalid(
            f"The process that looked through the conversations ended with status "
            f"{process.returncode} (was memory short?).",
            code="scan_ended",
        )
    return found


async def _converse(
    process: asyncio.subprocess.Process,
    request: ScanRequest,
    embed: Callable[[list[str]], Awaitable[Sequence[bytes]]],
) -> Looked | None:
    """What the process found; None where it ended before."""
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101
    said: ScanRequest | Sequence[bytes] = request
    while True:
        try:
            process.stdin.write(msgspec.json.encode(said) + b"\n")
            await process.stdin.drain()
        except ConnectionError:
            return None
        line = await process.stdout.readline()
        if not line:
            return None
        message = _messages.decode(line)
        if isinstance(message, Looked):
            return message
        said = await embed(message.texts)


def look_through(
    stored: Sequence[StoredConversation], redactor: Redactor, embed: EmbedTexts
) -> Looked:
    """All that is found in these conversations, oldest first."""
    ids = [each.id for each in stored]
    conversations = [each.conversation for each in stored]
    flags: dict[Flag, list[Flagged]] = defaultdict(list)
    for name, conversation in zip(ids, conversations, strict=True):
        for flag in flags_of(conversation):
            flags[flag.flag].append(Flagged(name, flag.turn, flag.why))
    exchanges = exchanges_of(conversations)
    questions = {one.question: at for at, one in enumerate(exchanges) if one.facts}
    vectors = _question_vectors(questions, embed)
    topics, topic_of = _topics(stored, embed)
    labels = {each.id: _labels(each.conversation, topic_of.get(each.id)) for each in stored}
    found = Scan(
        conversations=len(stored),
        doubts=_doubts(stored, redactor),
        flags=dict(flags),
        languages=dict(Counter(each.language for each in labels.values()).most_common()),
        groups=[
            [ids[at] for at in group[:MAX_IN_GROUP]]
            for group in near_duplicates(conversations)[:MAX_GROUPS]
        ],
        contradictions=_contradictions(ids, exchanges, vectors),
        questions=len(questions),
        questions_by_meaning=len(vectors),
        topics=topics,
    )
    return Looked(found, labels)


def _topics(
    stored: Sequence[StoredConversation], embed: EmbedTexts
) -> tuple[list[ScanTopic], dict[str, int]]:
    """Topics of the newest conversations, and by conversation the number of its own, from 1."""
    from training.evaluation.topics import (  # noqa: PLC0415 - scikit-learn: 1 s
        MIN_CONVERSATIONS,
        find_topics,
        first_question,
    )

    asked: dict[str, str] = {}
    for each in reversed(stored):
        said = (turn.text for turn in each.conversation.turns if turn.role is Role.CUSTOMER)
        if len(asked) < MAX_QUESTIONS and (question := first_question(said)):
            asked[each.id] = question[:MAX_QUESTION_CHARACTERS]
    if len(asked) < MIN_CONVERSATIONS:
        return [], {}
    vectors = embed(list(asked.values()))
    if len(vectors) < MIN_CONVERSATIONS:
        return [], {}
    ids, texts = list(asked)[: len(vectors)], list(asked.values())[: len(vectors)]
    found = find_topics(texts, np.stack(vectors), seed=TOPICS_SEED)
    numbers = {ids[at]: number for number, one in enumerate(found, 1) for at in one.members}
    return [
        ScanTopic(words=list(one.words), example=one.example, conversations=len(one.members))
        for one in found
    ], numbers


def _labels(conversation: Conversation, topic: int | None) -> ConversationLabels:
    return ConversationLabels(
        language=main_language(conversation), languages=languages_of(conversation), topic=topic
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


def _question_vectors(questions: Mapping[str, int], embed: EmbedTexts) -> dict[int, Vectors]:
    """Vectors of questions by the positions they are given with; the last are embedded first."""
    places = sorted(questions.values(), reverse=True)[:MAX_QUESTIONS]
    texts = {place: text[:MAX_QUESTION_CHARACTERS] for text, place in questions.items()}
    return dict(zip(places, embed([texts[place] for place in places]), strict=False))


def _contradictions(
    ids: Sequence[str], exchanges: Sequence[Exchange], vectors: Mapping[int, Vectors]
) -> list[ContradictionView]:
    found = find_contradictions(exchanges, vectors)
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
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=ScanRequest)
    os.nice(NICENESS)
    decoder = msgspec.json.Decoder(StoredConversation)
    with Path(request.source).open("rb") as lines:
        stored = [decoder.decode(line) for line in lines]
    _tell(look_through(stored, request.redaction.redactor(), _ask_for_vectors))


def _ask_for_vectors(texts: list[str]) -> list[Vectors]:
    if not texts:
        return []
    _tell(TextsToEmbed(texts))
    given = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[bytes])
    return [np.frombuffer(vector, dtype="<f4") for vector in given]


def _tell(message: TextsToEmbed | Looked) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
