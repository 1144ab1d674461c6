"""Sends the events that wait, signed as Standard Webhooks, until their receivers accept them.

Every copy of the server runs a dispatcher. It claims a row by moving its ``due_at`` ahead, so that no
other sends it. When a copy dies, its claims run out and another sends the rows. So an event may arrive
twice: ``webhook-id`` is the same in every attempt, by which receivers recognise it.
"""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal

import aiohttp
import msgspec
import structlog
from sqlalchemy import func
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks import Webhook

from server.audit import service as audit
from server.db.models import WebhookDelivery, WebhookEndpoint, now
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.webhooks.addresses import Lookup, connections
from server.webhooks.schemas import TEST_EVENT
from server.webhooks.service import DELIVERY_PREFIX, subject
from server.webhooks.vault import SecretUnreadable, Vault

log = structlog.get_logger(__name__)

RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
JITTER = 0.2  # of each wait: receivers that failed together are not tried together again
MAX_RETRY_AFTER_SECONDS = RETRY_SECONDS[-1]
LEASE = timedelta(seconds=60)  # four times the longest attempt
KEPT = timedelta(days=30)
MAX_ANSWER = 200  # characters of a receiver's answer that are kept
ANSWER_SECONDS = 2.0  # for them to come, after the status did
MAX_IN_FLIGHT = 64
MAX_PER_ENDPOINT = 2  # times MAX_ENDPOINTS: a tenant has less than a third of MAX_IN_FLIGHT
PRUNE_SECONDS = 3600.0
_all_tenants = across_tenants("each copy of the server sends for every tenant")
AttemptResult = Literal["delivered", "failed", "given_up"]  # failed: it is tried again later


class _Claim(msgspec.Struct, frozen=True):
    """A row that this copy sends until the lease ends; a later claim has another ``attempt``."""

    delivery_id: str
    endpoint_id: str
    attempt: int
    url: str
    secrets: tuple[str, ...]
    event: dict[str, Any]


class _DeliveryOutcome(msgspec.Struct, frozen=True):
    """The result of an attempt; it succeeded where ``error`` is None.

    ``status`` and ``text`` are of the receiver's answer, None where there was none.
    """

    error: str | None = None
    gone: bool = False
    retry_after_seconds: float = 0.0
    status: int | None = None
    text: str | None = None


class WebhookDispatcher:
    """Sends what is due, every ``poll_seconds`` and whenever an attempt has ended.

    Args:
        database: where the events wait.
        vault: decrypts the secrets; it must be open.
        private: whether it may connect to addresses that are not public. What receivers answer is
            not kept then: a tenant would read what stands in the operator's network.
        timeout_seconds: of one attempt.
        poll_seconds: between two looks for due events.
        clock: the current time; for tests.
        lookup: resolves names, as ``socket.getaddrinfo`` does; for tests.
        on_attempt: called with the result of each attempt, and for an event that is given up without
            one.
    """

    def __init__(
        self,
        database: Database,
        *,
        vault: Vault,
        private: bool,
        timeout_seconds: float = 15.0,
        poll_seconds: float = 1.0,
        clock: Callable[[], datetime] = now,
        lookup: Lookup = socket.getaddrinfo,
        on_attempt: Callable[[AttemptResult], object] = lambda _: None,
    ) -> None:
        self._database = database
        self._vault = vault
        self._private = private
        self._timeout_seconds = timeout_seconds
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._lookup = lookup
        self._on_attempt = on_attempt
        self._in_flight: Counter[str] = Counter()  # by endpoint
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Send until cancelled. An attempt under way then is made again when its claim has run out."""
        loop = asyncio.get_running_loop()
        prune_at = loop.time()
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._freed.wait()
                self._freed.clear()
                try:
                    await self._send_due(client, tasks)
                    if loop.time() >= prune_at:
                        prune_at = loop.time() + PRUNE_SECONDS
                        await self.prune()
                except (SQLAlchemyError, OSError) as exc:
                    log.warning("webhooks could not be looked for", error=str(exc))
                except Exception:
                    log.exception("webhooks could not be looked for")

    async def send_due(self) -> int:
        """Make one attempt for each due row, within the bounds; returns how many."""
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            return await self._send_due(client, tasks)

    async def prune(self) -> None:
        """Remove rows older than ``KEPT``."""
        async with self._database.transaction() as session:
            old = _all_tenants.delete(WebhookDelivery)
            await session.execute(old.where(WebhookDelivery.created_at < self._clock() - KEPT))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with (
            connections(private=self._private, lookup=self._lookup) as connector,
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
                trust_env=False,  # a proxy would connect where it likes
            ) as client,
        ):
            yield client

    async def _send_due(self, client: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> int:
        claims = await self._claim()
        for claim in claims:
            self._in_flight[claim.endpoint_id] += 1
            tasks.create_task(self._send(client, claim))
        return len(claims)

    async def _claim(self) -> list[_Claim]:
        """Claim due rows, oldest first, and at most ``MAX_PER_ENDPOINT`` for an endpoint."""
        full = [each for each, count in self._in_flight.items() if count >= MAX_PER_ENDPOINT]
        room = MAX_IN_FLIGHT - self._in_flight.total()
        due = (WebhookDelivery.state == "pending", WebhookDelivery.due_at <= self._clock())
        query = (
            _all_tenants.select(WebhookDelivery.endpoint_id)
            .where(*due, WebhookDelivery.endpoint_id.not_in(full))
            .group_by(WebhookDelivery.endpoint_id)
            .order_by(func.min(WebhookDelivery.due_at))
            .limit(room)
        )
        claims: list[_Claim] = []
        async with self._database.reading() as session:
            endpoint_ids = list(await session.scalars(query)) if room > 0 else []
        for endpoint_id in endpoint_ids:
            most = min(MAX_PER_ENDPOINT - self._in_flight[endpoint_id], room - len(claims))
            if most <= 0:
                break
            # on PostgreSQL another copy's rows are skipped; on SQLite there is one writer at a time
            rows = (
                _all_tenants.select(WebhookDelivery)
                .where(*due, WebhookDelivery.endpoint_id == endpoint_id)
                .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
                .limit(most)
                .with_for_update(skip_locked=True)
            )
            async with self._database.transaction() as session:
                found = list(await session.scalars(rows))
                taken = await self._take(session, endpoint_id, found)
            claims += taken
            for _ in range(len(found) - len(taken)):
                self._on_attempt("given_up")
        return claims

    async def _take(
        self, session: AsyncSession, endpoint_id: str, rows: list[WebhookDelivery]
    ) -> list[_Claim]:
        endpoint = await _all_tenants.get(session, WebhookEndpoint, endpoint_id)
        claims = []
        for row in rows:
            if endpoint is None or not endpoint.enabled:
                row.state, row.error = "failed", "The webhook is disabled."
                continue
            row.attempts += 1  # before the attempt: one that ends this process counts too
            row.due_at = self._clock() + LEASE
            claims.append(
                _Claim(
                    delivery_id=row.id,
                    endpoint_id=endpoint_id,
                    attempt=row.attempts,
                    url=endpoint.url,
                    secrets=self._secrets(endpoint),
                    event=row.event,
                )
            )
        return claims

    def _secrets(self, endpoint: WebhookEndpoint) -> tuple[str, ...]:
        """The secrets that sign; none where this server cannot decrypt them."""
        old, until = endpoint.previous_secret, endpoint.previous_secret_until
        try:
            secrets = [self._vault.unseal(endpoint.secret)]
            if old is not None and until is not None and until > self._clock():
                secrets.append(self._vault.unseal(old))
        except SecretUnreadable:
            return ()
        return tuple(secrets)

    async def _send(self, client: aiohttp.ClientSession, claim: _Claim) -> None:
        try:
            outcome = _DeliveryOutcome("The secret cannot be decrypted with this server's key.")
            if claim.secrets:  # else another copy of the server may have the key
                outcome = await self._attempt(client, claim)
            await self._record(claim, outcome)
        except Exception:  # the claim runs out, and it is sent again
            log.exception("webhook was not recorded", delivery=claim.delivery_id)
        finally:
            self._in_flight[claim.endpoint_id] -= 1
            self._in_flight += Counter()  # forgets endpoints with none
            self._freed.set()

    async def _attempt(self, client: aiohttp.ClientSession, claim: _Claim) -> _DeliveryOutcome:
        """Post the event. The status decides; of the answer's text the first characters are kept."""
        payload = msgspec.json.encode(claim.event)
        headers = _signed(claim, payload, at=self._clock())
        try:
            async with client.post(
                claim.url, data=payload, headers=headers, allow_redirects=False
            ) as response:
                outcome = _judge(
                    response.status, response.headers.get("retry-after"), self._clock()
                )
                text = None if self._private else await _first_characters(response)
                return msgspec.structs.replace(outcome, status=response.status, text=text)
        except TimeoutError:
            return _DeliveryOutcome(
                f"There was no answer within {self._timeout_seconds:g} seconds."
            )
        except aiohttp.ClientConnectorCertificateError:
            return _DeliveryOutcome("The certificate is not good.")
        except aiohttp.ClientConnectorDNSError:
            return _DeliveryOutcome("The host's name has no address.")
        except aiohttp.ClientConnectorError as exc:
            return _DeliveryOutcome(exc.os_error.strerror or str(exc.os_error))
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return _DeliveryOutcome(f"The connection failed: {type(exc).__name__}.")

    async def _record(self, claim: _Claim, outcome: _DeliveryOutcome) -> None:
        ours = _all_tenants.select(WebhookDelivery).where(
            WebhookDelivery.id == claim.delivery_id,
            WebhookDelivery.state == "pending",
            WebhookDelivery.attempts == claim.attempt,
        )
        async with self._database.transaction() as session:
            row = (await session.scalars(ours.with_for_update())).one_or_none()
            if row is None:  # deleted, or claimed by another since the lease ended
                return
            result: AttemptResult = "failed"
            row.error = outcome.error
            row.response_status, row.response_text = outcome.status, outcome.text
            delays = () if claim.event["type"] == TEST_EVENT else RETRY_SECONDS
            if outcome.error is None:
                result = row.state = "delivered"
                row.delivered_at = self._clock()
            elif outcome.gone or claim.attempt > len(delays):
                row.state, result = "failed", "given_up"
            else:
                spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
                delay = max(delays[claim.attempt - 1] * spread, outcome.retry_after_seconds)
                row.due_at = self._clock() + timedelta(seconds=delay)
            if outcome.gone:
                scope = of_tenant(row.tenant_id)
                endpoint = await scope.get(session, WebhookEndpoint, claim.endpoint_id)
                if endpoint is not None and endpoint.enabled:
                    endpoint.enabled = False
                    audit.record(
                        session,
                        "webhook.changed",
                        tenant_id=endpoint.tenant_id,
                        subject=subject(endpoint),
                        details={
                            "changes": audit.changes({"enabled": True}, {"enabled": False}),
                            "reason": "its receiver answered 410 Gone",
                        },
                    )
            level = log.info if outcome.error is None else log.warning
            # never the URL: for many receivers it is a secret itself
            level(
                "webhook attempted",
                endpoint=claim.endpoint_id,
                delivery=row.id,
                attempt=claim.attempt,
                state=row.state,
                error=row.error,
            )
        self._on_attempt(result)


def _signed(claim: _Claim, payload: bytes, *, at: datetime) -> dict[str, str]:
    """Headers of one attempt: the same id in each, the time and the signature its own."""
    message_id = DELIVERY_PREFIX + claim.delivery_id
    signatures = [
        Webhook(secret).sign(msg_id=message_id, timestamp=at, data=payload.decode())
        for secret in claim.secrets
    ]
    return {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "Tenantune",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _first_characters(response: aiohttp.ClientResponse) -> str | None:
    """The first characters of an answer, on one line; None where it has no text."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await response.content.read(4 * MAX_ANSWER)  # UTF-8 has four bytes at most
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None
    words = " ".join(head.decode(errors="replace").split())
    return "".join(each for each in words if each.isprintable())[:MAX_ANSWER] or None


def _judge(status: int, retry_after: str | None, at: datetime) -> _DeliveryOutcome:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _DeliveryOutcome()
    if status == HTTPStatus.GONE:
        return _DeliveryOutcome(
            "HTTP 410: the receiver is gone; the webhook was disabled.", gone=True
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return _DeliveryOutcome(f"HTTP {status}: redirects are not followed.")
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return _DeliveryOutcome(f"HTTP {status}", retry_after_seconds=_seconds(retry_after, at))
    return _DeliveryOutcome(f"HTTP {status}")


def _seconds(retry_after: str | None, at: datetime) -> float:
    """``retry-after``, a number of seconds or a date, within bounds; 0 where it is neither."""
    text = (retry_after or "").strip()
    try:
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            date = parsedate_to_datetime(text)
            seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - at).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
