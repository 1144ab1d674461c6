"""What a conversation is called in Python, on the wire and in stored rows; and as chat messages."""

import msgspec

from connectors.conversation import ChatMessage, Conversation, Role, Turn, chat_messages
from connectors.importers import ImportOptions
from connectors.report import ImportReport


def test_roles_are_called_roles_on_the_wire_and_in_stored_rows() -> None:
    turn = Turn(role=Role.CUSTOMER, text="hi")
    assert msgspec.json.encode(turn) == b'{"role":"customer","text":"hi"}'
    assert msgspec.json.decode(b'{"role":"customer","text":"hi"}', type=Turn) == turn
    options = ImportOptions(roles={"Kunde": Role.CUSTOMER})
    assert msgspec.to_builtins(options)["roles"] == {"Kunde": "customer"}
    report = msgspec.to_builtins(
        ImportReport(importer="csv", partially_rejected=2, roles={"agent": 1})
    )
    assert (report["partially_rejected"], report["roles"]) == (2, {"agent": 1})


def test_chat_messages_alternate_and_begin_with_the_customer() -> None:
    said = [
        (Role.BOT, "Welcome"),
        (Role.CUSTOMER, "Hello?"),
        (Role.NOTE, "a regular"),
        (Role.CUSTOMER, "Anybody there?"),
        (Role.AGENT, "Yes."),
        (Role.CUSTOMER, "Thanks"),
    ]
    conversation = Conversation("c1", tuple(Turn(role, text) for role, text in said))
    assert chat_messages(conversation) == [
        ChatMessage(role="user", content="Hello?\nAnybody there?"),
        ChatMessage(role="assistant", content="Yes."),
    ]
