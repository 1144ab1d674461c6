"""Texts continued as they are, with the official client and others."""

import json
from typing import Any

import openai
import pytest
from sqlalchemy import select

from server.api.openai.completions.request import parse, to_texts
from server.db.models import UsageDay
from server.errors import Invalid
from tests.server.api.openai.published import conforms
from tests.server.api.openai.test_clients import events
from tests.server.serving import Serving, database_url, server

__all__ = ["database_url", "server"]
PATH = "/v1/completions"


async def test_the_official_client_continues_a_text(server: Serving) -> None:
    await server.tenant()
    await server.adapter(system_prompt="Never seen here.")
    client = server.openai(await server.key())
    answer = await client.completions.create(model="acme", prompt="Once upon a time")
    (choice,) = answer.choices
    assert choice.text.startswith("[acme.000000000001]")
    assert answer.id.startswith("cmpl-")
    assert answer.model == "acme"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4  # the text alone: no system prompt
    assert answer.usage.completion_tokens <= 16
    stream = await client.completions.create(
        model="acme",
        prompt="Once upon a time",
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.text for chunk in chunks for c in chunk.choices) == choice.text
    assert chunks[-1].usage == answer.usage
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": "one"}, 1),
        ({"prompt": ["one", "two"], "n": 2, "best_of": 2}, 4),
        ({"prompt": [5, 9, 12]}, 1),
        ({"prompt": [[5, 9], [12]]}, 2),
        ({"prompt": "one", "logprobs": 2, "max_tokens": 3, "stop": ["."], "seed": 3}, 1),
        ({"prompt": "one", "echo": True, "max_tokens": 0}, 1),
    ],
    ids=["text", "texts", "tokens", "lists", "logprobs", "echo"],
)
async def test_each_prompt_is_continued_and_answers_conform(
    server: Serving, fields: dict[str, Any], choices: int
) -> None:
    await server.tenant()
    key = await server.key()
    body = {"model": "acme", **fields}
    async with server.post(key, body, PATH) as response:
        assert response.status == 200
        whole = await response.json()
    conforms(whole, "CreateCompletionResponse")
    assert [choice["index"] for choice in whole["choices"]] == list(range(choices))
    async with server.post(key, {**body, "stream": True}, PATH) as response:
        *chunks, done = await events(response)
    assert done == "[DONE]"
    for choice in whole["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == [choice["finish_reason"]]
        if fields.get("echo"):
            assert choice["text"].startswith("one")
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    if fields.get("logprobs"):
        assert len(whole["choices"][0]["logprobs"]["tokens"]) == 3


async def test_what_texts_use_is_counted_like_chats(server: Serving) -> None:
    tenant = await server.tenant()
    client = server.openai(await server.key())
    answer = await client.completions.create(model="acme", prompt=["a b c", "d"], max_tokens=4)
    async with server.session.get(
        f"{server.url}/admin/tenants/acme/usage",
        headers={"authorization": f"Bearer {await server.key(None)}"},
    ) as response:
        assert response.status == 200
    async with server.database.reading() as session:
        row = await session.scalar(select(UsageDay).where(UsageDay.tenant_id == tenant.id))
    assert row is not None
    assert answer.usage is not None
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (1, 4, 8)
    assert answer.usage.total_tokens == 12


async def test_an_unknown_model_is_not_found(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    with pytest.raises(openai.NotFoundError) as refused:
        await client.completions.create(model="nobody", prompt="a")
    assert refused.value.code == "model_not_found"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [""]}, "prompt[0]"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": ["a"] * 33}, "prompt"),
    ({"prompt": ["a"] * 32, "n": 3}, "n"),
    ({"prompt": "x" * 1_000_001}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"n": 9}, "n"),
    ({"n": 2, "temperature": 0}, "n"),
    ({"best_of": 2}, "best_of"),
    ({"suffix": "The end."}, "suffix"),
    ({"logprobs": 6}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"seed": 1 << 70}, "seed"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"prompt_embeds": "x"}, "prompt_embeds"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"messages": []}, "messages"),
]


@pytest.mark.parametrize(
    ("fields", "param"), WRONG, ids=[f"{place}-{param}" for place, (_, param) in enumerate(WRONG)]
)
def test_a_value_out_of_bounds_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    good = {"model": "acme", "prompt": "hi"}
    with pytest.raises(Invalid) as refused:
        to_texts(parse(json.dumps(good | fields).encode()))
    assert refused.value.param == param


def test_sixteen_tokens_are_generated_unless_asked_otherwise() -> None:
    asked = to_texts(parse(b'{"model": "acme", "prompt": "hi", "max_tokens": null}'))
    assert asked.sampling.max_tokens == 16
