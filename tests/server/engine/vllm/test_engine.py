"""A real vLLM with our plugin: who answers, what is refused, what is forgotten."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from server.engine.adapter_cache import AdapterRef
from tests.server.engine.vllm.vllm_process import RunningEngine, make_adapter

pytestmark = [pytest.mark.heavy, pytest.mark.vllm, pytest.mark.timeout(300)]

QUESTIONS = [
    "Where is my parcel?",
    "Can I change the delivery address?",
    "How do I reset my password?",
    "What are your opening hours?",
    "I want a refund, please.",
    "Do you ship to Norway?",
    "My order arrived broken. What now?",
    "Please cancel my subscription.",
]
FORCED_TOKENS = 8
# bfloat16 rounds differently in batches of different sizes: by 0.04 nats on average for the base, by
# 0.2 to 0.8 under adapters of random weights. Another model's answer is 4 to 9 nats away.
BASE_ROUNDING_NATS = 0.15


class Client:
    """Asks the engine over its socket, as the server does."""

    def __init__(self, session: Any, base: str) -> None:
        self._session = session
        self.base = base

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        async with self._session.post(f"http://engine{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        async with self._session.get(f"http://engine{path}") as answer:
            assert answer.status == 200
            return await answer.json()

    async def ensure(self, adapter: AdapterRef, **changed: str) -> tuple[int, Any]:
        body = {"name": adapter.name, "path": adapter.path, **changed}
        return await self.post("/tenantune/adapters/ensure", body)

    async def drop(self, name: str) -> tuple[int, Any]:
        return await self.post("/tenantune/adapters/drop", {"name": name})

    async def drop_all(self) -> None:
        for name in await self.loaded():
            await self.drop(name)

    async def loaded(self) -> list[str]:
        names: list[str] = (await self.get("/tenantune/adapters"))["adapters"]
        return names

    async def ask(self, model: str, question: str, tokens: int = 20) -> tuple[int, Any]:
        system = {"role": "system", "content": "You are a helpful support assistant."}
        messages = [system, {"role": "user", "content": question}]
        body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        return await self.post("/v1/chat/completions", body)

    async def say(self, model: str, question: str) -> str:
        status, answer = await self.ask(model, question)
        assert status == 200, answer
        text: str = answer["choices"][0]["message"]["content"]
        return text

    async def opinion(self, model: str, question: str) -> list[float]:
        """Log-probabilities that a model gives a fixed answer, while it is made to say it.

        Sampling is forced to one token, so rounding cannot lead two runs apart, and each number
        after the first comes from a decoding step.
        """
        body = {
            "model": model,
            "prompt": f"Customer: {question}\nAgent: I",
            "max_tokens": FORCED_TOKENS,
            "temperature": 0,
            "logprobs": 1,
            "allowed_token_ids": [314 + 1000 * QUESTIONS.index(question)],
            "ignore_eos": True,
        }
        status, answer = await self.post("/v1/completions", body)
        assert status == 200, answer
        numbers: list[float] = answer["choices"][0]["logprobs"]["token_logprobs"]
        return numbers


@pytest_asyncio.fixture
async def client(vllm_engine: RunningEngine) -> AsyncIterator[Client]:
    async with vllm_engine.process.session() as session:
        client = Client(session, vllm_engine.base)
        await client.drop_all()
        yield client
        await client.drop_all()


def apart(ones: Sequence[list[float]], others: Sequence[list[float]]) -> float:
    """Mean difference, in nats a token."""
    pairs = [
        (a, b)
        for one, other in zip(ones, others, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


async def test_base_and_adapters_in_one_batch_answer_as_alone(client, vllm_engine):
    """With all slots taken, vLLM's own CPU kernels answer the base with the last slot's adapter."""
    for adapter in vllm_engine.adapters:
        assert (await client.ensure(adapter))[0] == 200
    models = [client.base, *(a.name for a in vllm_engine.adapters), client.base]
    asked = [(models[n % 4], QUESTIONS[n // 4]) for n in range(16)]
    alone = [await client.opinion(*one) for one in asked]
    together = await asyncio.gather(*(client.opinion(*one) for one in asked))

    for n, model in enumerate(models):
        off = apart(together[n::4], alone[n::4])
        others = [apart(alone[n::4], alone[m::4]) for m in range(4) if models[m] != model]
        assert off < min(others) / 2, f"{model} answers as another model"
        assert model != client.base or off < BASE_ROUNDING_NATS


async def test_more_adapters_than_slots_are_all_served_at_once(client, vllm_engine):
    root = vllm_engine.home / "adapters"
    more = [
        make_adapter(vllm_engine.base_files, root, f"extra-{n}", rank=8, seed=10 + n)
        for n in range(2)
    ]
    names = [a.name for a in (*vllm_engine.adapters, *more)]
    for adapter in (*vllm_engine.adapters, *more):
        assert (await client.ensure(adapter))[0] == 200
    asked = [(name, q) for q in QUESTIONS[:3] for name in names]
    alone = [await client.opinion(*one) for one in asked]
    together = await asyncio.gather(*(client.opinion(*one) for one in asked))
    for n, name in enumerate(names):
        off = apart(together[n::4], alone[n::4])
        others = [apart(alone[n::4], alone[m::4]) for m in range(4) if m != n]
        assert off < min(others) / 2, f"{name} answers as another model"


async def test_ensure_is_idempotent_and_single_flight(client, vllm_engine):
    adapter = vllm_engine.adapters[0]
    answers = await asyncio.gather(*(client.ensure(adapter) for _ in range(6)))
    assert {status for status, _ in answers} == {200}
    assert {body["name"] for _, body in answers} == {adapter.name}
    assert await client.loaded() == [adapter.name]


async def test_dropped_adapter_is_forgotten_until_ensured_again(client, vllm_engine):
    adapter = vllm_engine.adapters[0]
    await client.ensure(adapter)
    before = await client.say(adapter.name, QUESTIONS[0])
    assert await client.drop(adapter.name) == (200, {"name": adapter.name, "dropped": True})
    assert await client.drop(adapter.name) == (200, {"name": adapter.name, "dropped": False})
    assert (await client.ask(adapter.name, QUESTIONS[0]))[0] == 404
    await client.ensure(adapter)
    assert await client.say(adapter.name, QUESTIONS[0]) == before


async def test_published_adapter_is_found_by_name(client, vllm_engine):
    """After a restart the server's list is empty, and so is the engine's."""
    adapter = make_adapter(
        vllm_engine.base_files, vllm_engine.home / "adapters", "found", rank=8, seed=5
    )
    assert await client.say(adapter.name, QUESTIONS[0])
    assert await client.loaded() == [adapter.name]


async def test_name_loaded_from_another_folder_conflicts(client, vllm_engine, tmp_path):
    adapter = vllm_engine.adapters[0]
    await client.ensure(adapter)
    copy = tmp_path / adapter.name
    shutil.copytree(adapter.path, copy)
    status, body = await client.ensure(adapter, path=str(copy))
    assert (status, body["error"]["code"]) == (409, "name_in_use")


async def test_missing_folder_is_not_found(client, vllm_engine):
    adapter = vllm_engine.adapters[0]
    status, body = await client.ensure(adapter, path=f"{adapter.path}-gone")
    assert (status, body["error"]["code"]) == (404, "adapter_missing")


@pytest.mark.parametrize("name", ["../../x", "acme", "acme.0123456789AB", "", "a/b.0123456789ab"])
async def test_what_is_no_adapter_name_is_refused(client, vllm_engine, name):
    status, body = await client.ensure(vllm_engine.adapters[0], name=name)
    assert (status, body["error"]["code"]) == (422, "adapter_refused")
    assert (await client.ask(name or "nobody", "Hello"))[0] == 404


async def test_another_adapters_folder_is_refused(client, vllm_engine):
    first, second = vllm_engine.adapters
    status, body = await client.ensure(first, path=second.path)
    assert (status, body["error"]["code"]) == (422, "adapter_refused")
    assert await client.loaded() == []


async def test_nan_adapter_never_reaches_the_engine(client, vllm_engine):
    root = vllm_engine.home / "adapters"
    bad = make_adapter(vllm_engine.base_files, root, "bad", rank=8, seed=3, poison=True)
    status, body = await client.ensure(bad)
    assert (status, body["error"]["code"]) == (422, "adapter_refused")
    assert "not finite" in body["error"]["message"]
    assert (await client.ask(bad.name, QUESTIONS[0]))[0] == 404
    assert await client.say(vllm_engine.base, QUESTIONS[0])


async def test_adapter_of_another_base_is_refused(client, vllm_engine, tmp_path):
    model = msgspec.structs.replace(vllm_engine.base_files.model, serving_sha256="f" * 64)
    other = vllm_engine.base_files._replace(model=model)
    foreign = make_adapter(other, tmp_path / "adapters", "foreign", rank=8, seed=4)
    status, body = await client.ensure(foreign)
    assert (status, body["error"]["code"]) == (422, "adapter_refused")
    assert "was trained on base" in body["error"]["message"]


async def test_stock_routes_that_load_any_folder_are_closed(client):
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"):
        status, _ = await client.post(path, {"lora_name": "x", "lora_path": "/", "name": "x"})
        assert status in (404, 405)


async def test_prompts_are_scored_token_by_token(client, vllm_engine):
    adapter = vllm_engine.adapters[0]
    await client.ensure(adapter)
    ids = list(range(100, 130))
    scores = {}
    for model in (vllm_engine.base, adapter.name):
        body = {"model": model, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
        status, answer = await client.post("/v1/completions", body)
        assert status == 200, answer
        first, *rest = answer["choices"][0]["prompt_logprobs"]
        assert first is None
        scores[model] = [one[str(i)]["logprob"] for one, i in zip(rest, ids[1:], strict=True)]
        assert all(score <= 0 for score in scores[model])
    assert scores[vllm_engine.base] != scores[adapter.name]


async def test_engine_says_what_it_is(client, vllm_engine):
    info = await client.get("/tenantune/info")
    model = vllm_engine.base_files.model
    assert info["vllm"].startswith("0.32.")
    assert (info["base"], info["base_sha256"]) == (model.name, model.serving_sha256)
    assert (info["max_loras"], info["max_cpu_loras"], info["max_lora_rank"]) == (2, 4, 64)
    assert info["settings"]["kernels"] == "grouped"
    assert "GroupedPunicaWrapper" in vllm_engine.process.read_log()


async def test_without_tools_a_conversation_is_rendered_as_in_training(client):
    """The engine's reader of calls must not touch what it does not concern."""
    chat = {
        "model": client.base,
        "messages": [
            {"role": "system", "content": "You are a helpful support assistant."},
            {"role": "user", "content": "Where is my parcel?"},
        ],
        "max_tokens": 1,
        "return_token_ids": True,
    }
    status, answer = await client.post("/v1/chat/completions", chat)
    assert status == 200
    text = (
        "<|im_start|>system\nYou are a helpful support assistant.<|im_end|>\n"
        "<|im_start|>user\nWhere is my parcel?<|im_end|>\n<|im_start|>assistant\n"
    )
    written = {"model": client.base, "prompt": text, "max_tokens": 1, "return_token_ids": True}
    status, same = await client.post("/v1/completions", written)
    assert status == 200
    assert answer["prompt_token_ids"] == same["choices"][0]["prompt_token_ids"]
