"""Limits and the line before the engine, as clients meet them."""

import asyncio
import contextlib
import json
import re
from typing import Any

import openai
import pytest

from server.auth import keys
from server.auth.schemas import KeyRequest
from server.db.session import Database
from server.settings import Limits, Settings
from server.tenants import service as tenants
from tests.server.serving import QUESTION, Serving, database_url, server, serving, until

__all__ = ["database_url", "server"]

TIME = r"(?:\d+h)?(?:\d+m)?(?:\d+(?:\.\d{1,3})?s|\d+ms)"
HOUR = Limits(requests_per_day=2, tokens_per_minute=5000)


def limits_of(headers: Any) -> dict[str, str]:
    """The limits in an answer's headers, without the times, which are looked at here."""
    found = {name: value for name, value in headers.items() if name.startswith("x-ratelimit-")}
    for name in [name for name in found if "-reset-" in name]:
        assert re.fullmatch(TIME, found.pop(name)), name
    return found


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny-base", "messages": [QUESTION], "max_tokens": 50, **fields}


async def limited_key(server: Serving, limits: Limits, slug: str = "acme") -> str:
    async with server.database.transaction() as session:
        tenant = await tenants.get(session, slug)
        raw, _ = await keys.create(session, KeyRequest(limits=limits), tenant=tenant)
    return raw


async def test_answers_say_what_is_left(server: Serving) -> None:
    await server.tenant(limits=HOUR)
    key = await limited_key(server, Limits(requests_per_minute=10))
    async with server.post(key, body()) as response:
        answer = await response.json()
        assert response.status == 200
        # the engine's count has taken the place of what was reserved by now
        assert limits_of(response.headers) == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-limit-tokens": "5000",
            "x-ratelimit-remaining-tokens": str(5000 - answer["usage"]["total_tokens"]),
        }
    async with server.post(key, body(stream=True)) as response:
        assert limits_of(response.headers) == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-limit-tokens": "5000",
            "x-ratelimit-remaining-tokens": str(
                5000 - answer["usage"]["total_tokens"] - 50 - len(str(QUESTION["content"])) // 4
            ),
        }
        await response.read()
    async with server.post(key, body()) as response:
        error = (await response.json())["error"]
        assert response.status == 429
        assert limits_of(response.headers)["x-ratelimit-remaining-requests"] == "0"
        assert 0 < int(response.headers["retry-after"]) <= 86_400
        wait_ms = int(response.headers["retry-after-ms"])
        assert 0 <= 1000 * int(response.headers["retry-after"]) - wait_ms < 1000
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("rate_limit_error", None)
        assert error["code"] == "rate_limit_exceeded"
        assert re.fullmatch(
            r"Rate limit reached for tenant 'acme' on requests per day \(RPD\): Limit 2, Used 2, "
            rf"Requested 1\. Please try again in {TIME}\.",
            error["message"],
        )


async def test_answers_of_others_and_of_other_places_say_nothing(server: Serving) -> None:
    await server.tenant(limits=HOUR)
    await server.tenant("other")
    key = await server.key()
    async with server.post(await server.key("other"), body()) as response:
        assert limits_of(response.headers) == {}
    async with server.session.get(
        server.url + "/v1/models", headers={"authorization": f"Bearer {key}"}
    ) as response:
        assert limits_of(response.headers) == {}


async def test_the_official_client_raises_and_does_not_repeat_what_is_too_large(
    server: Serving,
) -> None:
    await server.tenant(limits=Limits(tokens_per_minute=20, requests_per_minute=50))
    client = server.openai(await server.key()).with_options(max_retries=2)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(model="tiny-base", messages=[QUESTION], max_tokens=60)
    assert refused.value.code == "rate_limit_exceeded"
    assert "Request too large" in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.value.response.headers
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "50"


async def test_requests_in_flight_are_limited_and_counted_down(
    settings: Settings, database: Database
) -> None:
    async with serving(settings, database, tokens_per_second=10) as server:
        await server.tenant(limits=Limits(concurrent_streams=1))
        key = await server.key()
        async with server.post(key, body(stream=True)) as response:
            await response.content.readany()
            status, error = await server.refusal(key, model="tiny-base")
            assert (status, error["code"]) == (429, "rate_limit_exceeded")
        await until(server.is_idle)
        async with server.post(key, body(stream=True)) as response:
            assert response.status == 200


async def test_a_request_that_cannot_be_understood_is_not_counted(server: Serving) -> None:
    await server.tenant(limits=Limits(requests_per_minute=1))
    key = await server.key()
    for _ in range(3):
        status, _ = await server.refusal(key, model="tiny-base", messages=[])
        assert status == 400
    async with server.post(key, body()) as response:
        assert response.status == 200


async def test_changed_limits_hold_at_once(server: Serving) -> None:
    await server.tenant(limits=Limits(requests_per_minute=1))
    key, operator = await server.key(), await server.key(None)
    async with server.post(key, body()) as response:
        assert response.status == 200
    assert (await server.refusal(key, model="tiny-base"))[0] == 429
    async with server.session.patch(
        f"{server.url}/admin/tenants/acme",
        json={"limits": {"requests_per_minute": 100}},
        headers={"authorization": f"Bearer {operator}"},
    ) as response:
        assert response.status == 200
        assert (await response.json())["limits"] == {"requests_per_minute": 100}
    async with server.post(key, body()) as response:
        assert response.status == 200
        assert limits_of(response.headers)["x-ratelimit-remaining-requests"] == "98"


async def test_a_tenant_does_not_change_its_own_limits(server: Serving) -> None:
    await server.tenant(limits=Limits(requests_per_minute=1))
    headers = {"authorization": f"Bearer {await server.key('acme', 'admin')}"}
    for limits in ({}, None, {"requests_per_minute": 9}):
        async with server.session.patch(
            f"{server.url}/admin/tenants/acme", json={"limits": limits}, headers=headers
        ) as response:
            assert response.status == 403
    async with server.session.post(
        f"{server.url}/admin/tenants/acme/keys",
        json={"limits": {"tokens_per_day": 5}},
        headers=headers,
    ) as response:
        assert response.status == 201
        assert (await response.json())["details"]["limits"] == {"tokens_per_day": 5}


# --- the line before the engine ---


async def waiting(server: Serving) -> int:
    """Requests in line, as the metrics say."""
    async with server.session.get(server.url + "/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith("tenantune_queue_waiting "):
                return int(float(line.partition(" ")[2]))
    raise AssertionError("the metrics do not say how many requests wait")


async def read(server: Serving, key: str, **fields: Any) -> tuple[int, Any, str]:
    async with server.post(key, body(**fields)) as response:
        return response.status, response.headers, await response.text()


async def test_a_greedy_tenant_does_not_keep_a_quiet_one_waiting(
    settings: Settings, database: Database
) -> None:
    async with (
        serving(settings, database, tokens_per_second=20, max_num_seqs=5) as server,
        asyncio.TaskGroup() as group,
    ):
        for slug in ("greedy", "quiet"):
            await server.tenant(slug)
        greedy, quiet = await server.key("greedy"), await server.key("quiet")
        many = [group.create_task(read(server, greedy, stream=True)) for _ in range(12)]
        await until(lambda: _is(waiting(server), 8))
        assert server.engine.requests == 4
        status, _, text = await read(server, quiet, stream=True)
        assert status == 200
        assert text.endswith("data: [DONE]\n\n")
        assert await waiting(server) >= 4  # of the greedy one's, who were there before
        for task in many:
            task.cancel()


async def test_a_client_that_goes_leaves_the_line_and_its_place(
    settings: Settings, database: Database
) -> None:
    async with (
        serving(settings, database, tokens_per_second=10, max_num_seqs=2) as server,
        asyncio.TaskGroup() as group,
    ):
        await server.tenant()
        key = await server.key()
        asked = [group.create_task(read(server, key, stream=n % 2 == 0)) for n in range(6)]
        await until(lambda: server.engine.requests == 2)
        await until(lambda: _is(waiting(server), 4))
        for task in asked:
            task.cancel()
        await until(server.is_idle)
        await until(lambda: _is(waiting(server), 0))
        assert server.engine.requests == 0
        assert (await read(server, key))[0] == 200


async def _is(number: Any, expected: int) -> bool:
    found: int = await number
    return found == expected


@pytest.mark.parametrize(
    ("bounds", "status", "code"),
    [
        ({"queue_per_tenant": 1}, 429, "tenant_queue_full"),
        ({"queue_total": 1}, 503, "engine_overloaded"),
        ({"queue_seconds": 0.05}, 503, "engine_overloaded"),
    ],
)
async def test_the_line_has_an_end(
    settings: Settings, database: Database, bounds: dict[str, Any], status: int, code: str
) -> None:
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    settings = Settings(**{**values, **bounds})
    async with (
        serving(settings, database, tokens_per_second=10, max_num_seqs=1) as server,
        asyncio.TaskGroup() as group,
    ):
        await server.tenant(limits=Limits(requests_per_minute=100))
        key = await server.key()
        asked = [group.create_task(read(server, key, stream=n % 2 == 0)) for n in range(3)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        found, headers, text = done.pop().result()
        error = json.loads(text)["error"]
        assert (found, error["code"]) == (status, code)
        assert int(headers["retry-after"]) >= 1
        assert "x-ratelimit-remaining-requests" in headers
        for task in asked:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
