"""What the engine is asked for, what of its answers passes, and what is counted."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from server.adapters.schemas import Resolved
from server.auth.keys import Principal
from server.chat.accounting import Accounting, Admission
from server.chat.cache_salt import cache_salt, installation_secret
from server.chat.prompt import PolicyFiles
from server.chat.schemas import ChatMessage, ChatRequest, FieldNames, Sampling
from server.chat.service import ChatService
from server.chat.stream import ChatStreamDecoder
from server.db.models import Tenant, UsageDay
from server.db.session import Database
from server.engine.service import AdapterRef
from server.errors import AdapterRefused, EngineRejected, EngineUnavailable, Invalid, StreamBroken
from server.limits.fair_scheduler import FairScheduler
from server.limits.limiter import RateLimiter
from server.metrics import Metrics
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage

BASE = Resolved(
    model="tiny-base", tenant_id="t1", slug="acme", adapter=None, version=None, system_prompt=""
)
TUNED = Resolved(
    model="acme",
    tenant_id="t1",
    slug="acme",
    adapter=AdapterRef(name="acme.0123456789ab", path="/adapters/acme.0123456789ab"),
    version=3,
    system_prompt="You are Acme's assistant.",
)
HELLO = ChatRequest(system="", messages=(ChatMessage(role="user", content="Hello"),))
TOO_LONG = EngineRejected(
    "This model's maximum context length is 2048 tokens.", status=400, param="input_tokens"
)
TOO_MUCH = EngineRejected(
    "max_tokens=1024 cannot be greater than max_model_len=512.", status=400, param="max_tokens"
)
USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
ENDS = [{"index": i, "delta": {"content": "Hi"}, "finish_reason": "stop"} for i in range(2)]
ANSWER: list[dict[str, Any]] = [{"choices": ENDS}, {"choices": [], "usage": USAGE}]


CALLER = Principal(key_id="k1", label="", scopes=frozenset({"chat"}), tenant_id="t1", slug="acme")


class Engine:
    """Keeps what it is asked, and answers or refuses as told."""

    def __init__(self, *refusals: Exception) -> None:
        self.asked: list[dict[str, Any]] = []
        self.chunks: list[dict[str, Any]] = ANSWER
        self._refusals = list(refusals)

    def _take(self, body: dict[str, Any]) -> None:
        self.asked.append(msgspec.json.decode(msgspec.json.encode(body)))
        if self._refusals:
            raise self._refusals.pop(0)

    @asynccontextmanager
    async def stream(self, body: dict[str, Any], **_: object) -> AsyncIterator[Any]:
        self._take(body)

        async def payloads() -> AsyncIterator[bytes]:
            for chunk in self.chunks:
                yield json.dumps(chunk).encode()

        yield payloads()


class Ledger:
    """Keeps what is counted."""

    def __init__(self) -> None:
        self.counted: list[tuple[Usage, dict[str, Any]]] = []

    def add(self, usage: Usage, **where: Any) -> None:
        self.counted.append((usage, where))


class Chat(ChatService):
    """A chat service over an engine that keeps what it is asked."""

    def __init__(self, home: Path, *refusals: Exception, serving: Path | None = None) -> None:
        self.engine = Engine(*refusals)
        self.ledger = Ledger()
        super().__init__(
            engine=self.engine,  # type: ignore[arg-type]
            models=None,  # type: ignore[arg-type]
            prompts=PolicyFiles(home, serving=serving),
            admission=Admission(
                RateLimiter(None),  # type: ignore[arg-type]
                FairScheduler(max_num_seqs=lambda: 16),
            ),
            accounting=Accounting(
                self.ledger,  # type: ignore[arg-type]
                Metrics(None),
                base="tiny-base",
            ),
            write_behind=None,  # type: ignore[arg-type]
            images=None,  # type: ignore[arg-type]
        )

    async def ask(self, request: ChatRequest = HELLO, resolved: Resolved = TUNED) -> dict[str, Any]:
        """What the engine was asked for."""
        await self.complete(request, resolved, principal=CALLER)
        return self.engine.asked[-1]


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(tmp_path)


# --- what the engine is asked for ---


async def test_a_system_message_alone_is_what_the_model_reads(tmp_path: Path) -> None:
    chat = Chat(tmp_path, TOO_LONG)
    alone = ChatRequest(system="Say hi.", messages=(), drop_oldest=True)
    asked = await chat.ask(alone, BASE)
    assert asked["messages"] == [{"role": "system", "content": "Say hi."}]
    chat = Chat(tmp_path, TOO_LONG, TOO_LONG)
    with pytest.raises(Invalid) as refused:
        await chat.ask(alone, BASE)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("refusal", [TOO_LONG, TOO_MUCH], ids=["prompt", "context"])
async def test_the_default_limit_gives_way_to_a_long_prompt_or_a_short_context(
    tmp_path: Path, refusal: EngineRejected
) -> None:
    chat = Chat(tmp_path, refusal)
    assert "max_tokens" not in await chat.ask()
    assert len(chat.engine.asked) == 2


async def test_a_prompt_that_is_too_long_is_the_callers_fault(tmp_path: Path) -> None:
    chat = Chat(tmp_path, TOO_LONG, TOO_LONG)
    with pytest.raises(Invalid) as refused:
        await chat.ask()
    assert (refused.value.param, refused.value.code) == ("messages", "context_length_exceeded")
    assert chat.ledger.counted[0][1]["failed"]


async def test_the_callers_own_limit_does_not_give_way(tmp_path: Path) -> None:
    chat = Chat(tmp_path, TOO_LONG)
    with pytest.raises(Invalid):
        await chat.ask(msgspec.structs.replace(HELLO, sampling=Sampling(max_tokens=2000)))
    assert len(chat.engine.asked) == 1


async def test_a_limit_above_the_context_is_refused_in_the_callers_words(tmp_path: Path) -> None:
    fields = FieldNames(limit="max_output_tokens")
    own = msgspec.structs.replace(HELLO, sampling=Sampling(max_tokens=1024), fields=fields)
    with pytest.raises(Invalid, match="context has 512 tokens") as refused:
        await Chat(tmp_path, TOO_MUCH).ask(own)
    assert refused.value.param == "max_output_tokens"


async def test_a_schema_that_makes_no_sense_is_refused_without_the_engines_source(
    tmp_path: Path,
) -> None:
    said = "Failed to transform json schema into a grammar: [19:01:01] /p/c.cc:4944: Bad\n"
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "foo"}}}
    own = msgspec.structs.replace(HELLO, sampling=Sampling(response_format=form))
    with pytest.raises(Invalid) as refused:
        await Chat(tmp_path, EngineRejected(said, status=400)).ask(own)
    field = "response_format.json_schema.schema"
    assert refused.value.param == field
    assert refused.value.message == f"The schema in '{field}' cannot be used: Bad."


async def test_a_refusal_does_not_show_the_hidden_prompt(tmp_path: Path) -> None:
    refusal = EngineRejected(f"bad input: {TUNED.system_prompt}", status=400)
    with pytest.raises(Invalid) as refused:
        await Chat(tmp_path, refusal).ask()
    assert "Acme" not in refused.value.message


async def test_what_only_the_operator_can_mend_is_told_without_paths(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        await Chat(tmp_path, EngineRejected("no model", status=404)).ask()
    with pytest.raises(AdapterRefused) as refused:
        await Chat(tmp_path, AdapterRefused("/adapters/acme is damaged")).ask()
    assert "/adapters" not in refused.value.message


async def test_what_answers_instead_of_a_canary_has_its_own_prompt_and_the_account(
    tmp_path: Path,
) -> None:
    chat = Chat(tmp_path, AdapterRefused("it is damaged"), TOO_LONG)
    beside = msgspec.structs.replace(TUNED, version=2, system_prompt="You are the old one.")
    asked = await chat.ask(resolved=msgspec.structs.replace(TUNED, fallback=beside))
    assert [each["messages"][0]["content"] for each in chat.engine.asked] == [
        TUNED.system_prompt,
        beside.system_prompt,
        beside.system_prompt,
    ]
    assert asked["messages"][-1]["content"] == "Hello"
    assert [where["model"] for _, where in chat.ledger.counted] == ["acme@2"]
    # refused as well, it is an error as ever
    twice = Chat(tmp_path, AdapterRefused("damaged"), AdapterRefused("damaged too"))
    with pytest.raises(AdapterRefused):
        await twice.ask(resolved=msgspec.structs.replace(TUNED, fallback=beside))


# --- salts ---


def test_each_tenant_has_its_own_salt_and_keeps_it(tmp_path: Path) -> None:
    secret = installation_secret(tmp_path)
    assert installation_secret(tmp_path) == secret
    assert cache_salt(secret, "t1") == cache_salt(secret, "t1") != cache_salt(secret, "t2")
    assert cache_salt(secret, "t1") != cache_salt(installation_secret(tmp_path / "b"), "t1")


def test_the_secret_is_its_owners_alone(tmp_path: Path) -> None:
    installation_secret(tmp_path)
    assert stat.S_IMODE((tmp_path / "installation.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["installation.key"]


async def test_processes_that_start_together_share_the_secret(tmp_path: Path) -> None:
    made = await asyncio.gather(
        *(asyncio.to_thread(installation_secret, tmp_path) for _ in range(8))
    )
    assert len(set(made)) == 1


# --- what passes of an answer ---


def chunk(index: int = 0, *, finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


def test_what_only_engines_say_does_not_pass() -> None:
    progress = ChatStreamDecoder(1)
    said = {
        "id": "chatcmpl-1",
        "model": "acme.0123456789ab",
        "prompt_token_ids": [1],
        "prompt_logprobs": [None],
        "kv_transfer_params": {"a": 1},
        "prompt_text": "secret",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "Hi", "reasoning": "secret"},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": 2,
                "token_ids": [1],
            }
        ],
    }
    passed = msgspec.json.decode(msgspec.json.encode(progress.take(json.dumps(said).encode())))
    assert passed == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "Hi"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


def test_the_role_is_said_once_and_nothing_after_the_end() -> None:
    progress = ChatStreamDecoder(1)
    assert progress.take(chunk(content="a"))[0].delta.role == "assistant"
    assert progress.take(chunk(role="assistant", content="b"))[0].delta.role is None
    assert progress.take(chunk(content="")) == []
    assert progress.take(chunk(finish="repetition"))[0].finish_reason == "stop"
    assert progress.take(chunk(content="more")) == []
    assert progress.take(chunk(1, content="unasked")) == []
    progress.finish()


def test_an_answer_without_an_end_is_broken() -> None:
    progress = ChatStreamDecoder(2)
    progress.take(chunk(0, finish="stop"))
    with pytest.raises(StreamBroken):
        progress.finish()


@pytest.mark.parametrize("payload", [chunk(finish="abort"), b"{", b'{"choices": 1}', b"\xff"])
def test_an_engine_that_gives_up_or_babbles_breaks_the_answer(payload: bytes) -> None:
    with pytest.raises(StreamBroken):
        ChatStreamDecoder(1).take(payload)


# --- what is counted ---


async def listen(chat: Chat, *, leave_after: int | None = None) -> None:
    """Read a streamed answer, or so many parts of it."""
    parts = 0
    async with chat.stream(HELLO, TUNED, principal=CALLER) as answer:
        async for _ in answer:
            parts += 1
            if parts == leave_after:
                raise asyncio.CancelledError


async def test_a_streamed_answer_is_counted_as_the_engine_says(chat: Chat) -> None:
    chat.engine.chunks = [
        json.loads(chunk(content="Hi")),
        json.loads(chunk(finish="stop")),
        {"choices": [], "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}},
    ]
    await listen(chat)
    [(usage, where)] = chat.ledger.counted
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (9, 4, 1)
    assert where.pop("gpu_seconds") > 0
    assert where == {
        "tenant_id": "t1",
        "key_id": "k1",
        "model": "acme@3",
        "failed": False,
        "arm": None,
    }


async def test_an_abandoned_answer_is_counted_as_far_as_it_came(chat: Chat) -> None:
    chat.engine.chunks = [json.loads(chunk(content=word)) for word in "abc"]
    with pytest.raises(asyncio.CancelledError):
        await listen(chat, leave_after=2)
    [(usage, where)] = chat.ledger.counted
    assert (usage.completion_tokens, where["failed"]) == (2, False)
    assert usage.prompt_tokens > 0


async def test_an_answer_that_breaks_off_is_counted_as_an_error(chat: Chat) -> None:
    chat.engine.chunks = [json.loads(chunk(content="a"))]
    with pytest.raises(StreamBroken):
        await listen(chat)
    [(usage, where)] = chat.ledger.counted
    assert (usage.completion_tokens, where["failed"]) == (1, True)


async def rows(database: Database) -> list[tuple[str, str, int, int, int]]:
    async with database.reading() as session:
        found = await session.scalars(select(UsageDay).order_by(UsageDay.model))
        return [
            (row.tenant_id, row.model, row.requests, row.errors, row.prompt_tokens) for row in found
        ]


def used(prompt: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=1, total_tokens=prompt + 1)


async def test_counts_add_up_in_the_database(
    database: Database, make_tenant: Callable[..., Any]
) -> None:
    tenant: Tenant = await make_tenant()
    here: dict[str, Any] = {"tenant_id": tenant.id, "key_id": "k", "model": "acme@1"}
    one, two = UsageLedger(database), UsageLedger(database)
    for ledger in (one, two, one):
        ledger.add(used(5), **here)
        ledger.add(used(7), **here, failed=True)
        await ledger.flush()
    await one.flush()
    assert await rows(database) == [(tenant.id, "acme@1", 6, 3, 36)]


async def test_a_tenant_that_is_gone_does_not_lose_the_others_counts(
    database: Database, make_tenant: Callable[..., Any]
) -> None:
    tenant: Tenant = await make_tenant()
    ledger = UsageLedger(database)
    ledger.add(used(5), tenant_id="0" * 32, key_id="k", model="gone@1")
    ledger.add(used(7), tenant_id=tenant.id, key_id="k", model="acme@1")
    await ledger.flush()
    assert await rows(database) == [(tenant.id, "acme@1", 1, 0, 7)]


async def test_counts_wait_for_a_database_that_is_gone(
    database: Database, make_tenant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant: Tenant = await make_tenant()
    ledger = UsageLedger(database)
    ledger.add(used(5), tenant_id=tenant.id, key_id="k", model="acme@1")

    def gone() -> Any:
        raise OperationalError("insert", None, Exception("gone"))

    with monkeypatch.context() as patched:
        patched.setattr(database, "transaction", gone)
        with pytest.raises(OperationalError):
            await ledger.flush()
    ledger.add(used(6), tenant_id=tenant.id, key_id="k", model="acme@1")
    await ledger.flush()
    assert await rows(database) == [(tenant.id, "acme@1", 2, 0, 11)]


async def test_counts_are_written_when_the_server_stops(
    database: Database, make_tenant: Callable[..., Any]
) -> None:
    tenant: Tenant = await make_tenant()
    ledger = UsageLedger(database, flush_seconds=60)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ledger.run())
        await asyncio.sleep(0)
        ledger.add(used(5), tenant_id=tenant.id, key_id="k", model="acme@1")
        running.cancel()
    assert len(await rows(database)) == 1
