from typing import Any

import pytest

from server.chat.schemas import ChatMessage, ChatRequest, Role, Sampling
from server.chat.truncation import shorten
from server.errors import EngineRejected

TOO_LONG = EngineRejected("too long", status=400, param="input_tokens")


def turns(*roles: Role) -> list[Any]:
    return [ChatMessage(role=role, content=str(place)) for place, role in enumerate(roles)]


def fitted(*roles: Role, drop_oldest: bool = True) -> list[list[str]]:
    """What is left of the turns after each attempt, until nothing may go."""
    messages = [ChatMessage(role="user", content="the system's"), *turns(*roles)]
    body: dict[str, Any] = {"messages": messages}
    request = ChatRequest(
        system="", messages=(), sampling=Sampling(max_tokens=1), drop_oldest=drop_oldest
    )
    left: list[list[str]] = []
    while True:
        try:
            shorten(TOO_LONG, body, request)
        except EngineRejected:
            return left
        assert body["messages"][0] is messages[0]
        left.append([message.content for message in body["messages"][1:]])


def test_our_own_limit_goes_before_any_turn():
    body: dict[str, Any] = {"max_tokens": 1024, "messages": turns("system", "user", "user")}
    request = ChatRequest(system="", messages=(), drop_oldest=True)
    shorten(TOO_LONG, body, request)
    assert "max_tokens" not in body
    assert len(body["messages"]) == 3
    shorten(TOO_LONG, body, request)
    assert len(body["messages"]) == 2


def test_without_leave_nothing_goes():
    assert fitted("user", "assistant", "user", drop_oldest=False) == []


def test_a_refusal_for_another_reason_stays_one():
    request = ChatRequest(system="", messages=(), drop_oldest=True)
    with pytest.raises(EngineRejected, match="nonsense"):
        shorten(EngineRejected("nonsense", status=400), {"messages": []}, request)


def test_a_conversation_begins_with_a_user_and_never_with_a_result():
    assert fitted("user", "assistant", "user", "assistant", "user") == [["2", "3", "4"], ["4"]]
    assert fitted("user", "assistant", "tool", "assistant", "tool") == [
        ["1", "2", "3", "4"],
        ["3", "4"],
    ]


def test_long_conversations_take_few_attempts():
    users: list[Role] = ["user"] * 1000
    assert len(fitted(*users)) < 50
