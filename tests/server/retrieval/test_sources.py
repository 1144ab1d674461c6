"""The articles of an answer are told where the tenant shows them, and a person looks where nothing supports one."""

from typing import Any

from server.conversations import handoffs, inbox
from server.conversations.inbox import Listed
from server.db.models import Tenant
from server.knowledge.service import delete_article
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch
from tests.server.knowledge.conftest import Encoder, Knowledge
from tests.server.retrieval.indexed import publish
from tests.server.serving import Serving, database_url, server, until
from tests.server.web.widget.visiting import Frame, frame_of

__all__ = ["database_url", "server"]
BREAD = b"# Bread\n\n## Rye\n\nDo you bake rye bread? Rye bread is baked on Fridays."
RYE = "do you bake rye bread"
ADDRESS = "https://help.example/bread"
ANNOTATION = "response.output_text.annotation.added"
SOURCE = {"title": "Bread > Rye", "url": ADDRESS}


async def test_sources_and_a_person_through_every_door(server: Serving) -> None:
    """One server for all: starting it takes longer than what is asked of it."""
    frame = await widget_with_an_article(server)
    await sources_are_hidden_at_first(server, frame)
    await a_person_is_called_where_the_tenant_says_so(server, frame)
    await change(server, show_sources=True)
    await programs_get_articles_as_citations(server)
    await visitors_see_articles_never_what_others_wrote(server, frame)


async def widget_with_an_article(server: Serving) -> Frame:
    """Of a tenant with an index, and an article that has an address."""
    frame = await frame_of(server)
    await publish(server)
    blobs = BlobStore.open(server.settings.blobs)
    knowledge = Knowledge(server.database, server.settings, blobs, Encoder())
    await knowledge.run(await knowledge.queue(await tenant_of(server), BREAD, name=ADDRESS))
    await frame.enter()
    return frame


async def tenant_of(server: Serving) -> Tenant:
    async with server.database.reading() as session:
        return await tenants.get(session, "acme")


async def change(server: Serving, **fields: Any) -> None:
    async with server.database.transaction() as session:
        await tenants.update(session, "acme", TenantPatch(**fields))


async def say(frame: Frame, text: str, **options: Any) -> list[tuple[str, Any]]:
    """The events of an answer, when it is stored, too."""
    said = await frame.say(text, **options)

    async def is_stored() -> bool:
        return bool((await frame.conversation())["messages"][-1]["state"] == "complete")

    await until(is_stored)
    return said


async def waiting(server: Serving) -> list[Listed]:
    tenant_id = (await tenant_of(server)).id
    async with server.database.reading() as session:
        found = await inbox.list_conversations(session, tenant_id, queue="needs_person")
        assert await inbox.count_waiting(session, tenant_id) == len(found)
        assert (await inbox.count(session, tenant_id)).needs_person == len(found)
        return found


async def sources_are_hidden_at_first(server: Serving, frame: Frame) -> None:
    message = (await say(frame, RYE))[-1][1]["message"]
    assert message["state"] == "complete"
    assert "sources" not in message
    assert "sources" not in (await frame.conversation())["messages"][-1]
    answer = await server.openai(await server.key()).chat.completions.create(
        model="acme", messages=[{"role": "user", "content": RYE}]
    )
    assert answer.choices[0].message.annotations is None


async def visitors_see_articles_never_what_others_wrote(server: Serving, frame: Frame) -> None:
    said = await say(frame, RYE, client_id="one-message")
    assert said[-1][1]["message"]["sources"] == [SOURCE]
    assert "On Fridays." not in str([data for name, data in said if name != "delta"])
    assert (await frame.conversation())["messages"][-1]["sources"] == [SOURCE]
    again = await say(frame, RYE, client_id="one-message")  # the same message, sent twice
    assert again[-1][1]["message"]["sources"] == [SOURCE]
    tenant = await tenant_of(server)
    async with server.database.transaction() as session:
        (article_id,) = {
            each.article
            for read in (
                await inbox.read(session, tenant.id, (await frame.conversation())["id"])
            ).messages
            if read.given
            for each in read.given.references
            if each.article
        }
        await delete_article(session, tenant.id, article_id)
    assert "sources" not in (await frame.conversation())["messages"][-1]
    async with server.database.reading() as session:
        opened = await inbox.read(session, tenant.id, (await frame.conversation())["id"])
    given = opened.messages[-1].given
    assert given is not None
    assert given.supported is True
    assert [(each.kind, each.is_deleted) for each in given.references] == [
        ("exchange", False),
        ("exchange", False),
        ("article", True),
    ]


async def programs_get_articles_as_citations(server: Serving) -> None:
    client = server.openai(await server.key())
    asked: list[Any] = [{"role": "user", "content": RYE}]
    whole = (await client.chat.completions.create(model="acme", messages=asked)).choices[0].message
    assert whole.content
    [annotation] = whole.annotations or []
    cited = {**SOURCE, "start_index": 0, "end_index": len(whole.content)}
    assert annotation.type == "url_citation"
    assert annotation.url_citation.model_dump() == cited
    async with client.chat.completions.stream(model="acme", messages=asked) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message
    assert streamed.content == whole.content
    assert streamed.annotations == whole.annotations
    response = await client.responses.create(model="acme", input=RYE)
    of_response = {"type": "url_citation", **cited, "end_index": len(response.output_text)}
    async with client.responses.stream(model="acme", input=RYE) as events:
        added: list[Any] = [event async for event in events if event.type == ANNOTATION]
        done = await events.get_final_response()
    made: Any
    for made in (response, done):
        [part] = made.output[0].content
        assert [each.model_dump() for each in part.annotations] == [of_response]
    assert [dict(event.annotation) for event in added] == [of_response]


async def a_person_is_called_where_the_tenant_says_so(server: Serving, frame: Frame) -> None:
    await say(frame, "zebra quantum volcano")
    assert await waiting(server) == []  # answered all the same, as at first
    await change(server, when_unsupported="needs_person")
    await say(frame, RYE)
    assert await waiting(server) == []
    name, done = (await say(frame, "zebra quantum volcano"))[-1]
    assert (name, done["handoff"], "passed_on" in done) == (
        "done",
        True,
        False,
    )  # no address is known
    [listed] = await waiting(server)
    assert (listed.unsupported, listed.state) == (True, "open")
    name, done = (await say(frame, RYE))[-1]
    assert (name, done.keys()) == ("done", {"message", "reason"})  # it goes on
    tenant_id = (await tenant_of(server)).id
    async with server.database.transaction() as session:
        await handoffs.look_at(session, tenant_id, listed.id, actor="person:1")
    assert await waiting(server) == []
    await a_conversation_with_an_address_is_passed_on(server, Frame(server, "acme", frame.pub))


async def a_conversation_with_an_address_is_passed_on(server: Serving, frame: Frame) -> None:
    await frame.enter(said={"email": "kim@mail.example"})
    done = (await say(frame, "zebra quantum volcano"))[-1][1]
    assert done["message"]["text"]  # answered, too
    assert "handoff" not in done
    assert (done["passed_on"]["email"], done["passed_on"]["state"]) == ("kim@mail.example", "open")
    [listed] = await waiting(server)
    assert (listed.unsupported, listed.state) == (False, "handed_over")
    status, problem = await frame.call("messages", {"text": RYE, "client_id": "in-silence"})
    assert (status, problem["code"]) == (409, "conversation_handed_over")
    assert (await frame.conversation())["handoff"] == done["passed_on"]
    async with server.database.transaction() as session:
        await handoffs.give_back(session, (await tenant_of(server)).id, listed.id, actor="person:1")
