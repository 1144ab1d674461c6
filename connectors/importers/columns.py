"""Which column of a table means what: guessed from the headers, overridden by the operator."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from connectors.conversation import Speaker
from connectors.errors import BadMapping

Field = Literal[
    "conversation",
    "speaker",
    "text",
    "time",
    "author",
    "channel",
    "language",
    "question",
    "answer",
]
FIELDS: tuple[Field, ...] = get_args(Field)

# Headers in lower case without blanks and punctuation; a field's own name counts before these.
_HEADERS: Mapping[Field, str] = {
    "conversation": "conversationid convid conversationref ticket ticketid ticketnumber thread "
    "threadid chat chatid session sessionid dialog dialogue dialogid dialogueid case caseid "
    "casenumber transcript transcriptid",
    "speaker": "role sender sendertype senderrole from authortype authorrole speakerrole "
    "participant participanttype sentby party",
    "text": "message body content utterance messagetext messagebody comment",
    "time": "timestamp date datetime sentat createdat created senttime messagetime",
    "author": "authorname agentname sendername speakername name",
    "channel": "medium",
    "language": "lang locale",
    "question": "instruction query prompt customermessage customerquestion userquestion "
    "usermessage customer input",
    "answer": "response reply output completion agentreply agentresponse agentmessage "
    "assistantresponse agent",
}
_SPEAKERS: Mapping[Speaker, str] = {
    Speaker.CUSTOMER: "customer client user visitor human consumer guest enduser requester buyer "
    "shopper caller contact member incoming inbound kunde kundin klant cliente usuario",
    Speaker.AGENT: "agent assistant support supportagent humanagent operator representative rep "
    "staff employee advisor adviser admin helpdesk service csr team outgoing outbound "
    "mitarbeiter mitarbeiterin agente",
    Speaker.BOT: "bot chatbot virtualassistant virtualagent ai automated",
    Speaker.NOTE: "note internal internalnote privatenote",
    Speaker.SYSTEM: "system event",
}
_WORDS = {word: speaker for speaker, words in _SPEAKERS.items() for word in words.split()}


class Columns(NamedTuple):
    """The position of each known column. Pairs have a question and an answer in each row."""

    pairs: bool
    at: dict[Field, int]


def parse_map(items: Iterable[str]) -> tuple[dict[str, str], dict[str, Speaker]]:
    """Read ``--map`` arguments: ``text=Message,author=Name`` and ``speaker:Kunde=customer``.

    Returns column mapping and speaker values, as ``ImportOptions`` takes them.

    Raises:
        BadMapping: an item is not of that form, or names an unknown field or speaker.
    """
    mapping: dict[str, str] = {}
    speakers: dict[str, Speaker] = {}
    for item in (part for text in items for part in text.split(",") if part.strip()):
        left, equals, right = (part.strip() for part in item.partition("="))
        if not (left and equals and right):
            raise BadMapping(f"--map {item!r}: write field=Column, or speaker:Value=customer")
        if left.startswith("speaker:"):
            try:
                speakers[left.removeprefix("speaker:")] = Speaker(right.lower())
            except ValueError as exc:
                known = ", ".join(Speaker)
                raise BadMapping(f"--map {item!r}: {right!r} is none of {known}") from exc
        else:
            _check_field(left)
            mapping[left] = right
    return mapping, speakers


def choose_columns(headers: Sequence[str], mapping: Mapping[str, str]) -> Columns:
    """Find the columns, the operator's word before the guess.

    Raises:
        BadMapping: a named column is not there, a needed one cannot be told, or both a
            question/answer and a turn-by-turn reading would fit.
    """
    index: dict[Field, int] = {}
    fields = {_check_field(name): header for name, header in mapping.items()}
    for field, header in fields.items():
        index[field] = _position(header, headers)
    unclear: dict[Field, list[str]] = {}
    for field in FIELDS:
        if field not in index:
            found = _candidates(field, headers, taken=set(index.values()))
            if len(found) == 1:
                index[field] = found[0]
            elif found:
                unclear[field] = [headers[at] for at in found]
    pairs = _is_pairs(index, mapping, headers)
    wanted: tuple[Field, ...] = (
        ("question", "answer") if pairs else ("conversation", "speaker", "text")
    )
    missing = [field for field in wanted if field not in index]
    if missing:
        raise BadMapping(_what_to_pass(headers, missing, unclear))
    kept: tuple[Field, ...] = ("conversation", "time", "channel", "language")
    if pairs:
        index = {field: at for field, at in index.items() if field in (*wanted, *kept)}
        rows = [at for at, header in enumerate(headers) if _plain(header) == "id"]
        if "conversation" not in index and len(rows) == 1:
            index["conversation"] = rows[0]
    else:
        index = {f: at for f, at in index.items() if f in (*wanted, *kept, "author")}
    return Columns(pairs, index)


def speaker_named(value: str, speakers: Mapping[str, Speaker]) -> Speaker | None:
    """Who a value of the speaker column is; None when neither operator nor we know."""
    word = value.strip().casefold()
    for given, speaker in speakers.items():
        if given.strip().casefold() == word:
            return speaker
    return _WORDS.get(_plain(value))


def _plain(header: str) -> str:
    return re.sub(r"[\W_]+", "", header).casefold()


def _check_field(name: str) -> Field:
    for field in FIELDS:
        if field == name:
            return field
    raise BadMapping(f"no field {name!r}; there are: {', '.join(FIELDS)}")


def _position(header: str, headers: Sequence[str]) -> int:
    exact = [at for at, found in enumerate(headers) if found == header]
    loose = [at for at, found in enumerate(headers) if _plain(found) == _plain(header)]
    found = exact or loose
    if len(found) != 1:
        how = "no column" if not found else "more than one column"
        raise BadMapping(f"{how} {header!r}; the file has: {', '.join(headers)}")
    return found[0]


def _candidates(field: Field, headers: Sequence[str], *, taken: set[int]) -> list[int]:
    free = [(at, _plain(header)) for at, header in enumerate(headers) if at not in taken]
    exact = [at for at, plain in free if plain == field]
    known = _HEADERS[field].split()
    return exact or [at for at, plain in free if plain in known]


def _is_pairs(
    index: Mapping[Field, int], mapping: Mapping[str, str], headers: Sequence[str]
) -> bool:
    if "question" in mapping or "answer" in mapping:
        return True
    if "text" in mapping or "speaker" in mapping:
        return False
    pairs = "question" in index and "answer" in index
    turns = "speaker" in index and "text" in index
    if pairs and turns:
        raise BadMapping(
            "the file could be questions with answers, or one turn a row; say which with --map "
            f"question=... or --map text=... (columns: {', '.join(headers)})"
        )
    return pairs


def _what_to_pass(
    headers: Sequence[str], missing: Sequence[Field], unclear: Mapping[Field, list[str]]
) -> str:
    parts = []
    for field in missing:
        several = f" (several fit: {', '.join(unclear[field])})" if field in unclear else ""
        parts.append(f"{field}{several}")
    example = ",".join(f"{field}=COLUMN" for field in missing)
    return (
        f"cannot tell which column is: {', '.join(parts)}; pass --map {example}, "
        "or --map question=COLUMN,answer=COLUMN for one exchange a row. "
        f"The file has: {', '.join(headers)}"
    )
