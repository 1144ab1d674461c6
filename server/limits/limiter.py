"""Limits on requests and tokens, by tenant and by key, that all copies of the server share.

A request is admitted when it fits under every limit of its tenant and of its key. It reserves the
tokens that it may use, as OpenAI does: those of the prompt, estimated from its length, and
``max_tokens`` of each answer. When it ends, the tokens that it used replace the reservation.

A request that is refused, here or because the engine is busy, does not count. All others do, also those
that fail.

Copies share counts through the database: minutes in ``usage_minute``, written here, and days in
``usage_day``, written by the ledger; both are written and read back every second. So a limit may be
exceeded by what other copies admit within a second, and a daily one also by what is in flight there.
Each copy counts its requests in flight alone. (The ``limits`` package keeps its counts in memory or in
Redis, MongoDB, memcached: not in SQL.)
"""

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal, get_args

import msgspec

from server.auth.keys import Principal
from server.db.session import Database
from server.errors import TooMany
from server.limits import store
from server.limits.sliding_window import DAY, GRAIN, MINUTE, Account, Kind, Rate, duration
from server.limits.store import Amounts, Taken, UsageKey
from server.settings import Limits

IDLE_SECONDS = 600.0  # accounts that are not used for so long are read anew when they are again
PRUNE_SECONDS = 60.0
BUSY_RETRY_SECONDS = 1.0  # for requests in flight: when one ends is unknown
LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "requests_per_day",
    "tokens_per_day",
    "concurrent_streams",
]
LIMITS: tuple[LimitName, ...] = get_args(LimitName)
WORDS: dict[LimitName, str] = {
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "requests_per_day": "Requests a day",
    "tokens_per_day": "Tokens a day",
    "concurrent_streams": "Requests at a time",
}
NEAR = 0.8
"""From this share on a limit is near: there is time to raise it before it is reached."""
_NAMES = {
    "requests_per_minute": "requests per min (RPM)",
    "tokens_per_minute": "tokens per min (TPM)",
    "requests_per_day": "requests per day (RPD)",
    "tokens_per_day": "tokens per day (TPD)",
}


class LimitNow(msgspec.Struct, frozen=True):
    """A limit that is set, and what counts against it now.

    ``resets_seconds``: until nothing counts against it any more if no other request comes; None for
    requests in flight, which end when they do.
    """

    name: LimitName
    limit: int
    used: int
    resets_seconds: float | None

    @property
    def share(self) -> float:
        """What of the limit is used: 1 is all of it, and more is possible for a moment."""
        return self.used / self.limit


class Admission:
    """A request that was admitted. Call ``reconcile`` when it has ended; else it does not count."""

    def __init__(self) -> None:
        self.used: int | None = None

    def reconcile(self, tokens: int) -> None:
        """Set the tokens that it used, prompt and answer."""
        self.used = tokens


class RateLimiter:
    """The limits in one process. Use on one event loop.

    Args:
        database: where copies of the server share their counts.
        default: the limits of tenants that have none of their own.
        clock: the current time in Unix seconds.

    Example:
        async with limiter.admit(principal, tokens=1_200) as admission:
            answer = await generate()
            admission.reconcile(answer.total_tokens)
    """

    def __init__(
        self,
        database: Database,
        *,
        default: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._default = default or Limits()
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._pruned_at = 0.0

    @asynccontextmanager
    async def admit(self, principal: Principal, *, tokens: int) -> AsyncIterator[Admission]:
        """Admit a request that may use ``tokens``, or refuse it.

        It only waits for the database, once, when the tenant is new to this process.

        Raises:
            TooMany: a limit is reached, or the request alone exceeds one.
            Forbidden: the operator's key has no models.
        """
        admission = Admission()
        tenant_id = principal.require_tenant()
        mine = self._default if principal.tenant_limits is None else principal.tenant_limits
        if not (any(_values(mine)) or (principal.limits and any(_values(principal.limits)))):
            yield admission
            return
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = await self._begin(tenant_id)
        now = self._clock()
        tenant.seen_at = now
        self._check(principal, tenant, now, tokens)
        accounts = tenant.whole, tenant.key(principal.key_id)
        minute = int(now // MINUTE)
        for account in accounts:
            account.in_flight += 1
            account.reserved += tokens
            account.minute(minute).add(1, tokens)
        try:
            yield admission
        finally:
            self._end(accounts, minute, tokens, admission.used)

    def headers(self, principal: Principal) -> list[tuple[str, str]]:
        """OpenAI's headers of the limits that are nearest now, of the tenant's and the key's together."""
        tenant = self._tenants.get(principal.tenant_id or "")
        if tenant is None:
            return []
        found: dict[Kind, Rate] = {}
        for _, rate in self._rates(principal, tenant, self._clock()):
            nearest = found.get(rate.kind)
            if nearest is None or (rate.remaining, rate.limit) < (nearest.remaining, nearest.limit):
                found[rate.kind] = rate
        return [
            (f"x-ratelimit-{word}-{kind}", value)
            for kind, rate in found.items()
            for word, value in (
                ("limit", str(rate.limit)),
                ("remaining", str(rate.remaining)),
                ("reset", duration(rate.reset())),
            )
        ]

    async def now(self, tenants: Mapping[str, Limits | None]) -> dict[str, list[LimitNow]]:
        """How near the limits of these tenants are, by tenant's id, in the order of ``LIMITS``.

        Requests in flight are those of this copy of the server. A tenant that has not asked this copy
        for anything lately is looked up in the database.

        Args:
            tenants: their own limits by id; None where the installation's apply.
        """
        now = self._clock()
        unknown = [tenant_id for tenant_id in tenants if tenant_id not in self._tenants]
        accounts = {tenant_id: tenant.whole for tenant_id, tenant in self._tenants.items()}
        if unknown:
            async with self._database.reading() as session:
                totals = await store.read(session, unknown, now)
            for tenant_id in unknown:
                tenant = _Tenant(now)
                tenant.reconcile(totals.of(tenant_id), now)
                accounts[tenant_id] = tenant.whole
        return {
            tenant_id: _near(self._default if limits is None else limits, accounts[tenant_id], now)
            for tenant_id, limits in tenants.items()
        }

    def take(self) -> Taken:
        """The counts to write. Call it at the same moment as the ledger takes its own."""
        minutes: dict[UsageKey, Amounts] = {}
        days: dict[UsageKey, Amounts] = {}
        for tenant_id, tenant in self._tenants.items():
            for key_id, account in (("", tenant.whole), *tenant.keys.items()):
                for kept, buckets in ((minutes, account.minutes), (days, account.days)):
                    for number, bucket in buckets.items():
                        if any(taken := bucket.take()):
                            kept[tenant_id, key_id, number] = taken
        return Taken(minutes, days)

    def put_back(self, taken: Taken) -> None:
        """Count again what was taken and could not be written."""
        for place, amounts in taken.minutes.items():
            if (account := self._account(*place[:2])) is not None:
                account.minute(place[2]).put_back(amounts)
        for place, amounts in taken.days.items():
            if (account := self._account(*place[:2])) is not None:
                account.day(place[2]).put_back(amounts)

    async def sync(self, taken: Taken) -> None:
        """Write the minutes and read the counts of all copies. The ledger has written the days before.

        Raises:
            SQLAlchemyError, OSError: the database failed; ``put_back`` what was taken.
        """
        now = self._clock()
        self._forget_idle(now)
        if not self._tenants:
            return
        prune = now - self._pruned_at > PRUNE_SECONDS
        if prune or taken.minutes:
            # the tenant's own counts are the sum of its keys': only those have rows
            rows = {place: amounts for place, amounts in taken.minutes.items() if place[1]}
            async with self._database.transaction() as session:
                await store.write_minutes(session, rows)
                if prune:
                    await store.prune(session, before=int(now // MINUTE) - 2)
            self._pruned_at = now if prune else self._pruned_at
        await self._read(list(self._tenants), now)

    async def _begin(self, tenant_id: str) -> "_Tenant":
        """Start a tenant's accounts with the counts in the database."""
        async with self._database.reading() as session:
            totals = await store.read(session, [tenant_id], self._clock())
        tenant = self._tenants.get(tenant_id)
        if tenant is None:  # another request was not faster
            tenant = self._tenants[tenant_id] = _Tenant(self._clock())
            tenant.reconcile(totals.of(tenant_id), self._clock())
        return tenant

    async def _read(self, tenant_ids: list[str], now: float) -> None:
        async with self._database.reading() as session:
            totals = await store.read(session, tenant_ids, now)
        for tenant_id in tenant_ids:
            if (tenant := self._tenants.get(tenant_id)) is not None:
                tenant.reconcile(totals.of(tenant_id), now)

    def _check(self, principal: Principal, tenant: "_Tenant", now: float, tokens: int) -> None:
        for whose, rate in self._rates(principal, tenant, now):
            need = 1 if rate.kind == "requests" else tokens
            wait = rate.wait(need)
            if wait == 0:
                continue
            where = f"{whose} on {rate.name}: Limit {rate.limit}"
            if math.isinf(wait):
                raise TooMany(
                    f"Request too large for {where}, Requested {need}. The input or output tokens "
                    "must be reduced in order to run successfully.",
                    retry_after_seconds=None,
                )
            raise TooMany(
                f"Rate limit reached for {where}, Used {rate.limit - rate.remaining}, "
                f"Requested {need}. Please try again in {duration(wait)}.",
                retry_after_seconds=wait,
            )
        for whose, limits, account in self._holders(principal, tenant):
            most = limits.concurrent_streams
            if most is not None and account.in_flight >= most:
                raise TooMany(
                    f"Rate limit reached for {whose} on requests in flight: Limit {most}, "
                    f"Used {account.in_flight}, Requested 1. Please try again when one has ended.",
                    retry_after_seconds=BUSY_RETRY_SECONDS,
                )

    def _holders(
        self, principal: Principal, tenant: "_Tenant"
    ) -> Iterator[tuple[str, Limits, Account]]:
        """(words, limits, account) of the tenant and of the key."""
        mine = self._default if principal.tenant_limits is None else principal.tenant_limits
        yield f"tenant '{principal.slug}'", mine, tenant.whole
        if principal.limits is not None:
            yield "this key", principal.limits, tenant.key(principal.key_id)

    def _rates(
        self, principal: Principal, tenant: "_Tenant", now: float
    ) -> Iterator[tuple[str, Rate]]:
        """Every limit that is set, with what is used of it."""
        for whose, limits, account in self._holders(principal, tenant):
            for _, rate in _rates_of(limits, account, now):
                yield whose, rate

    def _end(
        self, accounts: tuple[Account, ...], minute: int, reserved: int, used: int | None
    ) -> None:
        now = self._clock()
        for account in accounts:
            account.in_flight -= 1
            account.reserved -= reserved
            if used is None:
                account.minute(minute).add(-1, -reserved)
                continue
            # what was not used goes back to its minute; what exceeds the reservation counts now
            when = minute if used <= reserved else int(now // MINUTE)
            account.minute(when).add(0, used - reserved)
            account.day(int(now // DAY)).add(1, used)

    def _account(self, tenant_id: str, key_id: str) -> Account | None:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return None
        return tenant.key(key_id) if key_id else tenant.whole

    def _forget_idle(self, now: float) -> None:
        for tenant_id, tenant in list(self._tenants.items()):
            if now - tenant.seen_at > IDLE_SECONDS and not tenant.whole.in_flight:
                del self._tenants[tenant_id]


class _Tenant:
    """A tenant's accounts: its own, and its keys'."""

    def __init__(self, now: float) -> None:
        self.whole = Account()
        self.keys: dict[str, Account] = {}
        self.seen_at = now

    def key(self, key_id: str) -> Account:
        return self.keys.get(key_id) or self.keys.setdefault(key_id, Account())

    def reconcile(self, totals: store.TenantTotals, now: float) -> None:
        """Take over the counts of all copies; a count that is not among them is zero."""
        minute, day = int(now // MINUTE), int(now // DAY)
        for key_id in totals.keys:
            self.key(key_id)
        for key_id, account in (("", self.whole), *self.keys.items()):
            account.forget_before(minute - 2, day - 1)
            for number in {minute - 1, minute, *account.minutes}:
                account.minute(number).reconcile(*totals.minute(key_id, number))
            account.day(day).reconcile(*totals.day(key_id))


def _rates_of(limits: Limits, account: Account, now: float) -> Iterator[tuple[LimitName, Rate]]:
    """The limits by minute and by day that are set, with what is used of them."""
    minute, elapsed = divmod(now, MINUTE)
    day, elapsed_today = divmod(now, DAY)
    kinds: tuple[tuple[Kind, LimitName, LimitName], ...] = (
        ("requests", "requests_per_minute", "requests_per_day"),
        ("tokens", "tokens_per_minute", "tokens_per_day"),
    )
    for kind, per_minute, per_day in kinds:
        limit: int | None = getattr(limits, per_minute)
        if limit is not None:
            before = getattr(account.minute(int(minute) - 1), kind)
            current = getattr(account.minute(int(minute)), kind)
            name = _NAMES[per_minute]
            yield per_minute, Rate(kind, name, limit, before, current, elapsed, MINUTE)
        limit = getattr(limits, per_day)
        if limit is not None:
            open_now = account.in_flight if kind == "requests" else account.reserved
            current = getattr(account.day(int(day)), kind) + open_now
            yield per_day, Rate(kind, _NAMES[per_day], limit, 0, current, elapsed_today, DAY)


def _near(limits: Limits, account: Account, now: float) -> list[LimitNow]:
    found = {
        name: LimitNow(name, rate.limit, math.ceil(rate.used - GRAIN), rate.reset())
        for name, rate in _rates_of(limits, account, now)
    }
    if (most := limits.concurrent_streams) is not None:
        found["concurrent_streams"] = LimitNow("concurrent_streams", most, account.in_flight, None)
    return [found[name] for name in LIMITS if name in found]


def _values(limits: Limits) -> tuple[int | None, ...]:
    return (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.requests_per_day,
        limits.tokens_per_day,
        limits.concurrent_streams,
    )
