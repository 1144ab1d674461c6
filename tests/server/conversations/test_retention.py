"""What is kept, and for how long."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from server.conversations import retention
from server.db.models import (
    Handoff,
    LiveConversation,
    LiveMessage,
    Record,
    RefusedOrigin,
    UsedNonce,
    Visitor,
    Widget,
    WidgetUse,
    now,
)
from server.tenants import service as tenants
from tests.server.conversations.conftest import Shop


async def count(shop: Shop, model: type[Record]) -> int:
    async with shop.database.reading() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


async def sweep(shop: Shop) -> None:
    async with shop.database.transaction() as session:
        await retention.delete_expired(session)


async def age(shop: Shop, days: float) -> None:
    then = now() - timedelta(days=days)
    async with shop.database.transaction() as session:
        await session.execute(update(LiveConversation).values(last_at=then))
        await session.execute(update(Visitor).values(updated_at=then))


async def test_conversations_go_after_the_widgets_days_with_all_that_is_in_them(
    shop: Shop,
) -> None:
    await shop.change(keep_days=30)
    visitor = await shop.enter()
    await shop.talk(visitor, "Hello", "Hi")
    await shop.hand_off(visitor)
    await age(shop, 29)
    await sweep(shop)
    assert [await count(shop, each) for each in (LiveConversation, LiveMessage, Visitor)] == [
        1,
        2,
        1,
    ]
    await age(shop, 31)
    await sweep(shop)
    for model in (LiveConversation, LiveMessage, Handoff, Visitor):
        assert await count(shop, model) == 0, model
    assert (await shop.enter(visitor=visitor.visitor)).started_anew


async def test_a_visitor_stays_as_long_as_a_conversation(shop: Shop) -> None:
    visitor = await shop.enter()
    await shop.talk(visitor, "Hello", "Hi")
    async with shop.database.transaction() as session:
        await session.execute(update(Visitor).values(updated_at=now() - timedelta(days=1000)))
    await sweep(shop)
    assert await shop.seen(visitor) == ["Hello", "Hi"]


async def test_used_nonces_go_when_they_would_have_ended(shop: Shop) -> None:
    await shop.enter()
    await sweep(shop)
    assert await count(shop, UsedNonce) == 1
    async with shop.database.transaction() as session:
        await session.execute(update(UsedNonce).values(expires_at=now()))
    await sweep(shop)
    assert await count(shop, UsedNonce) == 0


async def test_refused_origins_are_counted_and_shown_for_a_day(shop: Shop) -> None:
    site = await shop.site()
    for origin in ("https://a.example", "https://b.example", "https://a.example"):
        async with shop.database.transaction() as session:
            await retention.note_refused(session, site, origin)
    async with shop.database.reading() as session:
        seen = await retention.refused(session, site)
    assert [(each.origin, each.count) for each in seen] == [
        ("https://a.example", 2),
        ("https://b.example", 1),
    ]
    async with shop.database.transaction() as session:
        long_ago = now() - timedelta(days=2)
        await session.execute(
            update(RefusedOrigin)
            .where(RefusedOrigin.origin == "https://a.example")
            .values(updated_at=long_ago, day=long_ago.date())
        )
    async with shop.database.reading() as session:
        assert [each.origin for each in await retention.refused(session, site)] == [
            "https://b.example"
        ]
    async with shop.database.transaction() as session:
        await session.execute(update(RefusedOrigin).values(day=now().date() - timedelta(days=8)))
    await sweep(shop)
    assert await count(shop, RefusedOrigin) == 0


async def test_an_origin_that_was_allowed_since_is_not_shown(shop: Shop) -> None:
    site = await shop.site()
    async with shop.database.transaction() as session:
        await retention.note_refused(session, site, "https://a.example")
    site.widget.origins = ["https://a.example"]
    async with shop.database.reading() as session:
        assert await retention.refused(session, site) == []


async def test_nobody_fills_the_table_of_refused_origins(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_REFUSED", 5)
    site = await shop.site()
    for number in range(20):
        async with shop.database.transaction() as session:
            await retention.note_refused(session, site, f"https://{number}.example")
    assert await count(shop, RefusedOrigin) == 5
    async with shop.database.transaction() as session:
        await retention.note_refused(session, site, "https://0.example")
    async with shop.database.reading() as session:
        first = await session.scalar(
            select(RefusedOrigin.count).where(RefusedOrigin.origin == "https://0.example")
        )
    assert first == 2


async def test_a_deleted_tenant_leaves_nothing_and_its_neighbour_everything(
    shop: Shop, open_shop
) -> None:
    other: Shop = await open_shop("other")
    for each in (shop, other):
        visitor = await each.enter()
        await each.talk(visitor, "Hello", "Hi")
        await each.hand_off(visitor)
        async with each.database.transaction() as session:
            await retention.note_refused(session, await each.site(), "https://a.example")
    models = (
        Widget,
        Visitor,
        LiveConversation,
        LiveMessage,
        Handoff,
        RefusedOrigin,
        UsedNonce,
        WidgetUse,
    )
    before = [await count(shop, model) for model in models]
    async with shop.database.transaction() as session:
        await tenants.delete(session, "acme")
    after = [await count(shop, model) for model in models]
    assert after == [number // 2 for number in before]
    assert all(after)
