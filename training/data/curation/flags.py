"""What is wrong with a conversation as an example to learn from.

Pure functions over redacted conversations: a flag is a fact that a person can check, never a score.
Whether a flagged conversation is learnt from is the tenant's decision.

What a customer writes is never toxic: an agent must learn to answer one who swears at a late parcel.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from connectors.conversation import Conversation, Role, Turn
from training.data.curation.insults import insult_in
from training.data.curation.secrets import secrets_in

Flag = Literal["no_reply", "one_sided", "cut_off", "bot_only", "auto_reply", "secret", "toxic"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
FLAG_TEXTS: dict[Flag, str] = {
    "no_reply": "The customer asks, and nobody answers.",
    "one_sided": "Only the company writes.",
    "cut_off": "It ends with a customer's open question, or in the middle of a reply.",
    "bot_only": "Only a bot answers.",
    "auto_reply": "One side sends only automatic messages.",
    "secret": "A reply holds a password or an access key.",
    "toxic": "A reply holds an insult or an obscenity.",
}


class Finding(NamedTuple):
    """A flag of a conversation. ``turn``: the message that shows it, where one does; ``why``: in words."""

    flag: Flag
    turn: int | None
    why: str


_AUTO_REPLY = re.compile(
    r"out of (?:the )?office|automatic(?:ally generated)? (?:reply|response|message)|auto(?:matic)?[- ]?(?:reply|response)\b"
    r"|this is an automated|do not reply to this (?:e-?mail|message)"
    r"|we(?:'ve| have)? (?:have )?received your (?:message|request|e-?mail|enquiry|inquiry|ticket)"
    r"|your (?:request|ticket|message|case|e-?mail) (?:\S{1,20} )?(?:has been|was) (?:received|created|logged|registered)"
    r"|thank(?:s| you) for (?:contacting|reaching out to|writing to|your (?:e-?mail|message|enquiry))[^.!\n]{0,60}[.!]\s*(?:we|one of|our|a member)[^.!\n]{0,80}"
    r"(?:get back|respond|reply|be in touch|in touch|shortly|as soon as)"
    r"|abwesenheitsnotiz|automatische (?:antwort|nachricht|e-?mail)|bin (?:derzeit |bis \S{1,12} )?nicht im (?:büro|hause)"
    r"|wir haben ihre (?:nachricht|anfrage|e-?mail|mail) erhalten|ihre anfrage ist (?:bei uns )?eingegangen"
    r"|réponse automatique|message automatique|absent du bureau|nous avons bien reçu votre (?:message|demande|e-?mail|courriel)"
    r"|respuesta automática|mensaje automático|fuera de (?:la )?oficina|hemos recibido (?:su|tu) (?:mensaje|solicitud|consulta|correo)"
    r"|risposta automatica|fuori (?:sede|ufficio)|abbiamo ricevuto (?:la (?:sua|tua)|il (?:suo|tuo)) (?:messaggio|richiesta)"
    r"|automatisch antwoord|afwezigheids|wij hebben uw (?:bericht|aanvraag|e-?mail) ontvangen"
    r"|resposta automática|recebemos (?:a sua|sua|o seu|seu) (?:mensagem|pedido)",
    re.IGNORECASE,
)
_MAX_AUTO_LENGTH = 1_500  # a longer text quotes one
_OPEN_END = re.compile(
    r"(?:[,;(\u2013-]|\b(?:and|or|but|the|a|an|to|of|with|for|your|our|is|are|will|because|und|oder|aber|der|die|das|ein"
    r"|eine|zu|mit|für|ihr|ihre|weil|et|ou|mais|le|la|les|un|une|de|du|avec|pour|votre|y|o|pero|el|los|las|una|con|para"
    r"|su))\s*$",
    re.IGNORECASE,
)
_QUESTION_END = re.compile(r"[?\uff1f\u061f]\s*(?:\S{1,3}\s*)?$")
_REPLIES = (Role.AGENT, Role.BOT)


def flags_of(conversation: Conversation) -> list[Finding]:
    """All that is found, at most one finding of each flag but ``secret``, which has one a message."""
    spoken = [
        (at, turn)
        for at, turn in enumerate(conversation.turns)
        if turn.role not in (Role.NOTE, Role.SYSTEM) and turn.text.strip()
    ]
    asked = [turn for _, turn in spoken if turn.role is Role.CUSTOMER]
    replies = [(at, turn) for at, turn in spoken if turn.role in _REPLIES]
    found = list(_sides(spoken, asked, replies))
    found += _auto_replies(asked, replies)
    if asked and replies:
        found += _end(spoken)
    for at, turn in replies:
        if secret := next(secrets_in(turn.text), None):
            found.append(Finding("secret", at, f"looks like a {secret.kind}"))
    insults = ((at, insult) for at, turn in replies if (insult := insult_in(turn.text)))
    if first := next(insults, None):
        found.append(Finding("toxic", first[0], f"a reply says “{first[1]}”"))
    return found


def _sides(
    spoken: Sequence[tuple[int, Turn]], asked: Sequence[Turn], replies: Sequence[tuple[int, Turn]]
) -> Iterator[Finding]:
    if asked and not replies:
        yield Finding(
            "no_reply", spoken[-1][0], f"{len(asked)} of the customer's messages, no reply"
        )
    if replies and not asked:
        yield Finding(
            "one_sided", None, f"{len(replies)} messages of the company, none of a customer"
        )
    if asked and replies and all(turn.role is Role.BOT for _, turn in replies):
        yield Finding("bot_only", replies[0][0], f"{len(replies)} replies, all of a bot")


def _auto_replies(asked: Sequence[Turn], replies: Sequence[tuple[int, Turn]]) -> Iterator[Finding]:
    if replies and all(is_auto_reply(turn.text) for _, turn in replies):
        yield Finding("auto_reply", replies[0][0], "every reply is an automatic message")
    elif asked and all(is_auto_reply(turn.text) for turn in asked):
        yield Finding("auto_reply", None, "all that the customer sends is automatic")


def _end(spoken: Sequence[tuple[int, Turn]]) -> Iterator[Finding]:
    at, last = spoken[-1]
    if last.role is Role.CUSTOMER and _QUESTION_END.search(last.text):
        yield Finding("cut_off", at, "the last message is a customer's question")
    elif last.role is Role.AGENT and _OPEN_END.search(last.text):
        yield Finding("cut_off", at, f"the last reply ends with '{last.text.split()[-1]}'")


def is_auto_reply(text: str) -> bool:
    """Whether a message is an automatic one: out of office, "we have received your message"."""
    return len(text) <= _MAX_AUTO_LENGTH and _AUTO_REPLY.search(text) is not None
