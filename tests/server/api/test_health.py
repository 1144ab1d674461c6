"""Whether the server says how it is, and to whom."""

from typing import Any, cast

import pytest
from httpx2 import ASGITransport, AsyncClient
from litestar import Litestar
from litestar.testing import AsyncTestClient

from server.db.session import Database
from server.settings import Settings
from tests.server.conftest import running
from tests.server.serving import QUESTION, Serving, database_url, server, serving, until

__all__ = ["database_url", "server"]


async def fetch(server: Serving, path: str, key: str | None = None) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with server.session.get(server.url + path, headers=headers) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, await response.text()


async def test_a_server_whose_engine_is_ready_is_ready(server: Serving) -> None:
    assert await fetch(server, "/health/live") == (200, {"status": "alive"})
    status, answer = await fetch(server, "/health/ready")
    assert (status, answer["status"]) == (200, "ready")


async def test_a_server_whose_engine_starts_is_alive_and_says_what_is_missing(
    settings: Settings, database: Database
) -> None:
    async with serving(settings, database, start_seconds=30, wait=False) as server:
        assert (await fetch(server, "/health/live"))[0] == 200
        status, answer = await fetch(server, "/health/ready")
    assert (status, answer["status"]) == (503, "not_ready")
    assert answer["checks"]["database"]["ok"]
    assert answer["checks"]["engine"]["state"] == "starting"


async def test_a_server_without_an_engine_is_not_ready(client: AsyncTestClient[Any]) -> None:
    answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["engine"]["state"] == "absent"


async def test_a_database_that_is_gone_makes_the_server_not_ready(
    client: AsyncTestClient[Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Any:
        raise OSError("gone")

    monkeypatch.setattr(database, "reading", gone)
    answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == {
        "ok": False,
        "state": "unavailable",
        "reason": "OSError",
    }


async def test_figures_have_the_type_that_the_document_names(client: AsyncTestClient[Any]) -> None:
    answer = await client.get("/metrics")
    assert answer.headers.get_list("content-type") == ["text/plain; version=1.0.0; charset=utf-8"]
    document = (await client.get("/openapi.json")).json()
    assert list(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == [
        "text/plain"
    ]


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("192.168.0.7", True),
        ("::ffff:192.168.0.7", True),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("172.32.0.1", False),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2001:db8::1", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("example.com", False),
        ("", False),
    ],
)
async def test_figures_are_the_operators_and_the_own_networks(
    app: Litestar,
    make_tenant: Any,
    make_key: Any,
    operator: dict[str, str],
    *,
    address: str,
    near: bool,
) -> None:
    await make_tenant("acme")
    tenants_key = await make_key("acme", "admin")
    transport = ASGITransport(app=cast("Any", app), client=(address, 1234))
    async with running(app), AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/metrics")).status_code == (200 if near else 401)
        assert (await client.head("/metrics")).status_code == (200 if near else 401)
        asked = await client.get("/metrics", headers=tenants_key)
        assert asked.status_code == (200 if near else 403)
        assert (await client.get("/metrics", headers=operator)).status_code == 200
        assert (await client.get("/health/live")).status_code == 200


async def test_a_proxy_on_this_machine_does_not_open_the_figures_to_the_world(
    server: Serving,
) -> None:
    for client, status in (("8.8.8.8", 401), ("10.0.0.1", 200), ("10.0.0.1, 8.8.8.8", 401)):
        headers = {"x-forwarded-for": client}
        async with server.session.get(f"{server.url}/metrics", headers=headers) as answer:
            assert answer.status == status, client


async def test_figures_tell_of_chats_and_the_engine_and_of_no_tenant(server: Serving) -> None:
    await server.tenant("acme-secret")
    await server.adapter("acme-secret")
    key = await server.key("acme-secret")
    body = {"model": "acme-secret", "messages": [QUESTION], "stream": True}
    async with server.post(key, body) as response:
        await response.read()
    await fetch(server, "/acme-secret/nowhere")
    _, text = await fetch(server, "/metrics")
    for line in (
        'tenantune_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0',
        'tenantune_http_requests_total{method="GET",route="unknown",status="404"} 1.0',
        'tenantune_chats_total{model="adapter",outcome="answered"} 1.0',
        'tenantune_chat_first_token_seconds_count{model="adapter"} 1.0',
        'tenantune_chats_in_flight{mode="stream"} 0.0',
        'tenantune_engine_state{state="ready"} 1.0',
        "tenantune_engine_restarts_total 0.0",
        "tenantune_adapters_loaded 1.0",
    ):
        assert line in text.splitlines(), line
    assert "acme-secret" not in text
    assert key not in text


async def test_a_restarted_engine_is_counted(server: Serving) -> None:
    server.kill_engine()
    await until(lambda: server.engine.status.restarts == 1, 20)
    await server.engine.wait_ready(20)
    _, text = await fetch(server, "/metrics")
    assert "tenantune_engine_restarts_total 1.0" in text.splitlines()


async def test_a_tenant_reads_what_it_used_and_nobody_elses(server: Serving) -> None:
    await server.tenant("acme")
    await server.adapter("acme")
    await server.tenant("other")
    chat, admin = await server.key("acme"), await server.key("acme", "admin")
    for stream in (False, True):
        body = {"model": "acme", "messages": [QUESTION], "stream": stream}
        async with server.post(chat, body) as response:
            await response.read()
    status, [row] = await fetch(server, "/admin/tenants/acme/usage", admin)
    assert status == 200
    assert (row["model"], row["requests"], row["errors"]) == ("acme@1", 2, 0)
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] > 0
    tomorrow = "/admin/tenants/acme/usage?first=2999-01-01"
    assert await fetch(server, tomorrow, admin) == (200, [])
    assert (await fetch(server, "/admin/tenants/acme/usage", chat))[0] == 403
    assert (await fetch(server, "/admin/tenants/other/usage", admin))[0] == 404


async def test_a_server_that_stops_is_not_ready(server: Serving) -> None:
    await server.engine.stop(grace_seconds=0)
    async with server.session.get(f"{server.url}/health/ready") as response:
        assert response.status == 503
        checks = (await response.json())["checks"]
    assert checks["engine"]["state"] == "stopping"
