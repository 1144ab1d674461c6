"""Parses the files of fine-tuning jobs, in OpenAI's formats: JSON lines, one example a line.

supervised   {"messages": [{"role", "content", "weight"?}, ...]}
dpo          {"input": {"messages": [...]}, "preferred_output": [{"role": "assistant", "content"}],
              "non_preferred_output": [{"role": "assistant", "content"}]}
kto          {"messages": [..., {"role": "assistant", "content"}], "label": true | false}

The last is ours: a conversation, and whether its last reply was desirable. Tool calls and their
results are skipped and counted: they are not trained on. Other keys (``tools``,
``parallel_tool_calls``) are ignored. Redaction is a second step, ``redact_example``.

As with OpenAI, only the assistant's messages have a ``weight``, and a tool's result follows the call
that it answers. A file that differs is refused, since it expects what would not happen.

The format is all that is known here; whether a whole file is fit for a job is decided in
``server.datasets.validation``.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Literal

import msgspec

from connectors.conversation import Conversation, Role, Turn, chat_messages
from connectors.importers.base import BadRecord, ImportOptions, Reason, Rejected, quoted
from connectors.importers.jsonl import Skipped, identifier, read_records
from connectors.importers.messages import is_tool, messages_in
from connectors.importers.openai import OpenAIMessages
from connectors.preference import Preference, UnpairedPreference
from connectors.redaction.redactor import Redactor

Method = Literal["supervised", "dpo", "kto"]
TrainingExample = Conversation | Preference | UnpairedPreference
Parsed = tuple[TrainingExample, list[Skipped]]

_messages = OpenAIMessages()
_CALL = "function_call"  # as a key of an assistant's message, or as a role


def read_examples(stream: IO[bytes], method: Method) -> Iterator[TrainingExample | Rejected]:
    """Yield every example in order, and a ``Rejected`` for everything that is not kept.

    A ``Rejected`` that is not a ``part`` makes the file unfit for a job: it names the line.
    """
    return read_records(stream, ImportOptions(), _PARSERS[method])


def redact_example(
    record: TrainingExample, redactor: Redactor
) -> tuple[TrainingExample, Counter[str]]:
    """The example without personal data, and how often each entity type was replaced.

    History and replies of a preference count as one conversation, so that a placeholder means the
    same in all of them.
    """
    match record:
        case Conversation():
            return redactor.redact(record)
        case UnpairedPreference():
            whole, counts = redactor.redact(Conversation(record.id, record.turns))
            return msgspec.structs.replace(record, id=whole.id, turns=whole.turns), counts
        case Preference():
            turns = (*record.turns, *record.chosen, *record.rejected)
            whole, counts = redactor.redact(Conversation(record.id, turns))
            answers = len(record.turns)
            others = answers + len(record.chosen)
            redacted = msgspec.structs.replace(
                record,
                id=whole.id,
                turns=whole.turns[:answers],
                chosen=whole.turns[answers:others],
                rejected=whole.turns[others:],
            )
            return redacted, counts


def system_message(record: TrainingExample) -> str:
    """The example's own system messages, joined; empty where there is none."""
    return "\n\n".join(turn.text for turn in record.turns if turn.role is Role.SYSTEM)


def _supervised(record: dict[str, Any], number: int, options: ImportOptions) -> Parsed:
    if "messages" in record:
        _check(record)
    conversation, skipped = _messages.parse(record, number, options)
    messages = chat_messages(conversation)
    if not messages:
        raise BadRecord(Reason.NO_TURNS, "no user message that an assistant message answers")
    if not any(message.role == "assistant" and message.weight for message in messages):
        raise BadRecord(Reason.NO_TURNS, "every assistant message has weight 0: nothing to learn")
    return conversation, skipped


def _preference(record: dict[str, Any], number: int, options: ImportOptions) -> Parsed:
    history = record.get("input")
    if not isinstance(history, dict) or "messages" not in history:
        raise BadRecord(Reason.BAD_RECORD, "no 'input' with 'messages' in the record")
    skipped: list[Skipped] = []
    made = Preference(
        id=identifier(record, number),
        turns=_turns(history, options, skipped, where="input"),
        chosen=_reply(record, "preferred_output", options, skipped),
        rejected=_reply(record, "non_preferred_output", options, skipped),
    )
    spoken = [turn for turn in made.turns if turn.role is not Role.SYSTEM]
    if not spoken or spoken[-1].role is not Role.CUSTOMER:
        raise BadRecord(Reason.BAD_RECORD, "input: the last message must be from 'user'")
    return made, skipped


def _unpaired_preference(record: dict[str, Any], number: int, options: ImportOptions) -> Parsed:
    label = record.get("label")
    if not isinstance(label, bool):
        raise BadRecord(Reason.BAD_RECORD, "'label' must be true or false")
    if "messages" not in record:
        raise BadRecord(Reason.BAD_RECORD, "no 'messages' in the record")
    skipped: list[Skipped] = []
    turns = _turns(record, options, skipped, where="")
    if not turns or turns[-1].role is not Role.AGENT:
        raise BadRecord(Reason.BAD_RECORD, "the last message must be from 'assistant'")
    if not any(turn.role is Role.CUSTOMER for turn in turns):
        raise BadRecord(Reason.NO_TURNS, "no user message that an assistant message answers")
    return UnpairedPreference(id=identifier(record, number), turns=turns, label=label), skipped


def _reply(
    record: Mapping[str, Any], key: str, options: ImportOptions, skipped: list[Skipped]
) -> tuple[Turn, ...]:
    if key not in record:
        raise BadRecord(Reason.BAD_RECORD, f"no {key!r} in the record")
    turns = _turns({"messages": record[key]}, options, skipped, where=key)
    if not turns:
        raise BadRecord(Reason.NO_TURNS, f"{key}: no message with text")
    if any(turn.role is not Role.AGENT for turn in turns):
        raise BadRecord(Reason.BAD_ROLE, f"{key}: every message must be from 'assistant'")
    return turns


def _turns(
    record: Mapping[str, Any], options: ImportOptions, skipped: list[Skipped], *, where: str
) -> tuple[Turn, ...]:
    turns = []
    prefix = f"{where}: " if where else ""
    try:
        _check(record)
        for item in _messages.turns(record, options):
            if isinstance(item, Turn):
                turns.append(item)
            else:
                skipped.append(Skipped(item.reason, prefix + item.detail))
    except BadRecord as exc:
        raise BadRecord(exc.reason, prefix + exc.detail) from exc
    return tuple(turns)


def _check(record: Mapping[str, Any]) -> None:
    """Refuse messages that expect what training does not do.

    Raises:
        BadRecord: a weight on a message that is not the assistant's, or a tool's result without its call.
    """
    called: set[str] = set()
    for position, message in messages_in(record, "messages"):
        role = message.get("role")
        kind = role.strip().lower() if isinstance(role, str) else role
        if message.get("weight") is not None and kind != "assistant":
            detail = f"message {position}: only the assistant's messages have a weight"
            raise BadRecord(Reason.BAD_RECORD, f"{detail}, not one from {quoted(role)}")
        if kind in {"assistant", _CALL}:
            called |= _calls(message, by_role=kind == _CALL)
        elif is_tool(role):
            _expect_call(message, called, position=position)


def _calls(message: Mapping[str, Any], *, by_role: bool) -> set[str]:
    """The ids of the calls in a message; "" for a call without id, which any result may answer."""
    calls = message.get("tool_calls")
    found: set[str] = {""} if by_role or message.get(_CALL) else set()
    for call in calls if isinstance(calls, list) else []:
        name = call.get("id") if isinstance(call, dict) else None
        found.add(name if isinstance(name, str) else "")
    return found


def _expect_call(message: Mapping[str, Any], called: set[str], *, position: int) -> None:
    answered = message.get("tool_call_id")
    if not called:
        detail = f"message {position} is the result of a tool that no message before it calls"
        raise BadRecord(Reason.BAD_RECORD, detail)
    known = isinstance(answered, str) and answered in called
    if answered is not None and not known and "" not in called:
        detail = f"message {position} answers {quoted(answered)}, which no message before it calls"
        raise BadRecord(Reason.BAD_RECORD, detail)


_PARSERS: dict[Method, Callable[[dict[str, Any], int, ImportOptions], Parsed]] = {
    "supervised": _supervised,
    "dpo": _preference,
    "kto": _unpaired_preference,
}
