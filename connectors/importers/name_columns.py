"""Columns, and fields of records, that hold people's names: recognized by their headers."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from connectors.conversation import Role
from connectors.importers.normalization import normalize, normalized_words

_NAME_WORDS = ("name", "nom", "nombre", "nome", "naam", "navn", "namn", "imie", "nazwisko", "apellido",
    "cognome", "имя", "фамилия", "姓名", "名字", "氏名", "名前", "이름", "성함")  # fmt: skip
_AGENT_WORDS = (
    "agent", "assignee", "operator", "admin", "representative", "advisor", "adviser", "staff",
    "support", "employee", "helpdesk", "responder", "teammate", "technician", "consultant",
    "mitarbeiter", "bearbeiter", "berater", "betreuer", "conseiller", "operateur", "agente",
    "asesor", "operador", "atendente", "operatore", "addetto", "medewerker", "behandelaar",
    "konsultant", "handlaggare", "medarbejder", "оператор", "агент", "сотрудник", "客服", "担当者",
    "상담원", "상담사",
)  # fmt: skip
_CUSTOMER_WORDS = (
    "customer", "client", "user", "requester", "requestor", "contact", "visitor", "guest", "caller",
    "consumer", "member", "lead", "buyer", "shopper", "patient", "submitter", "kunde", "kundin",
    "besucher", "anrufer", "demandeur", "visiteur", "cliente", "usuario", "visitante",
    "solicitante", "utente", "klant", "bezoeker", "klient", "kund", "клиент", "客户", "顾客", "お客様",
    "顧客", "고객",
)  # fmt: skip
_ANY_NAME_HEADERS = normalized_words(
    "name fullname displayname nickname firstname lastname surname givenname familyname authorname "
    "sendername speakername vorname nachname prenom apellido apellidos cognome imie nazwisko "
    "author autor auteur username screenname handle"
)
_NOT_PERSON_WORDS = (
    "company", "organi", "account", "group", "team", "queue", "file", "product", "brand", "domain",
    "inbox", "campaign", "department", "firma", "empresa", "azienda", "host", "event",
    "email", "mail", "id", "type", "phone",
)  # fmt: skip
_FULL_NAME = re.compile(
    r"[^\W\d_][\w.'\u2019-]*(?: [^\W\d_][\w.'\u2019-]*)+|[\u3400-\u9fff\uac00-\ud7a3]{2,6}"
)


class NameColumn(NamedTuple):
    """A column of people's names.

    A ``bare`` one ("customer") may also hold other things. ``side`` is the role of the person;
    ``NOTE`` where the header does not say whose name it is.
    """

    at: int
    side: Role
    bare: bool = False

    def name_in(self, fields: Sequence[str]) -> str | None:
        """The row's name; in a bare column only what looks like one: two words, no digits."""
        value = " ".join(fields[self.at].split())
        if not value or (self.bare and not _FULL_NAME.fullmatch(value)):
            return None
        return value


def name_column(at: int, header: str) -> NameColumn | None:
    """The column as one of names; None where its header is not about a person's name."""
    word = normalize(header)
    if word in _ANY_NAME_HEADERS:
        return NameColumn(at, Role.NOTE)
    bare = word in _AGENT_WORDS or word in _CUSTOMER_WORDS
    parts = {normalize(part) for part in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", header)}
    if not bare and not any(part in word for part in _NAME_WORDS):
        return None
    if any(part in parts if len(part) < 5 else part in word for part in _NOT_PERSON_WORDS):  # noqa: PLR2004
        return None
    if any(part in word for part in _AGENT_WORDS):
        return NameColumn(at, Role.AGENT, bare)
    return (
        NameColumn(at, Role.CUSTOMER, bare)
        if any(part in word for part in _CUSTOMER_WORDS)
        else None
    )
