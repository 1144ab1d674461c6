"""An agent's own reply is sent where it agrees better than what the adapter wrote."""

from collections.abc import Sequence
from typing import Any

import pytest

from server.chat.grounding import Grounded
from server.chat.quoting import quoting_of
from server.chat.schemas import ChatMessage, ChatRequest, Sampling
from server.retrieval.schemas import Grounding
from tests.server.knowledge.conftest import Knowledge
from tests.server.retrieval.indexed import publish
from tests.server.retrieval.test_grounding import QUESTION, get_receipt
from tests.server.retrieval.test_grounding import knowledge as knowledge  # noqa: PLC0414 - a fixture
from tests.server.serving import Serving, database_url, server
from tests.server.web.widget.visiting import frame_of
from tests.training.evaluation.samples import conversation
from training.references import Reference

__all__ = ["database_url", "server"]
PAST = [
    conversation(f"c{number}", QUESTION, reply)
    for number, reply in enumerate(
        ("Look under My Orders.", "Look under My Orders today.", "Look under My Orders, friend.")
    )
]
REPLY = "Look under My Orders."
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


async def test_every_door_sends_the_quote_and_its_receipt_says_whose(server: Serving) -> None:
    frame = await frame_of(server)
    await publish(server, past=PAST, references=0, draft_weight=0.1)
    key = await server.key()
    client = server.openai(key)

    whole = await client.chat.completions.create(model="acme", messages=MESSAGES, store=True)
    assert whole.choices[0].message.content == REPLY
    assert whole.choices[0].finish_reason == "stop"
    assert (await client.chat.completions.retrieve(whole.id)).choices == whole.choices
    receipt = await get_receipt(server, key, whole.id)
    assert receipt["quoted"] == "c0:1"
    assert receipt["quoted"] in [each["id"] for each in receipt["references"]]
    assert len(receipt["references"]) == len(PAST)

    stream = await client.chat.completions.create(
        model="acme", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == REPLY
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0  # of the draft: that is what was computed
    assert (await get_receipt(server, key, chunks[0].id))["quoted"] == "c0:1"

    response = await client.responses.create(model="acme", input=QUESTION)
    assert response.output_text == REPLY
    await frame.enter()
    async with frame.open("/messages", {"text": QUESTION, "client_id": "message-1"}) as said:
        assert REPLY in (await said.read()).decode()


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {"retrieval": "off"}},
        {"response_format": {"type": "json_object"}},
        {"stop": ["Orders"]},
        {"n": 2},
        {"logprobs": True},
        {"logit_bias": {"7": 1}},
        {"max_tokens": 2},
    ],
    ids=["off", "form", "stop", "n", "logprobs", "bias", "short"],
)
async def test_a_caller_who_controls_the_text_gets_what_was_written(
    server: Serving, options: dict[str, Any]
) -> None:
    await server.tenant()
    await publish(server, past=PAST, references=0, draft_weight=0.1)
    key = await server.key()
    answer = await server.openai(key).chat.completions.create(
        model="acme", messages=MESSAGES, **options
    )
    assert all("Look under" not in (each.message.content or "") for each in answer.choices)
    assert (await get_receipt(server, key, answer.id))["quoted"] is None


async def test_nothing_is_quoted_where_nothing_supports_it_or_the_weight_is_the_drafts(
    server: Serving,
) -> None:
    await server.tenant()
    await server.tenant("other")
    await publish(server, past=PAST, references=0, draft_weight=0.1)
    await publish(server, "other", past=PAST, references=2, draft_weight=1.0)
    for slug, question in (("acme", "zebra quantum volcano"), ("other", QUESTION)):
        key = await server.key(slug)
        answer = await server.openai(key).chat.completions.create(
            model=slug, messages=[{"role": "user", "content": question}]
        )
        assert (await get_receipt(server, key, answer.id))["quoted"] is None


async def test_an_article_is_answered_from_and_not_from_the_past(
    server: Serving, knowledge: Knowledge
) -> None:
    tenant = await server.tenant()
    await publish(server, past=PAST, references=0, draft_weight=0.1)
    await knowledge.add(tenant, f"# Parcels\n\n## Where\n\n{QUESTION}", "parcels.md")
    key = await server.key()
    answer = await server.openai(key).chat.completions.create(model="acme", messages=MESSAGES)
    receipt = await get_receipt(server, key, answer.id)
    assert receipt["quoted"] is None
    assert "article" in [each["kind"] for each in receipt["references"]]


@pytest.mark.parametrize(("most", "quotable"), [(None, 2), (10, 1), (1, 0)])
def test_no_quote_is_longer_than_what_was_asked_for(most: int | None, quotable: int) -> None:
    references: Sequence[Reference] = [
        Reference(kind="exchange", id=f"c{size}:1", title="", text="x" * size, score=0.9)
        for size in (40, 41)
    ]
    request = ChatRequest(
        system="",
        messages=(ChatMessage(role="user", content="hello"),),
        sampling=Sampling(max_tokens=most),
    )
    quoted: list[Reference] = []
    quoting = quoting_of(
        Grounded(
            asked=request,
            request=request,
            grounding=Grounding(),
            dataset=None,
            quotable=tuple(references),
            draft_weight=0.1,
        ),
        on_quoted=quoted.append,
    )
    assert len(quoting._references if quoting else ()) == quotable
