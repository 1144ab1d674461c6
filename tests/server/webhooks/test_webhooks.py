"""Webhooks: signed, sent until somebody takes them, and never to where a tenant should not reach."""

import asyncio
import base64
import socket
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.fernet import Fernet
from openai import OpenAI
from openai.types.webhooks import FineTuningJobSucceededWebhookEvent
from sqlalchemy import select, update
from standardwebhooks import Webhook

from server.app import create_app
from server.db.models import WebhookDelivery, WebhookEndpoint, now
from server.errors import Invalid, TooMany
from server.logs import redact
from server.metrics import Metrics
from server.settings import SettingsError
from server.tenants import service as tenants
from server.webhooks import addresses, listing, service
from server.webhooks.addresses import NOT_PUBLIC, check_url, is_public
from server.webhooks.dispatcher import (
    MAX_ANSWER,
    MAX_PER_ENDPOINT,
    RETRY_SECONDS,
    WebhookDispatcher,
    _DeliveryOutcome,
)
from server.webhooks.schemas import EVENT_TYPES, WebhookPatch, WebhookRequest
from server.webhooks.vault import SecretUnreadable, Vault
from tests.server.conftest import running
from tests.server.serving import until

JOB = {"id": "ftjob-0123456789abcdef0123456789abcdef"}
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Receiver:
    """Takes webhooks on a port of this machine; answers what it is told to, then 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[web.Response] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.got.append(({k.lower(): v for k, v in request.headers.items()}, body))
        await self.hold.wait()
        return self.answers.pop(0) if self.answers else web.Response(status=204)


@pytest_asyncio.fixture
async def make_receiver() -> AsyncIterator[Callable[[], Awaitable[Receiver]]]:
    runners = []
    receivers = []

    async def make() -> Receiver:
        receiver = Receiver()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", receiver.take)
        runner = web.AppRunner(application, shutdown_timeout=0)
        runners.append(runner)
        receivers.append(receiver)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        return receiver

    yield make
    for receiver in receivers:
        receiver.hold.set()
    for runner in runners:
        await runner.cleanup()


@pytest_asyncio.fixture
async def receiver(make_receiver) -> Receiver:
    made: Receiver = await make_receiver()
    return made


class Clock:
    """The time, which a test moves on."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead

    def move(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def vault(settings, database) -> Vault:
    made = Vault(settings)
    await made.open(database)
    return made


@pytest.fixture
def sender(database, clock, vault) -> WebhookDispatcher:
    return WebhookDispatcher(database, vault=vault, private=True, clock=clock)


@pytest.fixture
def endpoint(database, make_tenant, receiver, vault):
    """Makes the tenant's endpoint at the receiver."""

    async def make(slug: str = "acme", *, url: str = "", **fields: Any) -> WebhookEndpoint:
        await make_tenant(slug)
        request = WebhookRequest(url=url or receiver.url, **fields)
        async with database.transaction() as session:
            return await service.create(session, request, slug=slug, private=True, vault=vault)

    return make


@pytest.fixture
def emit(database):
    async def emit(made: WebhookEndpoint, kind: Any = "fine_tuning.job.succeeded") -> None:
        async with database.transaction() as session:
            await service.emit(session, made.tenant_id, type=kind, data=JOB)

    return emit


@pytest.fixture
def rows(database):
    async def rows() -> list[WebhookDelivery]:
        async with database.reading() as session:
            return list(await session.scalars(select(WebhookDelivery).order_by("id")))

    return rows


async def test_the_official_client_takes_what_is_sent(
    endpoint, emit, sender, receiver, rows, *, vault
):
    made = await endpoint()
    await emit(made)
    assert await sender.send_due() == 1
    [(headers, body)] = receiver.got
    with OpenAI(api_key="-", base_url="http://127.0.0.1:1") as client:
        event = client.webhooks.unwrap(body, headers, secret=vault.unseal(made.secret))
    assert isinstance(event, FineTuningJobSucceededWebhookEvent)
    assert (event.object, event.data.id) == ("event", JOB["id"])
    assert event.id.startswith("evt_")
    assert abs(event.created_at - now().timestamp()) < 60
    assert Webhook(vault.unseal(made.secret)).verify(body, headers)["id"] == event.id
    assert headers["content-type"] == "application/json"
    [row] = await rows()
    assert (row.state, row.attempts, row.error) == ("delivered", 1, None)
    assert row.delivered_at is not None
    assert await sender.send_due() == 0


@sqlite_only
async def test_what_a_transaction_undoes_is_never_told(endpoint, database, sender, rows):
    made = await endpoint()

    async def tell_and_fail() -> None:
        async with database.transaction() as session:
            await service.emit(session, made.tenant_id, type=EVENT_TYPES[0], data=JOB)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await tell_and_fail()
    assert await rows() == []
    assert await sender.send_due() == 0


@sqlite_only
async def test_only_endpoints_that_want_an_event_get_it(endpoint, emit, database, rows):
    made = await endpoint(events=("fine_tuning.job.failed",))
    await emit(made)
    assert await rows() == []
    await emit(made, "fine_tuning.job.failed")
    assert len(await rows()) == 1
    async with database.transaction() as session:
        patch = WebhookPatch(enabled=False)
        await service.update(session, made.id, patch, slug="acme", private=True)
    await emit(made, "fine_tuning.job.failed")
    assert len(await rows()) == 1


@sqlite_only
async def test_a_failing_receiver_is_asked_again_less_and_less_often_and_then_left(
    endpoint, emit, sender, *, receiver, rows, clock
):
    receiver.answers = [web.Response(status=500) for _ in range(20)]
    await emit(await endpoint())
    for attempt, delay in enumerate(RETRY_SECONDS, 1):
        before = clock()
        assert await sender.send_due() == 1
        assert await sender.send_due() == 0
        [row] = await rows()
        assert (row.state, row.attempts, row.error) == ("pending", attempt, "HTTP 500")
        waits = (row.due_at - before).total_seconds()
        assert 0.79 * delay < waits < 1.21 * delay + 10
        clock.move(waits + 1)
    assert await sender.send_due() == 1
    [row] = await rows()
    assert (row.state, row.attempts) == ("failed", len(RETRY_SECONDS) + 1)
    clock.move(10 * 24 * 3600)
    assert await sender.send_due() == 0
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1
    times = [int(headers["webhook-timestamp"]) for headers, _ in receiver.got]
    assert times == sorted(set(times))


@sqlite_only
async def test_a_receiver_that_never_answers_is_tried_again(
    endpoint, emit, database, receiver, rows, *, vault
):
    receiver.hold.clear()
    await emit(await endpoint())
    await WebhookDispatcher(database, vault=vault, private=True, timeout_seconds=0.1).send_due()
    [row] = await rows()
    assert (row.state, row.attempts) == ("pending", 1)
    assert "no answer within 0.1 seconds" in row.error


@sqlite_only
async def test_nobody_at_the_address_is_tried_again(endpoint, emit, sender, rows):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    await emit(await endpoint(url=f"http://127.0.0.1:{port}/"))
    await sender.send_due()
    [row] = await rows()
    assert row.state == "pending"
    assert "Connect" in row.error


@sqlite_only
async def test_redirects_are_not_followed(endpoint, emit, sender, receiver, rows):
    receiver.answers = [web.Response(status=307, headers={"location": receiver.url + "/other"})]
    await emit(await endpoint())
    await sender.send_due()
    assert len(receiver.got) == 1
    [row] = await rows()
    assert (row.state, row.error) == ("pending", "HTTP 307: redirects are not followed.")


@sqlite_only
@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"<h1>Bad\r\n gateway</h1>\x00\x1b[31m", "<h1>Bad gateway</h1>[31m"),
        ("\N{SNOWMAN}".encode() * 300, "\N{SNOWMAN}" * MAX_ANSWER),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", None),
    ],
)
async def test_the_status_and_the_first_characters_of_an_answer_are_kept(
    endpoint, emit, sender, clock, receiver, *, rows, monkeypatch, body, kept
):
    monkeypatch.setattr(addresses, "is_public", lambda _: True)
    monkeypatch.setattr(sender, "_private", False)
    await emit(await endpoint())
    receiver.answers = [web.Response(status=502, body=body)]
    await sender.send_due()
    [row] = await rows()
    assert (row.state, row.error, row.response_status) == ("pending", "HTTP 502", 502)
    assert row.response_text == kept
    clock.move(10)
    await sender.send_due()  # what the attempt before was answered is forgotten
    [row] = await rows()
    assert (row.state, row.response_status, row.response_text) == ("delivered", 204, None)


async def test_no_text_is_kept_where_private_addresses_are_allowed(
    endpoint, emit, sender, receiver, rows
):
    await emit(await endpoint())
    receiver.answers = [web.Response(status=200, text="the operator's own")]
    await sender.send_due()
    [row] = await rows()
    assert (row.state, row.response_status, row.response_text) == ("delivered", 200, None)


async def test_lists_have_each_deliverys_event_and_state_and_each_endpoints_last_one(
    endpoint, emit, database, sender, receiver
):
    made = await endpoint()
    for kind in EVENT_TYPES[:2]:
        await emit(made, kind)
    receiver.answers = [web.Response(status=503)]
    await sender.send_due()
    await emit(made, EVENT_TYPES[2])
    async with database.reading() as session:
        tenant = await tenants.get(session, "acme")
        found = await listing.list_deliveries(session, made, limit=2)
        [oldest] = await listing.list_deliveries(session, made, after=found[-1].row_id)
        [row] = await listing.list_endpoints(session, tenant)
        waiting = await listing.count_waiting(session, made)
    assert [each.event for each in (*found, oldest)] == list(reversed(EVENT_TYPES[:3]))
    assert row.last == found[0]
    assert (found[0].state.word, found[0].state.going) == ("Waits", True)
    assert sorted([found[1].state.word, oldest.state.word]) == ["Delivered", "Retrying"]
    assert waiting == 2


@sqlite_only
async def test_a_receiver_that_is_gone_is_disabled(
    endpoint, emit, sender, *, receiver, rows, database
):
    receiver.answers = [web.Response(status=410)]
    made = await endpoint()
    await emit(made)
    await sender.send_due()
    [row] = await rows()
    assert row.state == "failed"
    async with database.reading() as session:
        assert not (await session.get_one(WebhookEndpoint, made.id)).enabled


@sqlite_only
async def test_outcomes_are_counted_and_name_nobody(
    endpoint, emit, database, *, receiver, clock, rows, vault
):
    metrics = Metrics(None)
    sender = WebhookDispatcher(
        database, vault=vault, private=True, clock=clock, on_attempt=metrics.count_webhook
    )

    def counted() -> dict[str, float]:
        [family] = [each for each in metrics.registry.collect() if "webhook" in each.name]
        assert {key for sample in family.samples for key in sample.labels} == {"outcome"}
        totals = [sample for sample in family.samples if sample.name.endswith("_total")]
        return {sample.labels["outcome"]: sample.value for sample in totals}

    assert counted() == {"delivered": 0, "failed": 0, "given_up": 0}
    made = await endpoint()
    receiver.answers = [web.Response(status=500), web.Response(status=204)]
    await emit(made)
    await sender.send_due()
    assert counted() == {"delivered": 0, "failed": 1, "given_up": 0}
    clock.move(RETRY_SECONDS[0] * 2)
    await sender.send_due()
    assert counted() == {"delivered": 1, "failed": 1, "given_up": 0}
    receiver.answers = [web.Response(status=410)]
    await emit(made)
    await emit(made)
    await emit(made)  # not sent before the endpoint is disabled: two go at once
    await sender.send_due()
    await sender.send_due()
    states = Counter(row.state for row in await rows())
    assert counted() == {
        "delivered": states["delivered"],
        "failed": 1,
        "given_up": states["failed"],
    }
    assert states["failed"] == 2


@sqlite_only
@pytest.mark.parametrize(
    ("status", "retry_after", "least", "most"),
    [
        (429, "100", 100, 101),
        (503, "100", 100, 101),
        (500, "100", 4, 6.1),
        (429, "999999999", 24 * 3600, 24 * 3600 + 1),
        (429, "-5", 4, 6.1),
        (429, "soon", 4, 6.1),
        (429, "Wed, 01 Jan 2020 00:00:00 GMT", 4, 6.1),
        (429, "Wed, 01 Jan 2999 00:00:00 GMT", 24 * 3600, 24 * 3600 + 1),
    ],
)
async def test_retry_after_is_honoured_within_bounds(
    endpoint, emit, database, *, receiver, rows, status, retry_after, least, most, vault
):
    receiver.answers = [web.Response(status=status, headers={"retry-after": retry_after})]
    at = now()
    await emit(await endpoint())
    await WebhookDispatcher(
        database, vault=vault, private=True, clock=lambda: at + timedelta(seconds=60)
    ).send_due()
    [row] = await rows()
    assert least <= (row.due_at - at).total_seconds() - 60 <= most


@sqlite_only
async def test_what_waits_for_an_endpoint_that_was_disabled_fails(
    endpoint, emit, sender, *, receiver, rows, database
):
    made = await endpoint()
    await emit(made)
    async with database.transaction() as session:
        patch = WebhookPatch(enabled=False)
        await service.update(session, made.id, patch, slug="acme", private=True)
    await sender.send_due()
    [row] = await rows()
    assert (row.state, receiver.got) == ("failed", [])


async def test_a_sender_that_dies_before_it_sends_loses_nothing(
    endpoint, emit, database, *, clock, receiver, rows, vault
):
    await emit(await endpoint())
    dead, other, third = (
        WebhookDispatcher(database, vault=vault, private=True, clock=clock) for _ in range(3)
    )
    [claim] = await dead._claim()
    assert await other.send_due() == 0
    clock.move(61)
    assert len(await other._claim()) == 1
    # if it only slept, what it has to say is too late
    await dead._record(claim, _DeliveryOutcome("late"))
    [row] = await rows()
    assert (row.state, row.attempts, row.error) == ("pending", 2, None)
    assert await third.send_due() == 0
    clock.move(61)
    assert await third.send_due() == 1
    assert len(receiver.got) == 1
    [row] = await rows()
    assert (row.state, row.attempts, row.error) == ("delivered", 3, None)


async def test_copies_of_the_server_send_each_event_once(
    endpoint, emit, database, *, settings, receiver, rows, vault
):
    made = await endpoint()
    for _ in range(6):
        await emit(made)
    other_database = type(database)(settings.database)
    copies = [
        WebhookDispatcher(each, vault=vault, private=True) for each in (database, other_database)
    ]
    async with asyncio.timeout(20):
        while sum(await asyncio.gather(*(copy.send_due() for copy in copies))):
            pass
    await other_database.dispose()
    assert len(receiver.got) == len({headers["webhook-id"] for headers, _ in receiver.got}) == 6
    assert {row.state for row in await rows()} == {"delivered"}


@sqlite_only
async def test_a_slow_receiver_holds_up_nobody_else(
    endpoint, emit, sender, receiver, make_receiver
):
    receiver.hold.clear()
    slow = await endpoint("slow")
    for _ in range(MAX_PER_ENDPOINT + 3):
        await emit(slow)
    quick = await make_receiver()
    second = await endpoint("quick", url=quick.url)
    await emit(second)
    sending = asyncio.ensure_future(sender.send_due())
    await until(lambda: quick.got)
    await until(lambda: len(receiver.got) == MAX_PER_ENDPOINT)
    assert not sending.done()
    await emit(second)  # and one that comes later does not wait either
    assert await sender.send_due() == 1
    receiver.hold.set()
    assert await sending == MAX_PER_ENDPOINT + 1


PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2001:0:808:808::",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_told(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_told(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "example.com",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://@example.com/",
        "https://:@example.com/",
        "https://user:secret@example.com/",
        "https://:secret@example.com/",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\r\nx: y",
        "https://example.com\\@127.0.0.1/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
        "https://db.internal/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://\uff11\uff12\uff17.0.0.1/",
        *(f"https://[{each}]/" if ":" in each else f"https://{each}/" for each in PRIVATE[:-4]),
    ],
)
def test_a_url_that_cannot_be_sent_to_is_refused(url):
    with pytest.raises(Invalid) as caught:
        check_url(url, private=False)
    assert caught.value.param == "url"


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://example.com:8443/a?b=c", "https://8.8.8.8/"]
)
def test_a_url_of_the_internet_is_taken(url):
    check_url(url, private=False)


def test_the_operator_may_allow_private_addresses_and_nothing_else():
    check_url("http://127.0.0.1:9000/hook", private=True)
    for url in ("ftp://127.0.0.1/", "http://user:secret@127.0.0.1/"):
        with pytest.raises(Invalid):
            check_url(url, private=True)


@sqlite_only
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "127.1", "localhost", "[::ffff:127.0.0.1]", "hook.example"]
)
async def test_a_connection_is_only_made_to_a_public_address_whatever_it_is_called(
    endpoint, emit, database, *, receiver, rows, host, vault
):
    lookups = []

    def lookup(name: str, port: int, **_: Any) -> list[Any]:
        lookups.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    await emit(await endpoint(url=receiver.url.replace("127.0.0.1", host)))
    await WebhookDispatcher(database, vault=vault, private=False, lookup=lookup).send_due()
    assert receiver.got == []
    [row] = await rows()
    assert row.state == "pending"
    # aiohttp itself takes no number for a host
    assert row.error == NOT_PUBLIC or "InvalidUrl" in row.error
    assert len(lookups) <= 1
    # and where it is allowed, a name is looked up once, and that address is connected to
    if host == "hook.example":
        later = WebhookDispatcher(
            database,
            vault=vault,
            private=True,
            lookup=lookup,
            clock=lambda: now() + timedelta(seconds=60),
        )
        await later.send_due()
        assert (len(receiver.got), lookups) == (1, ["hook.example"] * 2)


@sqlite_only
async def test_one_private_address_among_public_ones_is_not_connected_to(
    endpoint, emit, database, receiver, rows, *, vault
):
    def lookup(name: str, port: int, **_: Any) -> list[Any]:
        addresses = ["127.0.0.1", "10.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    await emit(await endpoint(url=receiver.url.replace("127.0.0.1", "hook.example")))
    await WebhookDispatcher(database, vault=vault, private=False, lookup=lookup).send_due()
    [row] = await rows()
    assert (row.error, receiver.got) == (NOT_PUBLIC, [])


@sqlite_only
async def test_rows_are_kept_for_thirty_days(endpoint, emit, sender, rows, database):
    made = await endpoint()
    for _ in range(2):
        await emit(made)
    old, young = await rows()
    async with database.transaction() as session:
        await session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == old.id)
            .values(created_at=now() - timedelta(days=31))
        )
    await sender.prune()
    assert [row.id for row in await rows()] == [young.id]


def test_a_secret_is_taken_out_of_logs():
    secret = "whsec_" + base64.b64encode(b"x" * 24).decode()
    assert redact({"text": f"signed with {secret}."})["text"] == "signed with whsec_***."


@pytest.fixture
def settings(settings):
    return msgspec.structs.replace(settings, webhook_private=True)


async def test_an_endpoint_is_made_changed_and_removed(client, operator, make_tenant, receiver):
    await make_tenant("acme")
    address = "/admin/tenants/acme/webhooks"
    made = await client.post(address, json={"url": receiver.url}, headers=operator)
    assert made.status_code == 201
    secret, details = made.json()["secret"], made.json()["details"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 24
    assert details["events"] == sorted(EVENT_TYPES)
    listed = await client.get(address, headers=operator)
    assert listed.json() == [details]
    assert secret not in listed.text
    own = f"{address}/{details['id']}"
    patch = {"enabled": False, "events": ["fine_tuning.job.failed"]}
    changed = await client.patch(own, json=patch, headers=operator)
    assert changed.json() | {"updated_at": 0} == details | patch | {"updated_at": 0}
    assert (await client.get(own, headers=operator)).json() == changed.json()
    refused = await client.post(f"{own}/test", headers=operator)
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    assert (await client.delete(own, headers=operator)).status_code == 204
    assert (await client.get(own, headers=operator)).status_code == 404


@sqlite_only
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://example.com"},
        {"url": 5},
        {"url": "https://example.com", "events": []},
        {"url": "https://example.com", "events": ["batch.completed"]},
        {"url": "https://example.com", "secret": "whsec_mine"},
        {"url": "https://example.com/" + "x" * 3000},
    ],
)
async def test_an_endpoint_that_makes_no_sense_is_refused(client, operator, make_tenant, body):
    await make_tenant("acme")
    answer = await client.post("/admin/tenants/acme/webhooks", json=body, headers=operator)
    assert answer.status_code == 400


@sqlite_only
async def test_a_tenant_has_a_bounded_number_of_endpoints(client, operator, make_tenant):
    await make_tenant("acme")
    body = {"url": "https://example.com"}
    for _ in range(service.MAX_ENDPOINTS):
        answer = await client.post("/admin/tenants/acme/webhooks", json=body, headers=operator)
        assert answer.status_code == 201
    answer = await client.post("/admin/tenants/acme/webhooks", json=body, headers=operator)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")


@sqlite_only
async def test_after_a_rotation_both_secrets_verify_for_a_while(
    client, operator, make_tenant, *, receiver, sender, clock
):
    await make_tenant("acme")
    made = await client.post(
        "/admin/tenants/acme/webhooks", json={"url": receiver.url}, headers=operator
    )
    own = f"/admin/tenants/acme/webhooks/{made.json()['details']['id']}"
    asked = {"overlap_seconds": 100}
    rotated = await client.post(f"{own}/rotate-secret", json=asked, headers=operator)
    old, new = made.json()["secret"], rotated.json()["secret"]
    assert old != new
    await client.post(f"{own}/test", headers=operator)
    await until(lambda: receiver.got)  # the application's own sender
    [(headers, body)] = receiver.got
    with OpenAI(api_key="-", base_url="http://127.0.0.1:1") as official:
        for secret in (old, new):
            Webhook(secret).verify(body, headers)
            official.webhooks.verify_signature(body, headers, secret=secret)
    clock.move(101)
    assert len(sender._secrets(await _only_endpoint(sender))) == 1


async def _only_endpoint(sender: WebhookDispatcher) -> WebhookEndpoint:
    async with sender._database.reading() as session:
        return (await session.scalars(select(WebhookEndpoint))).one()


async def test_a_test_event_is_sent_once_and_can_be_sent_again(
    settings, database, operator, *, make_tenant, receiver, client
):
    await make_tenant("acme")
    made = await client.post(
        "/admin/tenants/acme/webhooks", json={"url": receiver.url}, headers=operator
    )
    own = f"/admin/tenants/acme/webhooks/{made.json()['details']['id']}"
    receiver.answers = [web.Response(status=500, text="a secret of the receiver's")]
    sent = await client.post(f"{own}/test", headers=operator)
    assert (sent.status_code, sent.json()["state"]) == (201, "pending")
    assert sent.json()["event"]["type"] == "webhook.test"

    async def state() -> str:
        [each] = (await client.get(f"{own}/deliveries", headers=operator)).json()
        return str(each["state"])

    async def failed() -> bool:
        return await state() == "failed"

    await until(failed)
    listed = await client.get(f"{own}/deliveries?limit=1", headers=operator)
    too_many = await client.get(f"{own}/deliveries?limit=101", headers=operator)
    assert too_many.status_code == 400
    assert listed.json()[0]["error"] == "HTTP 500"
    assert "secret of the receiver" not in listed.text
    again = f"{own}/deliveries/{sent.json()['id']}/redeliver"
    answer = await client.post(again, headers=operator)
    assert (answer.status_code, answer.json()["attempts"]) == (201, 0)

    async def delivered() -> bool:
        return await state() == "delivered"

    await until(delivered)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == [sent.json()["id"]] * 2
    missing = await client.post(f"{own}/deliveries/wh_0/redeliver", headers=operator)
    assert missing.status_code == 404


@sqlite_only
async def test_tests_that_wait_are_bounded(database, endpoint):
    made = await endpoint()
    async with database.transaction() as session:
        for _ in range(service.MAX_WAITING_TESTS):
            await service.send_test(session, made.id, slug="acme")
        with pytest.raises(TooMany):
            await service.send_test(session, made.id, slug="acme")


@sqlite_only
async def test_a_server_that_stops_while_it_sends_stops(
    settings, database, blobs, *, endpoint, emit, receiver
):
    receiver.hold.clear()
    made = await endpoint()
    await emit(made)
    async with running(create_app(settings, database=database, blobs=blobs)):
        await until(lambda: receiver.got)


# Secrets at rest


async def stored(database) -> list[WebhookEndpoint]:
    async with database.reading() as session:
        return list(await session.scalars(select(WebhookEndpoint).order_by("id")))


async def test_secrets_are_encrypted_in_the_rows_and_known_by_their_end(
    client, operator, make_tenant, *, database, vault, settings
):
    await make_tenant("acme")
    hooks = "/admin/tenants/acme/webhooks"
    made = await client.post(hooks, json={"url": "https://example.com/"}, headers=operator)
    own = f"{hooks}/{made.json()['details']['id']}"
    rotated = await client.post(f"{own}/rotate-secret", json={}, headers=operator)
    old, new = made.json()["secret"], rotated.json()["secret"]
    [row] = await stored(database)
    assert vault.unseal(row.secret) == new
    assert vault.unseal(row.previous_secret) == old
    for secret in (old, new):
        assert secret[6:] not in f"{row.secret} {row.previous_secret}"
        for path in settings.home.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    read = await client.get(own, headers=operator)
    assert read.json()["secret_hint"] == f"...{new[-4:]}"
    assert stat.S_IMODE((settings.home / "secrets.key").stat().st_mode) == 0o600


async def test_secrets_that_an_older_version_wrote_are_encrypted_when_the_next_one_starts(
    endpoint, database, settings, *, vault, emit, sender, receiver
):
    made = await endpoint()
    plain, before = "whsec_" + base64.b64encode(b"p" * 24).decode(), "whsec_" + "a" * 32
    async with database.transaction() as session:
        values = {"secret": plain, "previous_secret": before, "secret_hint": None}
        await session.execute(update(WebhookEndpoint).values(values))
    again = Vault(settings)
    await again.open(database)
    [row] = await stored(database)
    assert not row.secret.startswith("whsec_")
    assert not str(row.previous_secret).startswith("whsec_")
    assert (vault.unseal(row.secret), vault.unseal(row.previous_secret)) == (plain, before)
    assert service.view(row).secret_hint == f"...{plain[-4:]}"
    for path in settings.home.rglob("*"):
        assert not path.is_file() or plain.encode() not in path.read_bytes(), path
    await emit(made)
    await sender.send_due()
    [(headers, body)] = receiver.got
    Webhook(plain).verify(body, headers)


@sqlite_only
async def test_a_key_that_is_missing_is_not_replaced_while_secrets_need_it(
    endpoint, database, settings, vault
):
    key = settings.home / "secrets.key"
    made = await endpoint()
    was = key.read_bytes()
    key.unlink()
    with pytest.raises(SettingsError, match=r"secrets\.key is missing, and 1 secrets"):
        await Vault(settings).open(database)
    assert not key.exists()
    given = Vault(msgspec.structs.replace(settings, secrets_key=was.decode().strip()))
    await given.open(database)
    assert given.unseal(made.secret) == vault.unseal(made.secret)
    assert not key.exists()
    async with database.transaction() as session:
        await service.delete(session, made.id, slug="acme")
    await Vault(settings).open(database)
    assert key.read_bytes() != was, "nothing needs the lost one any more"


@sqlite_only
async def test_a_key_is_replaced_by_putting_a_new_one_first(endpoint, database, settings, vault):
    made = await endpoint()
    key = settings.home / "secrets.key"
    key.write_bytes(Fernet.generate_key() + b"\n" + key.read_bytes())
    both = Vault(settings)
    await both.open(database)
    assert both.unseal(made.secret) == vault.unseal(made.secret)
    fresh = both.seal("whsec_new")
    assert both.unseal(fresh) == "whsec_new"
    with pytest.raises(SecretUnreadable):
        vault.unseal(fresh)


@sqlite_only
async def test_a_machine_with_another_key_neither_sends_nor_adds_and_says_so(
    endpoint, database, settings, *, vault, emit, receiver, clock, rows
):
    made = await endpoint()
    foreign = Vault(msgspec.structs.replace(settings, secrets_key=Fernet.generate_key().decode()))
    await foreign.open(database)
    request = WebhookRequest(url=receiver.url)
    with pytest.raises(SecretUnreadable, match="TENANTUNE_SECRETS_KEY"):
        async with database.transaction() as session:
            await service.create(session, request, slug="acme", private=True, vault=foreign)
    await emit(made)
    await WebhookDispatcher(database, vault=foreign, private=True, clock=clock).send_due()
    [row] = await rows()
    assert (row.state, receiver.got) == ("pending", [])
    assert "cannot be decrypted" in row.error
    clock.move(RETRY_SECONDS[0] * 2)
    await WebhookDispatcher(database, vault=vault, private=True, clock=clock).send_due()
    [row] = await rows()
    assert row.state == "delivered"


@pytest.mark.parametrize("text", ["short", "x" * 44, "é" * 44])
@sqlite_only
async def test_what_is_no_key_is_refused_by_where_it_stands(database, settings, text):
    with pytest.raises(SettingsError, match="TENANTUNE_SECRETS_KEY"):
        await Vault(msgspec.structs.replace(settings, secrets_key=text)).open(database)


@sqlite_only
async def test_processes_that_start_together_share_the_key(database, settings):
    vaults = [Vault(settings) for _ in range(8)]
    await asyncio.gather(*(each.open(database) for each in vaults))
    assert {each.unseal(vaults[0].seal("whsec_x")) for each in vaults} == {"whsec_x"}
    assert not list(settings.home.glob(".secrets*"))


def test_the_key_is_taken_out_of_logs():
    assert redact({"secrets_key": "k"}) == {"secrets_key": "***"}
