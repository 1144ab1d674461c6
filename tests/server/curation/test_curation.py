"""Curation over HTTP, in the command line's service, and in the dataset version that it makes."""

import asyncio
from typing import Any

import msgspec
import pytest
from litestar import Litestar

from connectors.conversation import Conversation, Role, Turn
from server.app import create_app
from server.curation import service
from server.datasets.creation import create_version
from server.db.models import ConversationRow
from server.db.scope import of_tenant
from server.embeddings.service import EmbeddingService, build_embeddings
from server.settings import Settings
from server.transcripts.reading import digest_of

CURATION = "/admin/tenants/acme/curation"


@pytest.fixture
def embeddings(settings: Settings) -> EmbeddingService:
    return build_embeddings(Settings(home=settings.home, engine="fake"))


@pytest.fixture
def app(settings: Any, database: Any, blobs: Any, embeddings: Any) -> Litestar:
    return create_app(settings, database=database, blobs=blobs, embeddings=embeddings)


@pytest.fixture
def store(database: Any, make_upload: Any) -> Any:
    """Store conversations of a tenant."""

    async def put(tenant: Any, made: list[Conversation]) -> None:
        upload = await make_upload(tenant.slug)
        async with database.transaction() as session:
            for one in made:
                session.add(
                    ConversationRow(
                        tenant_id=tenant.id,
                        import_id=upload.id,
                        external_id=one.id,
                        digest=digest_of(one),
                        body=msgspec.to_builtins(one),
                    )
                )

    return put


@pytest.fixture
async def stored(make_tenant: Any, store: Any) -> Any:
    """Twenty answered conversations, one that greets a doubtful name, one without a reply."""
    tenant = await make_tenant()
    words = [
        "apple",
        "river",
        "stone",
        "cloud",
        "tiger",
        "ocean",
        "piano",
        "candle",
        "forest",
        "mirror",
    ]
    made = [
        Conversation(
            f"c{at}",
            (
                Turn(
                    Role.CUSTOMER,
                    f"What about the {words[at % 10]} with {words[at // 2]} number {at}?",
                ),
                Turn(
                    Role.AGENT,
                    f"The {words[at % 10]} is {words[(at * 7) % 10]}, as {words[at // 3]}.",
                ),
            ),
        )
        for at in range(20)
    ]
    doubtful = (Turn(Role.CUSTOMER, "Hi Kasimir, is the parcel here?"), Turn(Role.AGENT, "Yes."))
    made += [Conversation("d", doubtful), Conversation("o", (Turn(Role.CUSTOMER, "Nobody?"),))]
    await store(tenant, made)
    return tenant


async def id_of(database: Any, tenant: Any, external_id: str) -> str:
    async with database.reading() as session:
        query = of_tenant(tenant.id).select(ConversationRow.id)
        return str(await session.scalar(query.where(ConversationRow.external_id == external_id)))


def texts_of(settings: Any, sha256: str) -> str:
    folder = settings.datasets / sha256
    return "".join(path.read_text() for path in sorted(folder.glob("*.jsonl")))


async def test_nothing_is_known_before_the_first_scan(
    client: Any, make_key: Any, stored: Any
) -> None:
    key = await make_key("acme", "train")
    answer = (await client.get(CURATION, headers=key)).json()
    assert (answer["conversations"], answer["scanned_at"], answer["scan"]) == (22, None, None)
    assert answer["rules"]["secret"] == "leave_out"
    assert answer["rules"]["no_reply"] == "keep"


async def test_a_doubt_is_asked_once_and_the_decision_holds_for_the_next_version(
    client: Any, make_key: Any, stored: Any, database: Any, settings: Any
) -> None:
    key = await make_key("acme", "train")
    before = await create_version(database, stored.id, settings=settings)
    text = await asyncio.to_thread(texts_of, settings, before.sha256)
    assert "Kasimir" not in text
    assert "Hi [NAME_1], is the parcel here?" in text
    found = (await client.post(f"{CURATION}/scans", headers=key)).json()
    assert [one["text"] for one in found["scan"]["doubts"]] == ["Kasimir"]
    decision = {"rule": "greeting", "text": "Kasimir", "decision": "reject"}
    left = await client.post(f"{CURATION}/decisions", headers=key, json=decision)
    assert left.status_code == 200
    assert left.json()["scan"]["doubts"] == []
    again = (await client.post(f"{CURATION}/scans", headers=key)).json()
    assert again["scan"]["doubts"] == []
    (kept,) = (await client.get(f"{CURATION}/decisions", headers=key)).json()
    assert (kept["text"], kept["decision"]) == ("kasimir", "reject")
    after = await create_version(database, stored.id, settings=settings)
    assert after.sha256 != before.sha256
    assert "Hi Kasimir, is" in await asyncio.to_thread(texts_of, settings, after.sha256)
    # the decision can be taken back
    await client.post(
        f"{CURATION}/decisions", headers=key, json={**decision, "decision": "approve"}
    )
    assert (await create_version(database, stored.id, settings=settings)).sha256 == before.sha256


async def test_rules_decide_what_is_learnt_from_and_the_version_counts_it(
    client: Any, make_key: Any, stored: Any, database: Any, settings: Any
) -> None:
    key = await make_key("acme", "train")
    before = await create_version(database, stored.id, settings=settings)
    assert before.manifest["dropped"]["unanswered"] == 1
    assert "no_reply" not in before.manifest["dropped"]
    changed = await client.put(f"{CURATION}/rules", headers=key, json={"no_reply": "leave_out"})
    assert changed.json()["no_reply"] == "leave_out"
    after = await create_version(database, stored.id, settings=settings)
    assert after.manifest["dropped"]["no_reply"] == 1
    assert after.manifest["dropped"]["unanswered"] == 0
    name = await id_of(database, stored, "c3")
    chosen = await client.put(f"{CURATION}/conversations/{name}", headers=key, json={"keep": False})
    assert chosen.json() == {"keep": False}
    last = await create_version(database, stored.id, settings=settings)
    assert last.manifest["dropped"]["left_out_by_hand"] == 1


async def test_mistakes_are_told(client: Any, make_key: Any, stored: Any) -> None:
    key = await make_key("acme", "train")
    edit = {"rule": "greeting", "text": "Kasimir", "decision": "edit", "masked": "Anna"}
    answer = await client.post(f"{CURATION}/decisions", headers=key, json=edit)
    assert (answer.status_code, answer.json()["code"]) == (400, "not_a_part")
    answer = await client.put(f"{CURATION}/conversations/nope", headers=key, json={"keep": True})
    assert (answer.status_code, answer.json()["code"]) == (404, "conversation_not_found")
    answer = await client.put(f"{CURATION}/rules", headers=key, json={"no_reply": "perhaps"})
    assert answer.status_code == 400


async def test_a_scan_of_no_conversations_finds_nothing(
    database: Any, make_tenant: Any, settings: Any, embeddings: Any
) -> None:
    await make_tenant()
    found = await service.scan_now(database, "acme", settings=settings, embeddings=embeddings)
    assert (found.conversations, found.doubts, found.flags) == (0, [], {})


async def test_replies_to_one_question_in_other_words_contradict_one_another(
    client: Any, make_key: Any, make_tenant: Any, store: Any
) -> None:
    asked = "How long may I keep the blue kettle before I send it back?"
    turned = "before I send back the blue kettle, how long may I keep it?"
    talks = [
        Conversation(reply, (Turn(Role.CUSTOMER, question), Turn(Role.AGENT, reply)))
        for question, reply in ((asked, "You have 14 days."), (turned, "You have 30 days."))
    ]
    await store(await make_tenant(), talks)
    key = await make_key("acme", "train")
    scan = (await client.post(f"{CURATION}/scans", headers=key)).json()["scan"]
    assert (scan["questions"], scan["questions_by_meaning"]) == (2, 2)
    (found,) = scan["contradictions"]
    assert [one["reply"] for one in found["statements"]] == [
        "You have 30 days.",
        "You have 14 days.",
    ]
