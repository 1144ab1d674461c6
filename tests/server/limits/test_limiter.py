"""Limits of tenants and keys, over two copies of the server that share a database of either kind."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, func, select
from sqlalchemy.exc import OperationalError

from server.auth.keys import Principal
from server.db.models import Tenant, UsageMinute
from server.db.session import Database
from server.errors import Forbidden, TooMany
from server.limits.limiter import RateLimiter
from server.settings import Limits
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Clock:
    """The middle of a minute of some afternoon, until somebody moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 4, 15, 20, 30, tzinfo=UTC)

    def __call__(self) -> float:
        return self.now.timestamp()

    def pass_by(self, seconds: float) -> None:
        self.now = datetime.fromtimestamp(self() + seconds, UTC)


class Copy:
    """One copy of the server."""

    def __init__(self, database: Database, clock: Clock, default: Limits | None = None) -> None:
        self.limiter = RateLimiter(database, default=default, clock=clock)
        self.ledger = UsageLedger(database, limiter=self.limiter)

    async def ask(self, principal: Principal, *, tokens: int = 10, used: int | None = None) -> None:
        """A request that reserves so many tokens, and uses them unless it is said otherwise."""
        async with self.limiter.admit(principal, tokens=tokens) as admission:
            total = tokens if used is None else used
            admission.reconcile(total)
            assert principal.tenant_id
            self.ledger.add(
                Usage(prompt_tokens=total, completion_tokens=0, total_tokens=total),
                tenant_id=principal.tenant_id,
                key_id=principal.key_id,
                model="m",
            )

    async def refused(self, principal: Principal, **how: Any) -> TooMany:
        with pytest.raises(TooMany) as refused:
            await self.ask(principal, **how)
        return refused.value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("server.usage.ledger.now", lambda: made.now)
    return made


@pytest_asyncio.fixture
async def tenant(database: Database) -> Tenant:
    async with database.transaction() as session:
        return await tenants.create(session, TenantRequest(slug="acme"))


@pytest.fixture
def caller(tenant: Tenant) -> Any:
    def make(
        key_id: str = "k1", *, mine: Limits | None = None, own: Limits | None = None
    ) -> Principal:
        return Principal(
            key_id=key_id,
            label="",
            scopes=frozenset({"chat"}),
            tenant_id=tenant.id,
            slug="acme",
            limits=own,
            tenant_limits=mine,
        )

    return make


@pytest.fixture
def copies(database: Database, clock: Clock) -> tuple[Copy, Copy]:
    return Copy(database, clock), Copy(database, clock)


async def test_copies_of_the_server_share_what_a_minute_allows(copies, caller, clock):
    one, two = copies
    principal = caller(mine=Limits(requests_per_minute=5))
    for _ in range(3):
        await one.ask(principal)
    await one.ledger.flush()
    for _ in range(2):
        await two.ask(principal)
    refused = await two.refused(principal)
    assert refused.message == (
        "Rate limit reached for tenant 'acme' on requests per min (RPM): Limit 5, Used 5, "
        "Requested 1. Please try again in 42s."
    )
    assert refused.code == "rate_limit_exceeded"
    assert refused.retry_after_seconds == pytest.approx(42)
    await two.ledger.flush()
    await one.ledger.flush()
    await one.refused(principal)
    clock.pass_by(42.1)
    await one.ask(principal)


async def test_copies_of_the_server_share_what_a_day_allows(copies, caller, clock):
    one, two = copies
    principal = caller(mine=Limits(tokens_per_day=100))
    await one.ask(principal, tokens=60)
    await two.ask(principal, tokens=1)
    await one.ledger.flush()
    await two.ledger.flush()
    refused = await two.refused(principal, tokens=40)
    assert "on tokens per day (TPD): Limit 100, Used 61, Requested 40" in refused.message
    assert refused.retry_after_seconds == 8 * 3600 + 39 * 60 + 30
    await two.ask(principal, tokens=39)
    clock.pass_by(9 * 3600)
    await two.ask(principal, tokens=100)


async def test_a_server_that_starts_again_knows_what_was_used(database, copies, caller, clock):
    limits = Limits(requests_per_minute=2, tokens_per_day=25)
    principal = caller(mine=limits)
    await copies[0].ask(principal)
    await copies[0].ask(principal)
    await copies[0].ledger.flush()
    restarted = Copy(database, clock)
    assert "(RPM)" in (await restarted.refused(principal)).message
    clock.pass_by(120)
    assert "(TPD)" in (await restarted.refused(principal)).message


async def test_counts_are_right_while_some_of_them_are_written(copies, caller):
    one, two = copies
    principal = caller(mine=Limits(requests_per_minute=100, requests_per_day=100))
    for copy in (one, two, one):
        await copy.ask(principal)
        await copy.ledger.flush()
        await copy.ask(principal)
    await two.ledger.flush()
    await one.ledger.flush()
    await two.ledger.flush()
    for copy in copies:
        assert dict(copy.limiter.headers(principal))["x-ratelimit-remaining-requests"] == "94"


async def test_minutes_that_no_limit_looks_at_are_removed(database, copies, caller, clock):
    one, _ = copies
    principal = caller(mine=Limits(requests_per_minute=100))
    await one.ask(principal)
    await one.ledger.flush()
    clock.pass_by(300)
    await one.ask(principal)
    await one.ledger.flush()
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(UsageMinute)) == 1


@ONE_DATABASE
async def test_a_key_is_held_to_its_own_limits_and_its_tenants(copies, caller):
    one, _ = copies
    mine = Limits(requests_per_minute=3)
    slow, free = caller("slow", mine=mine, own=Limits(requests_per_minute=1)), caller(mine=mine)
    await one.ask(slow)
    refused = await one.refused(slow)
    assert refused.message.startswith("Rate limit reached for this key on requests per min (RPM)")
    await one.ask(free)
    await one.ask(free)
    assert "tenant 'acme'" in (await one.refused(free)).message


@ONE_DATABASE
async def test_tenants_without_limits_have_the_installations(database, caller, clock):
    copy = Copy(database, clock, Limits(requests_per_minute=1))
    await copy.ask(caller())
    await copy.refused(caller())
    await copy.ask(caller(mine=Limits()))


@ONE_DATABASE
async def test_what_a_request_reserved_and_did_not_use_is_given_back(copies, caller):
    one, _ = copies
    principal = caller(mine=Limits(tokens_per_minute=100, tokens_per_day=100))
    async with one.limiter.admit(principal, tokens=80) as admission:
        assert "Used 80, Requested 30" in (await one.refused(principal, tokens=30)).message
        admission.reconcile(10)
    await one.ask(principal, tokens=90)


@ONE_DATABASE
async def test_what_a_request_used_beyond_its_reservation_counts(copies, caller):
    one, _ = copies
    principal = caller(mine=Limits(tokens_per_minute=100))
    await one.ask(principal, tokens=10, used=95)
    await one.refused(principal, tokens=6)


@ONE_DATABASE
async def test_what_is_refused_counts_as_nothing(copies, caller):
    one, _ = copies
    principal = caller(mine=Limits(requests_per_minute=2, requests_per_day=2, tokens_per_minute=9))
    for _ in range(3):
        await one.refused(principal, tokens=20)
    with pytest.raises(RuntimeError):  # for want of a place at the engine
        async with one.limiter.admit(principal, tokens=5):
            raise RuntimeError
    assert dict(one.limiter.headers(principal)) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "0s",
        "x-ratelimit-limit-tokens": "9",
        "x-ratelimit-remaining-tokens": "9",
        "x-ratelimit-reset-tokens": "0s",
    }


@ONE_DATABASE
async def test_a_request_larger_than_the_limit_is_told_not_to_come_back(copies, caller):
    one, _ = copies
    refused = await one.refused(caller(mine=Limits(tokens_per_minute=100)), tokens=101)
    assert refused.retry_after_seconds is None
    assert refused.message == (
        "Request too large for tenant 'acme' on tokens per min (TPM): Limit 100, Requested 101. "
        "The input or output tokens must be reduced in order to run successfully."
    )


@ONE_DATABASE
async def test_so_many_requests_are_in_flight_and_no_more(copies, caller):
    one, _ = copies
    principal = caller(mine=Limits(concurrent_streams=1))
    async with one.limiter.admit(principal, tokens=1):
        refused = await one.refused(principal)
        assert "on requests in flight: Limit 1, Used 1, Requested 1" in refused.message
        assert refused.retry_after_seconds
    await one.ask(principal)


@ONE_DATABASE
async def test_headers_tell_of_the_nearest_limit(copies, caller, clock):
    one, _ = copies
    principal = caller(
        mine=Limits(requests_per_minute=60, tokens_per_minute=1000, tokens_per_day=500),
        own=Limits(requests_per_minute=10),
    )
    await one.ask(principal, tokens=30)
    clock.pass_by(0.5)
    assert one.limiter.headers(principal) == [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-reset-requests", "1m30s"),
        ("x-ratelimit-limit-tokens", "500"),
        ("x-ratelimit-remaining-tokens", "470"),
        ("x-ratelimit-reset-tokens", "8h39m30s"),
    ]


@ONE_DATABASE
async def test_without_limits_nothing_is_counted_and_nothing_said(copies, caller, database):
    one, _ = copies
    await one.ask(caller())
    await one.ledger.flush()
    assert one.limiter.headers(caller()) == []
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(UsageMinute)) == 0


@ONE_DATABASE
async def test_the_operator_has_no_models(copies):
    operator = Principal(key_id="k", label="", scopes=frozenset({"chat"}))
    with pytest.raises(Forbidden):
        await copies[0].ask(operator)


@ONE_DATABASE
async def test_requests_that_begin_together_count_together(copies, caller):
    one, _ = copies
    principal = caller(mine=Limits(requests_per_minute=5))
    asked = await asyncio.gather(*(one.ask(principal) for _ in range(9)), return_exceptions=True)
    assert sum(isinstance(answer, TooMany) for answer in asked) == 4


@ONE_DATABASE
async def test_counts_wait_for_a_database_that_is_gone(copies, caller, database, monkeypatch):
    one, two = copies
    principal = caller(mine=Limits(requests_per_minute=9, requests_per_day=9))
    await one.ask(principal)

    def gone() -> Any:
        raise OperationalError("insert", None, Exception("gone"))

    with monkeypatch.context() as patched:
        patched.setattr(database, "transaction", gone)
        with pytest.raises(OperationalError):
            await one.ledger.flush()
    await one.ask(principal)
    await one.ledger.flush()
    await two.ask(principal)
    for copy in copies:
        left = "7" if copy is one else "6"
        assert dict(copy.limiter.headers(principal))["x-ratelimit-remaining-requests"] == left


@ONE_DATABASE
async def test_a_tenant_that_is_gone_does_not_lose_the_others_counts(copies, caller, database):
    one, two = copies
    async with database.transaction() as session:
        other = await tenants.create(session, TenantRequest(slug="other"))
    limits = Limits(requests_per_minute=2)
    gone = Principal(
        key_id="k9", label="", scopes=frozenset(), tenant_id=other.id, tenant_limits=limits
    )
    await one.ask(gone)
    await one.ask(caller(mine=limits))
    async with database.transaction() as session:
        await session.execute(delete(Tenant).where(Tenant.id == other.id))
    await one.ledger.flush()
    await two.ask(caller(mine=limits))
    await two.refused(caller(mine=limits))


@ONE_DATABASE
async def test_a_tenant_that_was_idle_for_long_is_read_anew(copies, caller, clock):
    one, two = copies
    principal = caller(mine=Limits(requests_per_day=3))
    await one.ask(principal)
    await one.ledger.flush()
    clock.pass_by(3600)
    await one.ledger.flush()
    assert not one.limiter._tenants
    await two.ask(principal)
    await two.ask(principal)
    await two.ledger.flush()
    await one.refused(principal)


async def test_how_near_limits_are_is_the_same_on_a_copy_that_was_not_asked(
    database, clock, caller, tenant
):
    limits = Limits(requests_per_minute=10, tokens_per_day=100, concurrent_streams=2)
    one, other = Copy(database, clock), Copy(database, clock, default=limits)
    mine = caller(mine=limits)
    await one.ask(mine, tokens=30, used=25)
    async with one.limiter.admit(mine, tokens=40):
        await one.ledger.flush()
        [rpm, tpd, open_now] = (await one.limiter.now({tenant.id: limits}))[tenant.id]
        assert (rpm.name, rpm.used, rpm.limit, rpm.share) == ("requests_per_minute", 2, 10, 0.2)
        assert (tpd.name, tpd.used) == ("tokens_per_day", 65)  # those that are reserved too
        assert (open_now.name, open_now.used, open_now.resets_seconds) == (
            "concurrent_streams",
            1,
            None,
        )
        assert tpd.resets_seconds == 31_170  # until midnight
        # the installation's limits, from the database: what is open elsewhere is not known
        elsewhere = (await other.limiter.now({tenant.id: None}))[tenant.id]
        assert [each.used for each in elsewhere] == [2, 25, 0]
    assert not other.limiter._tenants, "looking must not make it count"
    assert (await one.limiter.now({tenant.id: Limits()}))[tenant.id] == []
