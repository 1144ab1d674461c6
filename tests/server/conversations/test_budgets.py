"""Budgets of visitors and addresses, which all servers share."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, update

from server.conversations import budgets
from server.conversations.budgets import Budget, pseudonym
from server.db.models import WidgetUse, now
from server.db.session import Database
from server.errors import TooMany
from server.schemas import WidgetBudgets
from tests.server.conversations.conftest import Shop

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
THREE_A_MINUTE = Budget("messages", "someone", 3, 60)


async def spent(database: Database, tenant_id: str, *asked: Budget, at: float = NOON) -> float:
    """Seconds to wait; 0 where it was allowed."""
    try:
        async with database.transaction() as session:
            await budgets.spend(session, tenant_id, asked, clock=lambda: at)
    except TooMany as exc:
        return exc.retry_after_seconds or -1
    return 0


async def test_minutes_slide(database: Database, make_tenant) -> None:
    tenant = await make_tenant()
    for second in (50, 51, 52):
        assert await spent(database, tenant.id, THREE_A_MINUTE, at=NOON + second) == 0
    assert await spent(database, tenant.id, THREE_A_MINUTE, at=NOON + 53) == pytest.approx(27)
    assert await spent(database, tenant.id, THREE_A_MINUTE, at=NOON + 70) == pytest.approx(10)
    assert await spent(database, tenant.id, THREE_A_MINUTE, at=NOON + 80) == 0


async def test_days_are_utc_days(database: Database, make_tenant) -> None:
    tenant = await make_tenant()
    two = Budget("messages", "someone", 2, 86_400)
    evening = NOON + 11 * 3600
    assert [await spent(database, tenant.id, two, at=evening) for _ in range(3)] == [0, 0, 3600]
    assert await spent(database, tenant.id, two, at=evening + 3600) == 0


async def test_what_is_refused_counts_under_none_of_the_budgets(
    database: Database, make_tenant
) -> None:
    tenant = await make_tenant()
    one = Budget("sessions", "someone", 1, 60)
    many = Budget("messages", "someone", 2, 60)
    assert await spent(database, tenant.id, many, one) == 0
    for _ in range(5):
        assert await spent(database, tenant.id, many, one) > 0
    assert await spent(database, tenant.id, many) == 0


async def test_the_most_of_a_day_is_kept_when_its_minutes_are_gone(shop: Shop) -> None:
    site = await shop.site()
    for second, who in ((0, "one"), (1, "one"), (30, "one"), (60, "two"), (90, "one")):
        asked = budgets.budget(WidgetBudgets(), "visitor_messages_per_minute", who)
        assert await spent(shop.database, site.tenant.id, asked, at=NOON + second) == 0
    async with shop.database.transaction() as session:
        past = WidgetUse.expires_at < datetime.fromtimestamp(NOON + 3600, UTC)
        await session.execute(delete(WidgetUse).where(past))
        use = await budgets.today(session, site, clock=lambda: NOON + 11 * 3600)
        # half of the three a minute before still count in the middle of the next
        assert use.visitor_messages_per_minute == 3
        tomorrow = await budgets.today(session, site, clock=lambda: NOON + 12 * 3600)
        assert tomorrow.visitor_messages_per_minute == 0


async def test_others_kinds_and_tenants_have_budgets_of_their_own(
    database: Database, make_tenant
) -> None:
    tenant, other = await make_tenant(), await make_tenant("other")
    one = Budget("messages", "someone", 1, 60)
    assert await spent(database, tenant.id, one) == 0
    assert await spent(database, tenant.id, one._replace(who="another")) == 0
    assert await spent(database, tenant.id, one._replace(kind="sessions")) == 0
    assert await spent(database, other.id, one) == 0
    assert await spent(database, tenant.id, one) > 0


async def test_servers_share_the_counts_to_the_last_one(database: Database, make_tenant) -> None:
    tenant = await make_tenant()
    elsewhere = Database(database.url.render_as_string(hide_password=False))
    waits = await asyncio.gather(
        *(spent(through, tenant.id, THREE_A_MINUTE) for through in [database, elsewhere] * 5)
    )
    await elsewhere.dispose()
    assert waits.count(0) == 3


async def test_a_sweep_leaves_what_still_counts(database: Database, make_tenant) -> None:
    tenant = await make_tenant()
    at = now().timestamp()
    await spent(database, tenant.id, THREE_A_MINUTE, at=at)
    async with database.transaction() as session:
        await budgets.delete_expired(session)
        assert (
            await session.scalar(select(func.count(WidgetUse.id))) == 2
        )  # and the most of the day
        past = {"expires_at": now() - timedelta(seconds=1)}
        await session.execute(update(WidgetUse).values(past))
        await budgets.delete_expired(session)
        assert await session.scalar(select(func.count(WidgetUse.id))) == 0


def test_an_address_cannot_be_read_back_and_an_ipv6_network_is_one() -> None:
    key = b"k" * 32
    assert "203.0.113.7" not in pseudonym(key, "203.0.113.7")
    assert pseudonym(key, "203.0.113.7") != pseudonym(b"other" * 8, "203.0.113.7")
    assert pseudonym(key, "203.0.113.7") != pseudonym(key, "203.0.113.8")
    assert pseudonym(key, "2001:db8::1") == pseudonym(key, "2001:db8::ffff:1%eth0")
    assert pseudonym(key, "2001:db8::1") != pseudonym(key, "2001:db8:0:1::1")
    assert pseudonym(key, "::ffff:203.0.113.7") == pseudonym(key, "203.0.113.7")
    assert pseudonym(key, None) == pseudonym(key, "unix socket")


async def test_a_visitors_messages_are_bounded_and_what_is_refused_is_not_stored(
    shop: Shop,
) -> None:
    await shop.change(budgets=WidgetBudgets(visitor_messages_per_minute=2))
    visitor = await shop.enter()
    for text in ("One", "Two"):
        await shop.ask(visitor, text)
    with pytest.raises(TooMany, match="2 times a minute"):
        await shop.ask(visitor, "Three")
    assert await shop.seen(visitor) == ["One", "", "Two", ""]
    await shop.ask(await shop.enter(), "Another visitor")


async def test_an_addresss_messages_and_sessions_are_bounded_whoever_it_says_it_is(
    shop: Shop,
) -> None:
    await shop.change(
        budgets=WidgetBudgets(address_messages_per_minute=2, address_sessions_per_minute=4)
    )
    visitors = [await shop.enter() for _ in range(4)]
    with pytest.raises(TooMany):
        await shop.enter()
    await shop.enter(client="203.0.113.8")
    for visitor in visitors[:2]:
        await shop.ask(visitor, "Hello")
    with pytest.raises(TooMany):
        await shop.ask(visitors[2], "Hello")
    await shop.ask(visitors[2], "Hello", client="203.0.113.8")


async def test_the_whole_widget_has_a_budget_of_tokens_a_day(shop: Shop) -> None:
    await shop.change(budgets=WidgetBudgets(tokens_per_day=500))
    principal = (await shop.site()).principal
    assert principal.limits is not None
    assert principal.limits.tokens_per_day == 500
    assert principal.scopes == frozenset()
    assert not principal.is_operator
