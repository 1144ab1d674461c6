"""Responses that are kept, on both databases."""

from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import select, update

from server.api.openai.responses.schemas import ResponseObject
from server.db.models import StoredResponse, new_id, now
from server.db.session import Database
from server.errors import Invalid, NotFound
from server.responses import service
from server.responses.items import (
    InputText,
    Item,
    MessageItem,
    OutputText,
    ResultItem,
    item_id,
)
from server.tenants import service as tenants


async def kept(database: Database, tenant_id: str, text: str, *, after: str | None = None) -> str:
    """Keep a response to a text; returns its id."""
    name = new_id()
    items: list[Item] = [
        MessageItem(
            id=item_id(MessageItem, name, 0), role="user", content=[InputText(text=f"{text}\x00?")]
        ),
        ResultItem(id=item_id(ResultItem, name, 1), call_id="call_1", output="Rain"),
    ]
    said = MessageItem(
        id=item_id(MessageItem, name, 2), role="assistant", content=[OutputText(text=f"{text}!")]
    )
    answer = ResponseObject(
        id=f"resp_{name}",
        created_at=0,
        model="acme",
        status="completed",
        output=[said],
        text={},
        previous_response_id=after,
    )
    async with database.transaction() as session:
        before = await service.history(session, tenant_id, after)
        await service.keep(
            session,
            tenant_id,
            answer.id,
            answer=msgspec.to_builtins(answer),
            items=items,
            before=before.ids,
        )
    return answer.id


async def test_a_chain_is_read_oldest_first(database: Database, make_tenant) -> None:
    tenant, other = await make_tenant(), await make_tenant("other")
    first = await kept(database, tenant.id, "One")
    second = await kept(database, tenant.id, "Two", after=first)
    third = await kept(database, tenant.id, "Three", after=second)
    await kept(database, tenant.id, "Beside", after=first)
    async with database.reading() as session:
        before = await service.history(session, tenant.id, third)
        items = await service.input_items(session, tenant.id, third)
        assert before.ids == [name.removeprefix("resp_") for name in (first, second, third)]
        assert before.items == [*items, before.items[-1]]
        texts = [
            part.text
            for item in before.items
            if isinstance(item, MessageItem)
            for part in item.content
            if not hasattr(part, "refusal")
        ]
        assert texts == ["One\ufffd?", "One!", "Two\ufffd?", "Two!", "Three\ufffd?", "Three!"]
        wanted = [items[1].id, before.items[-1].id]
        found = await service.find_items(session, tenant.id, [*wanted, "msg_1"])
        assert set(found) == set(wanted)
        assert await service.find_items(session, other.id, wanted) == {}
        for name in (third, f"resp_{new_id()}", third.removeprefix("resp_")):
            with pytest.raises(Invalid) as refused:
                await service.history(session, other.id, name)
            assert refused.value.code == "previous_response_not_found"
            with pytest.raises(NotFound):
                await service.input_items(session, other.id, name)


async def test_what_is_gone_on_from_is_kept_as_long_as_the_newest(
    database: Database, make_tenant
) -> None:
    tenant = await make_tenant()
    first = await kept(database, tenant.id, "One")
    lone = await kept(database, tenant.id, "Lone")
    async with database.transaction() as session:
        soon = now() + timedelta(seconds=60)
        await session.execute(update(StoredResponse).values(expires_at=soon))
    second = await kept(database, tenant.id, "Two", after=first)
    async with database.transaction() as session:
        past = update(StoredResponse).where(StoredResponse.id == lone.removeprefix("resp_"))
        await session.execute(past.values(expires_at=now()))
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await service.get(session, tenant.id, lone)
        await service.delete_expired(session)
        left = {f"resp_{name}" for name in await session.scalars(select(StoredResponse.id))}
        times = set(await session.scalars(select(StoredResponse.expires_at)))
    assert left == {first, second}
    assert min(times) > now() + timedelta(days=29)


async def test_a_chain_with_a_gap_says_which_response_is_gone(
    database: Database, make_tenant
) -> None:
    tenant = await make_tenant()
    first = await kept(database, tenant.id, "One")
    second = await kept(database, tenant.id, "Two", after=first)
    third = await kept(database, tenant.id, "Three", after=second)
    async with database.transaction() as session:
        await service.delete_response(session, tenant.id, first)
    async with database.reading() as session:
        with pytest.raises(Invalid, match=first):
            await service.history(session, tenant.id, third)
        assert len(await service.input_items(session, tenant.id, third)) == 5


async def test_nothing_is_kept_of_a_tenant_that_is_gone(database: Database, make_tenant) -> None:
    tenant = await make_tenant()
    await kept(database, tenant.id, "One")
    async with database.transaction() as session:
        await tenants.delete(session, tenant.slug)
    await kept(database, tenant.id, "Two")
    async with database.reading() as session:
        assert list(await session.scalars(select(StoredResponse.id))) == []
