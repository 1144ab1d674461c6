"""HEAD is answered wherever GET is."""

from httpx2 import AsyncClient

from server.api.upload import MAX_FORM_BYTES
from tests.server.serving import Serving, database_url, server

__all__ = ["database_url", "server"]


async def test_head_is_get_without_its_body(server: Serving) -> None:
    await server.tenant()
    key = await server.key("acme", "chat", "train")
    server.session.headers["authorization"] = f"Bearer {key}"
    client = server.openai(key)
    file = await client.files.create(file=("a.txt", b"x" * MAX_FORM_BYTES), purpose="user_data")
    for path in (
        "/v1/models",
        f"/v1/models/{server.settings.base}",
        "/v1/files",
        f"/v1/files/{file.id}",
        f"/v1/files/{file.id}/content",
        "/v1/fine_tuning/jobs",
        "/v1/chat/completions",
        "/admin/tenants/acme/imports",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/docs",
        "/openapi.json",
    ):
        async with server.session.get(server.url + path) as whole:
            body = await whole.read()
        async with server.session.head(server.url + path) as head:
            assert head.status == whole.status == 200, path
            assert await head.read() == b"", path
            assert head.headers["content-type"] == whole.headers["content-type"], path
            if path != "/metrics":  # which counts
                assert head.headers.get("content-length") == whole.headers.get("content-length")
            assert head.headers["x-request-id"]
        assert body, path


async def test_head_fails_as_get_does(server: Serving) -> None:
    for path, status in (("/v1/models", 401), ("/v1/nothing", 404), ("/v1/embeddings", 405)):
        async with server.session.head(server.url + path) as head:
            assert (head.status, await head.read()) == (status, b""), path


async def test_head_leaves_its_body_out_under_any_server(client: AsyncClient) -> None:
    answer = await client.head("/openapi.json")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000
