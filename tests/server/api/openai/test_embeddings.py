"""``/v1/embeddings``, asked by the official client and by LangChain over a server that runs."""

import base64
from array import array
from math import fsum
from typing import Any

import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from sqlalchemy import select

from server.db.models import UsageDay
from tests.server.api.openai.published import conforms
from tests.server.serving import Serving, database_url, server, until

__all__ = ["database_url", "server"]

MODEL = "all-minilm-l6-v2"


async def post(server: Serving, key: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": MODEL, "input": "Where is my parcel?", **fields}
    async with server.post(key, body, "/v1/embeddings") as response:
        return response.status, await response.json()


async def test_the_official_client_gets_the_same_numbers_in_base64_and_as_numbers(
    server: Serving,
) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    texts = ["Where is my parcel?", "Hello", "Hello"]
    short = await client.embeddings.create(model=MODEL, input=texts)  # asks for base64 by itself
    plain = await client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert [row.index for row in short.data] == [0, 1, 2]
    for one, other in zip(short.data, plain.data, strict=True):
        assert len(one.embedding) == 384
        assert array("f", one.embedding) == array("f", other.embedding)
        assert fsum(value * value for value in one.embedding) == pytest.approx(1, abs=1e-5)
    assert plain.data[1].embedding == plain.data[2].embedding != plain.data[0].embedding
    assert short.usage == plain.usage
    assert short.usage.prompt_tokens == short.usage.total_tokens > 3
    assert short.model == MODEL


async def test_answers_conform_to_the_published_schema(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for fields in ({}, {"input": ["a", "b"]}, {"dimensions": 2}, {"user": "somebody"}):
        status, answer = await post(server, key, **fields)
        assert status == 200
        conforms(answer, "CreateEmbeddingResponse")
        for row in answer["data"]:
            conforms(row, "Embedding")


async def test_fewer_dimensions_are_as_many_as_were_asked_for(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for encoding in ("float", "base64"):
        _, answer = await post(server, key, dimensions=7, encoding_format=encoding)
        vector = answer["data"][0]["embedding"]
        if encoding == "base64":
            data = base64.b64decode(vector)
            assert len(data) == 7 * 4
            vector = array("f", data).tolist()
        assert len(vector) == 7
        assert fsum(value * value for value in vector) == pytest.approx(1, abs=1e-5)


async def test_a_full_request_comes_back_in_order(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    status, answer = await post(server, key, input=[f"{n % 7}" for n in range(2048)])
    assert status == 200
    rows = answer["data"]
    assert [row["index"] for row in rows] == list(range(2048))
    assert all(rows[n]["embedding"] == rows[n % 7]["embedding"] for n in range(2048))


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "input", "invalid_value"),
    ({"input": ["a", ""]}, "input[1]", "invalid_value"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": None}, "input", "invalid_type"),
    ({"input": ["a"] * 2049}, "input", "invalid_value"),
    ({"input": [1, 2, 3]}, "input", "unsupported_value"),
    ({"input": [[1, 2], [3]]}, "input", "unsupported_value"),
    ({"input": "a " * 300}, "input", "context_length_exceeded"),
    ({"input": "a" * 40_000}, "input", "context_length_exceeded"),
    ({"dimensions": 0}, "dimensions", "invalid_value"),
    ({"dimensions": 385}, "dimensions", "invalid_value"),
    ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
    ({"prompt_name": "query"}, "prompt_name", "unknown_parameter"),
    ({"model": None}, "model", "invalid_type"),
]


async def test_what_cannot_be_embedded_is_refused_by_name(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for fields, param, code in REFUSED:
        status, answer = await post(server, key, **fields)
        error = answer["error"]
        assert (status, error["param"], error["code"]) == (400, param, code), answer
        assert set(error) == {"message", "type", "param", "code"}


async def test_other_models_do_not_embed(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    for model in ("acme", "text-embedding-3-small"):
        with pytest.raises(openai.NotFoundError) as refused:
            await client.embeddings.create(model=model, input="Hello")
        assert refused.value.code == "model_not_found"
    with pytest.raises(openai.PermissionDeniedError):
        await server.openai(await server.key("acme", "train")).embeddings.create(
            model=MODEL, input="Hello"
        )


async def test_tokens_are_counted_for_the_tenant(server: Serving) -> None:
    tenant = await server.tenant()
    key = await server.key()
    _, answer = await post(server, key)
    await post(server, key, input="")  # never came to the model
    await post(server, key, input="a " * 300)

    async def counted() -> bool:
        async with server.database.reading() as session:
            row = await session.scalar(select(UsageDay).where(UsageDay.tenant_id == tenant.id))
        return row is not None and (row.model, row.requests, row.errors, row.prompt_tokens) == (
            MODEL,
            2,
            1,
            answer["usage"]["prompt_tokens"],
        )

    await until(counted)


async def test_limits_hold_for_embeddings(server: Serving) -> None:
    tenant = await server.tenant(limits={"tokens_per_minute": 100})
    key = await server.key()
    status, answer = await post(server, key, input=["Hello"] * 50)
    assert status == 429
    assert answer["error"]["code"] == "rate_limit_exceeded"
    async with server.post(key, {"model": MODEL, "input": "Hi"}, "/v1/embeddings") as response:
        assert response.status == 200
        assert response.headers["x-ratelimit-limit-tokens"] == "100"
        assert response.headers["x-ratelimit-remaining-tokens"] == "97"

    async def counted() -> bool:
        async with server.database.reading() as session:
            row = await session.scalar(select(UsageDay).where(UsageDay.tenant_id == tenant.id))
        return row is not None and (row.requests, row.refused) == (1, 1)

    await until(counted)


async def test_langchain_embeds_once_it_sends_text(server: Serving) -> None:
    await server.tenant()
    settings: dict[str, Any] = {
        "model": MODEL,
        "base_url": f"{server.url}/v1",
        "api_key": await server.key(),
        "max_retries": 0,
    }
    by_text = OpenAIEmbeddings(**settings, check_embedding_ctx_length=False)
    try:
        vectors = await by_text.aembed_documents(["Where is my parcel?", "Hello"])
    finally:
        await by_text.async_client._client.close()
    assert [len(vector) for vector in vectors] == [384, 384]
    status, answer = await post(server, settings["api_key"], input=[[9906, 1917]])
    assert status == 400
    assert "check_embedding_ctx_length=False" in answer["error"]["message"]
