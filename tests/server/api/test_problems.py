"""Every error has one of two shapes, a real status, a request id, and leaks nothing."""

import errno
from typing import Any, cast

import msgspec
import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from litestar import Litestar, get, post
from litestar.exceptions import ClientException, PermissionDeniedException
from litestar.params import FromPath, JSONBody
from openai import AsyncOpenAI
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from server import errors
from server.api.problems import STATUS, add_headers, exception_handlers
from server.storage.blobs import BlobError


class Body(msgspec.Struct):
    number: int


CASES: dict[str, tuple[Exception, int, str | None]] = {
    "invalid": (errors.Invalid("bad", param="x"), 400, "invalid_value"),
    "unauthenticated": (errors.Unauthenticated("who"), 401, "invalid_api_key"),
    "forbidden": (errors.Forbidden("no"), 403, "insufficient_permissions"),
    "notfound": (errors.NotFound("none"), 404, "not_found"),
    "model": (errors.ModelNotFound("gpt"), 404, "model_not_found"),
    "conflict": (errors.Conflict("late"), 409, "conflict"),
    "full": (errors.StorageFull(), 507, "disk_full"),
    "nospace": (OSError(errno.ENOSPC, "No space left on device", "/secret"), 507, "disk_full"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), 507, "disk_full"),
    "nofiles": (OSError(errno.EMFILE, "Too many open files"), 503, "too_many_open_files"),
    "nofilesatall": (OSError(errno.ENFILE, "Too many open files"), 503, "too_many_open_files"),
    "badsector": (OSError(errno.EIO, "Input/output error"), 503, "storage_unavailable"),
    "blobs": (BlobError("gone"), 503, "storage_unavailable"),
    "large": (errors.TooLarge("big", limit_bytes=1), 413, "too_large"),
    "many": (errors.TooMany("slow", retry_after_seconds=0.2), 429, "rate_limit_exceeded"),
    "engine": (
        errors.EngineUnavailable("gone", retry_after_seconds=4.2),
        503,
        "engine_unavailable",
    ),
    "busy": (errors.EngineBusy("full"), 503, "engine_overloaded"),
    "rejected": (errors.EngineRejected("long", status=400, code="c"), 400, "c"),
    "crashed": (errors.EngineRejected("boom", status=500), 502, None),
    "engineconflict": (errors.EngineRejected("twice", status=409, code="c"), 409, "c"),
    "broken": (errors.StreamBroken("cut"), 502, "stream_broken"),
    "refused": (errors.AdapterRefused("nan"), 502, "adapter_refused"),
    "database": (OperationalError("SELECT secret", {}, Exception()), 503, "database_unavailable"),
    "bug": (RuntimeError("secret"), 500, "internal_error"),
    "client": (ClientException("odd"), 400, "invalid_request"),
    "denied": (PermissionDeniedException("odd"), 403, "invalid_request"),
}


@pytest.fixture
async def client():
    async def fail(name: FromPath[str]) -> None:
        raise CASES[name][0]

    async def take(data: JSONBody[Body]) -> dict[str, int]:
        return {"number": data.number}

    handlers = [
        *(get(f"{start}/fail/{{name:str}}")(fail) for start in ("", "/v1")),
        *(post(f"{start}/take")(take) for start in ("", "/v1")),
    ]
    app = Litestar(
        handlers,
        exception_handlers=exception_handlers,
        before_send=[add_headers],
        request_max_body_size=100,
        openapi_config=None,
        logging_config=None,
    )
    transport = ASGITransport(app=cast("Any", app), raise_app_exceptions=False)
    # the development renderer takes seconds over a traceback
    with capture_logs():
        async with AsyncClient(transport=transport, base_url="http://test") as made:
            yield made


def check_problem(answer: Response) -> dict[str, Any]:
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "param", "request_id"}
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def check_openai(answer: Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str | None)
    assert answer.headers["x-request-id"]
    return error


@pytest.mark.parametrize("name", CASES)
async def test_an_error_is_told_in_the_shape_of_its_half_of_the_site(client, name):
    _, status, code = CASES[name]
    problem = await client.get(f"/fail/{name}")
    openai = await client.get(f"/v1/fail/{name}")
    assert problem.status_code == openai.status_code == status
    assert check_problem(problem)["code"] == check_openai(openai)["code"] == code
    assert "secret" not in problem.text + openai.text


async def test_headers_tell_clients_what_to_do_next(client):
    headers = {name: (await client.get(f"/v1/fail/{name}")).headers for name in CASES}
    assert headers["engine"]["retry-after"] == "5"
    assert headers["many"]["retry-after"] == "1"
    assert headers["database"]["retry-after"] == "2"
    assert headers["conflict"]["x-should-retry"] == "false"
    assert headers["full"]["x-should-retry"] == "false"
    assert headers["unauthenticated"]["www-authenticate"] == "Bearer"


async def test_what_will_fail_again_is_not_repeated_by_openais_client(client):
    """The client's own rule: 408, 409, 429 and 5xx, unless the header says something else."""
    waiting = {
        "many",
        "engine",
        "busy",
        "database",
        "nofiles",
        "nofilesatall",
        "badsector",
        "blobs",
    }
    broken = {"crashed", "broken", "refused", "bug"}  # who knows
    async with AsyncOpenAI(api_key="x", base_url="http://test/v1") as openai:
        for name in CASES:
            answer = await client.get(f"/v1/fail/{name}")
            assert openai._should_retry(answer) == (name in waiting | broken), name


@pytest.mark.parametrize(("start", "check"), [("", check_problem), ("/v1", check_openai)])
async def test_routing_and_bodies_fail_in_the_same_shapes(client, start, check):
    nowhere = await client.get(f"{start}/nowhere")
    assert (nowhere.status_code, check(nowhere)["code"]) == (404, "not_found")
    method = await client.get(f"{start}/take")
    assert (method.status_code, check(method)["code"]) == (405, "method_not_allowed")
    assert "POST" in method.headers["allow"]
    doubled = await client.get(f"http://test/{start}/nowhere")
    assert (doubled.status_code, check(doubled)["code"]) == (404, "not_found")
    large = await client.post(f"{start}/take", content=b"x" * 200)
    assert (large.status_code, check(large)["code"]) == (413, "too_large")
    wrong = await client.post(f"{start}/take", json={"number": "x"})
    assert (wrong.status_code, check(wrong)["param"]) == (400, "number")
    for content in (b"{", b"", b"[]", b"\xff"):
        broken = await client.post(f"{start}/take", content=content)
        assert broken.status_code == 400
        check(broken)


async def test_a_sane_request_id_is_kept_and_any_other_replaced(client):
    async def sent(value: str) -> str:
        answer = await client.get("/nowhere", headers={"x-request-id": value.encode("latin-1")})
        found: str = answer.headers["x-request-id"]
        return found

    assert await sent("my-request.0001") == "my-request.0001"
    made = set()
    for value in ("", "short", "has blank inside", "x" * 200, "new\\nline-in-it", "emoji-é-id-0"):
        made.add(await sent(value))
    assert len(made) == 6
    assert all(value.startswith("req_") for value in made)


def test_every_error_of_the_tree_has_a_status():
    def walk(kind: type[errors.ServerError]) -> list[type[errors.ServerError]]:
        found = [kind]
        for child in kind.__subclasses__():
            found += walk(child)
        return found

    own = {kind for kind in walk(errors.ServerError) if kind.__module__ == "server.errors"}
    special = {errors.ServerError, errors.EngineRejected}
    unmapped = {kind for kind in own - special if not set(kind.__mro__) & set(STATUS)}
    assert unmapped == set()
