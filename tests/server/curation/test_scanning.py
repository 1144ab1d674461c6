"""A look through conversations in its process, and the vectors that it asks for."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.redactor import RedactionRules, Redactor
from server.curation import scanning
from server.curation.encoding import ScanEncoder
from server.curation.scanning import ScanRequest, StoredConversation, look_through, scan
from server.curation.schemas import ConversationLabels
from server.embeddings.encoders import FakeEncoder
from server.embeddings.schemas import DIMENSIONS, Embedded
from server.errors import Invalid, Unavailable

ASKED = "How long may I keep the blue kettle before I send it back?"
IN_OTHER_WORDS = "before I send back the blue kettle, how long may I keep it?"


def talk(name: str, question: str, reply: str) -> StoredConversation:
    turns = (Turn(Role.CUSTOMER, question), Turn(Role.AGENT, reply))
    return StoredConversation(name, Conversation(name, turns))


STORED = [talk("old", ASKED, "You have 14 days."), talk("new", IN_OTHER_WORDS, "You have 30 days.")]


def request_for(folder: Path, stored: list[StoredConversation] = STORED) -> ScanRequest:
    source = folder / "conversations.jsonl"
    source.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in stored))
    rules = RedactionRules(custom_patterns={}, default_region="DE", allowlist=[], terms=[])
    return ScanRequest(source=str(source), redaction=rules)


async def fake_vectors(texts: list[str]) -> list[bytes]:
    return [vector.tobytes() for vector in FakeEncoder().encode(texts)]


async def test_a_question_in_other_words_is_found_by_meaning(tmp_path: Path) -> None:
    found = (await scan(request_for(tmp_path), fake_vectors)).scan
    (one,) = found.contradictions
    assert [statement.facts for statement in one.statements] == [["30 day"], ["14 day"]]
    assert (found.questions, found.questions_by_meaning) == (2, 2)


async def test_without_an_encoder_the_wording_decides_and_the_scan_says_so(
    tmp_path: Path,
) -> None:
    async def nothing(texts: list[str]) -> list[bytes]:
        return []

    found = (await scan(request_for(tmp_path), nothing)).scan
    assert found.contradictions == []
    assert (found.questions, found.questions_by_meaning) == (2, 0)
    same = [STORED[0], talk("new", ASKED, "You have 30 days.")]
    (one,) = (await scan(request_for(tmp_path, same), nothing)).scan.contradictions
    assert one.question == ASKED


async def test_a_process_that_ends_is_told_and_one_that_is_cancelled_is_gone(
    tmp_path: Path,
) -> None:
    request = request_for(tmp_path)
    gone = msgspec.structs.replace(request, source=str(tmp_path / "missing"))
    with pytest.raises(Invalid, match="ended with status 1"):
        await scan(gone, fake_vectors)
    asked = asyncio.Event()

    async def forever(texts: list[str]) -> list[bytes]:
        asked.set()
        await asyncio.Event().wait()
        return []

    running = asyncio.create_task(scan(request, forever))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_the_newest_questions_are_embedded_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_QUESTIONS", 2)
    wanted: list[list[str]] = []

    def embed(texts: list[str]) -> list[Any]:
        wanted.append(texts)
        return [np.ones(DIMENSIONS, np.float32)]

    thanks = talk("t", "Thank you, that is all I needed to know", "You are welcome.")
    stored = [talk("older", "Which day does the red parcel come?", "On 3 May."), *STORED, STORED[0]]
    found = look_through([*stored, thanks], Redactor({}, "DE"), embed).scan
    assert wanted == [[ASKED, IN_OTHER_WORDS]]
    assert (found.questions, found.questions_by_meaning) == (3, 1)


class Encoder:
    """``texts`` a call; then it is gone, or takes for ever."""

    def __init__(self, calls: int, *, slow: bool = False) -> None:
        self.calls, self.slow, self.asked = calls, slow, 0

    async def embed(self, texts: list[str], *, dimensions: int, **_: Any) -> Embedded:
        self.asked += 1
        if self.asked > self.calls:
            if self.slow:
                await asyncio.Event().wait()
            raise Unavailable("The embedding model is starting.")
        return Embedded(vectors=[bytes(dimensions * 4)] * len(texts), tokens=1)


@pytest.mark.parametrize("slow", [False, True])
async def test_what_was_embedded_before_the_encoder_went_or_the_time_was_over_counts(
    *, slow: bool
) -> None:
    encoder = Encoder(calls=2, slow=slow)
    embed = ScanEncoder(encoder, "a" * 32, max_seconds=0.5).embed  # type: ignore[arg-type]
    assert len(await embed(["a text"] * 1_000)) == 256
    assert await embed(["another"]) == []


async def test_each_message_has_a_language_and_the_conversation_the_customers(
    tmp_path: Path,
) -> None:
    turns = (
        Turn(Role.CUSTOMER, "Guten Tag, wo ist denn meine Bestellung geblieben?"),
        Turn(Role.AGENT, "I am sorry, I do not speak that language. Could you write in English?"),
        Turn(Role.CUSTOMER, "Ja"),
    )
    stored = [StoredConversation("a", Conversation("a", turns))]
    found = await scan(request_for(tmp_path, stored), fake_vectors)
    assert found.labels == {"a": ConversationLabels(language="de", languages=["de", "en", "und"])}
    assert found.scan.languages == {"de": 1}


def chats() -> list[StoredConversation]:
    asked = ("Where is the refund for my kettle", "Which day does the delivery van come")
    return [talk(f"{n:02}", f"{asked[n % 2]}, order {n}?", "I will look.") for n in range(40)]


async def test_topics_are_found_before_anything_was_trained(tmp_path: Path) -> None:
    found = await scan(request_for(tmp_path, chats()), fake_vectors)
    topics = found.scan.topics
    assert sum(topic.conversations for topic in topics) == 40
    refund = next(at for at, topic in enumerate(topics, 1) if "refund" in topic.words)
    about = [name for name, each in found.labels.items() if each.topic == refund]
    assert len(about) == topics[refund - 1].conversations
    assert all(int(name) % 2 == 0 for name in about)


async def test_without_vectors_or_with_few_conversations_there_are_no_topics() -> None:
    found = look_through(chats(), Redactor({}, "DE"), lambda texts: [])
    assert (found.scan.topics, {each.topic for each in found.labels.values()}) == ([], {None})
    few = look_through(
        chats()[:29],
        Redactor({}, "DE"),
        lambda texts: [np.ones(DIMENSIONS, np.float32)] * len(texts),
    )
    assert few.scan.topics == []
