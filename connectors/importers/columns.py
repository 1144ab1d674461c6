"""Which column of a table means what: guessed from the headers, overridden by the operator."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from connectors.conversation import Speaker
from connectors.errors import BadMapping
from connectors.importers.speakers import FLAG_HEADERS
from connectors.importers.visibility import Flag, flags_among
from connectors.importers.words import NO, YES, plain, words

Field = Literal[
    "conversation",
    "speaker",
    "text",
    "time",
    "author",
    "customer_name",
    "agent_name",
    "private",
    "public",
    "channel",
    "language",
    "question",
    "answer",
]
FIELDS: tuple[Field, ...] = get_args(Field)
Side = Literal["customer", "agent", "either"]

# Headers as ``plain`` gives them; a field's own name counts before these, an earlier line before
# a later one.
_HEADERS: Mapping[Field, tuple[str, ...]] = {
    "conversation": (
        "conversationid convid conversationref ticket ticketid ticketnumber thread threadid chat "
        "chatid session sessionid dialog dialogue dialogid dialogueid case caseid casenumber "
        "transcript transcriptid ticketno ticketnum ticketnr ticketref ticketreference caseno "
        "requestid requestnumber inquiryid interactionid incidentid",
        "ticketnummer vorgang vorgangsnummer fallnummer gesprachsid konversation konversationsid "
        "anfragenummer numeroticket numeroduticket idconversation iddelaconversation conversacion "
        "idconversacion iddeconversacion numerodeticket idticket conversazione idconversazione "
        "idconversa conversa gesprek gespreksid idrozmowy rozmowa диалог обращение заявка "
        "会话 会话id 对话 对话id チケット番号 会話id 티켓번호 대화id 상담번호",
        "parentid",
    ),
    "speaker": (
        "role sendertype senderrole authortype authorrole speakerrole participanttype "
        "participantrole actortype creatortype createdbytype fromtype usertype userrole",
        "sender from participant sentby party",
        "absender absendertyp rolle sprecher expediteur emetteur remitente emisor rol mittente "
        "ruolo remetente papel afzender nadawca rola avsandare отправитель роль 发送者 发送人 "
        "角色 送信者 役割 발신자 보낸사람 역할",
        f"messagetype direction messagedirection richtung sens direccion direzione direcao "
        f"richting {' '.join(sorted(FLAG_HEADERS))}",
        "type typ tipo author actor who",
    ),
    "text": (
        "plainbody plaintext bodytext textbody bodyplain strippedtext",
        "message body content utterance messagetext messagebody comment commentbody commenttext "
        "messagecontent chatmessage",
        "nachricht nachrichtentext inhalt mensaje contenido texto messaggio contenuto testo contenu "
        "texte mensagem conteudo bericht wiadomosc tresc meddelande besked сообщение текст "
        "消息 内容 消息内容 メッセージ 本文 메시지 내용",
        "htmlbody bodyhtml contenthtml",
    ),
    "time": (
        "timestamp date datetime sentat createdat created senttime messagetime sentdate datesent "
        "createdon createddate createdtime creationdate creationtime messagedate postedat postedon "
        "submittedat receivedat dateandtime datecreated timecreated timesent",
        "zeitstempel erstelltam erstellt gesendetam datumuhrzeit fechahora fechayhora creadoel "
        "fechadecreacion fechadeenvio enviadoel datedecreation creele dateenvoi envoyele dateheure "
        "dataora creatoil inviatoil datahora criadoem enviadoem aangemaaktop verzondenop "
        "utworzono skapad oprettet датаивремя создано 创建时间 发送时间 日時 送信日時 작성일시 일시",
        "datum zeit zeitpunkt uhrzeit fecha hora heure data ora tijd tijdstip дата время "
        "日期 时间 時間 時刻 날짜 시간 작성일",
        "",  # _LIKE_A_TIME
    ),
    "author": (
        "authorname sendername speakername writername fromname createdbyname",
        "name fullname displayname",
        "sender from participant actor",
    ),
    "customer_name": (),  # found among the columns that are left, by side
    "agent_name": (),
    "private": (),
    "public": (),
    "channel": ("medium", "kanal canal canale kanaal канал 渠道 チャネル 채널"),
    "language": ("lang locale",),
    "question": (
        "instruction query prompt customermessage customerquestion userquestion usermessage "
        "customer input",
        "frage pregunta domanda pergunta vraag pytanie вопрос 问题 質問 질문",
    ),
    "answer": (
        "response reply output completion agentreply agentresponse agentmessage "
        "assistantresponse agent",
        "antwort respuesta reponse risposta resposta antwoord odpowiedz ответ 答案 回答 答复 답변",
    ),
}
_SURE_SPEAKER_LINES = 3  # of the headers of "speaker"; after these the values have to bear it out

# The last line of "time": whatever speaks of when a row came to be.
_LIKE_A_TIME = re.compile(
    r"(?:created|creat|sent|posted|submitted|received|written|message|comment|event|chat|turn|reply)"
    r"\w*(?:at|on|date|time|datetime|timestamp|ts|utc|gmt)|timestamp\w*|\w*timestamp|datetime\w*|ts"
)
_ANOTHER_TIME = re.compile(
    r"updat|modif|clos|solv|resol|due|birth|sync|open|start|end|first|last|seen|read|deliver|"
    r"respon|handl|wait|zone|spent|dura|assign"
)

# A date and a time of day in two columns.
_DATES = words("date datum fecha data дата 日期 날짜 sentdate messagedate createddate")
_CLOCKS = words(
    "time uhrzeit zeit hora heure ora tijd время 时间 時間 時刻 시간 senttime messagetime "
    "createdtime"
)

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
_OTHER_NAMES = words(
    "name fullname displayname nickname firstname lastname surname givenname familyname authorname "
    "sendername speakername vorname nachname prenom apellido apellidos cognome imie nazwisko "
    "author autor auteur username screenname handle"
)
_PRIVATE = "private:"
_IN_BRACKETS = re.compile(
    r"\s+(?:\([^()]*\)|\[(?:utc|gmt)[^\[\]]*\])\s*$", re.IGNORECASE
)  # "Created at (UTC)"
_FULL_NAME = re.compile(
    r"[^\W\d_][\w.'\u2019-]*(?: [^\W\d_][\w.'\u2019-]*)+|[\u3400-\u9fff\uac00-\ud7a3]{2,6}"
)
_NO_PERSON = (
    "company", "organi", "account", "group", "team", "queue", "file", "product", "brand", "domain",
    "inbox", "campaign", "department", "firma", "empresa", "azienda", "host", "event",
    "email", "mail", "id", "type", "phone",
)  # fmt: skip


class NameColumn(NamedTuple):
    """A column of people's names. A ``bare`` one ("customer") may hold something else as well."""

    at: int
    side: Side
    bare: bool = False

    def name_in(self, fields: Sequence[str]) -> str | None:
        """The row's name; of a bare column only what looks like one: two words, no figures."""
        value = " ".join(fields[self.at].split())
        if not value or (self.bare and not _FULL_NAME.fullmatch(value)):
            return None
        return value


class Columns(NamedTuple):
    """The position of each known column. Pairs have a question and an answer in each row.

    ``date`` is the day's column where ``time`` is a time of day. ``flags`` say which rows nobody
    outside was meant to read. ``names`` hold people's names, by whose side they belong to.
    ``sure`` is false where only the values can tell whether the speaker's column is one.
    """

    pairs: bool
    at: dict[Field, int]
    date: int | None = None
    flags: tuple[Flag, ...] = ()
    names: tuple[NameColumn, ...] = ()
    sure: bool = True


def parse_map(items: Iterable[str]) -> tuple[dict[str, str], dict[str, Speaker]]:
    """Read ``--map`` arguments: ``text=Message,author=Name`` and ``speaker:Kunde=customer``.

    ``private:Intern=yes`` says what a value of the column ``private`` (or ``public``) means.
    Returns column mapping (those with it) and speaker values, as ``ImportOptions`` takes them.

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
            if not left.startswith(_PRIVATE):
                _check_field(left)
            mapping[left] = right
    private_values(mapping)
    return mapping, speakers


def private_values(mapping: Mapping[str, str]) -> dict[str, bool]:
    """The ``private:VALUE`` of a mapping: value -> whether the row is a note.

    Raises:
        BadMapping: one is neither yes nor no.
    """
    values = {}
    for left, right in mapping.items():
        if left.startswith(_PRIVATE):
            if plain(right) not in YES | NO:
                raise BadMapping(f"--map {left}={right}: {right!r} is neither yes nor no")
            values[left.removeprefix(_PRIVATE)] = plain(right) in YES
    return values


def choose_columns(headers: Sequence[str], mapping: Mapping[str, str]) -> Columns:
    """Find the columns, the operator's word before the guess.

    Raises:
        BadMapping: a named column is not there, a needed one cannot be told, or both a
            question/answer and a turn-by-turn reading would fit.
    """
    bare = [_IN_BRACKETS.sub("", header) or header for header in headers]
    index: dict[Field, int] = {}
    fields = {
        _check_field(name): header
        for name, header in mapping.items()
        if not name.startswith(_PRIVATE)
    }
    for field, header in fields.items():
        index[field] = _position(header, headers)
    unclear: dict[Field, list[str]] = {}
    sure = True
    date, clock = _date_and_clock(bare) if "time" not in index else (None, None)
    if clock is not None:
        index["time"] = clock
    for field in FIELDS:
        if field not in index:
            found, line = _candidates(field, bare, taken={*index.values(), date})
            if len(found) == 1 or (found and field == "time"):
                index[field] = found[0]
                sure = sure and (field != "speaker" or line <= _SURE_SPEAKER_LINES)
            elif found:
                unclear[field] = [headers[at] for at in found]
    pairs = _is_pairs(index, mapping, headers, sure=sure)
    wanted: tuple[Field, ...] = (
        ("question", "answer") if pairs else ("conversation", "speaker", "text")
    )
    missing = [field for field in wanted if field not in index]
    if missing:
        raise BadMapping(_what_to_pass(headers, missing, unclear))
    kept: tuple[Field, ...] = ("conversation", "time", "channel", "language", *_BY_HAND)
    if not pairs:
        kept = (*kept, "author")
    index = {f: at for f, at in index.items() if f in (*wanted, *kept)}
    if pairs:
        rows = [at for at, header in enumerate(bare) if plain(header) == "id"]
        if "conversation" not in index and len(rows) == 1:
            index["conversation"] = rows[0]
    taken = {*index.values(), date}
    named = {field: index.pop(field) for field in _BY_HAND if field in index}
    return Columns(
        pairs,
        index,
        date=date,
        flags=_flags(bare, index, named, taken),
        names=_names(bare, named, taken),
        sure=sure or pairs,
    )


_BY_HAND: tuple[Field, ...] = ("customer_name", "agent_name", "private", "public")


def what_to_pass(headers: Sequence[str], missing: Sequence[Field]) -> BadMapping:
    """The error for columns that the values turned out not to bear out."""
    return BadMapping(_what_to_pass(headers, missing, {}))


def _flags(
    headers: Sequence[str],
    index: Mapping[Field, int],
    named: Mapping[Field, int],
    taken: set[int | None],
) -> tuple[Flag, ...]:
    told = tuple(
        Flag(named[field], headers[named[field]], field, told=True)
        for field in ("private", "public")
        if field in named
    )
    free = [(at, header) for at, header in enumerate(headers) if at not in taken]
    if "channel" in index:
        free.append((index["channel"], headers[index["channel"]]))
    return told or flags_among(free)


def _names(
    headers: Sequence[str], named: Mapping[Field, int], taken: set[int | None]
) -> tuple[NameColumn, ...]:
    found: list[NameColumn] = []
    for at, header in enumerate(headers):
        if at == named.get("customer_name"):
            found.append(NameColumn(at, "customer"))
        elif at == named.get("agent_name"):
            found.append(NameColumn(at, "agent"))
        elif at not in taken and (column := name_column(at, header)):
            found.append(column)
    return tuple(found)


def name_column(at: int, header: str) -> NameColumn | None:
    """Whose name a column holds; None where it holds no name of a person."""
    word = plain(header)
    if word in _OTHER_NAMES:
        return NameColumn(at, "either")
    bare = word in _AGENT_WORDS or word in _CUSTOMER_WORDS
    parts = {plain(part) for part in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", header)}
    if not bare and not any(part in word for part in _NAME_WORDS):
        return None
    if any(part in parts if len(part) < 5 else part in word for part in _NO_PERSON):  # noqa: PLR2004
        return None
    if any(part in word for part in _AGENT_WORDS):
        return NameColumn(at, "agent", bare)
    return (
        NameColumn(at, "customer", bare) if any(part in word for part in _CUSTOMER_WORDS) else None
    )


def _date_and_clock(headers: Sequence[str]) -> tuple[int | None, int | None]:
    dates = [at for at, header in enumerate(headers) if plain(header) in _DATES]
    clocks = [at for at, header in enumerate(headers) if plain(header) in _CLOCKS]
    return (dates[0], clocks[0]) if len(dates) == len(clocks) == 1 else (None, None)


def _check_field(name: str) -> Field:
    for field in FIELDS:
        if field == name:
            return field
    raise BadMapping(f"no field {name!r}; there are: {', '.join(FIELDS)}")


def _position(header: str, headers: Sequence[str]) -> int:
    exact = [at for at, found in enumerate(headers) if found == header]
    loose = [at for at, found in enumerate(headers) if plain(found) == plain(header)]
    found = exact or loose
    if len(found) != 1:
        how = "no column" if not found else "more than one column"
        raise BadMapping(f"{how} {header!r}; the file has: {', '.join(headers)}")
    return found[0]


def _candidates(
    field: Field, headers: Sequence[str], *, taken: set[int | None]
) -> tuple[list[int], int]:
    """The columns that fit best, and in which line of the headers (0: the field's own name)."""
    free = [(at, plain(header)) for at, header in enumerate(headers) if at not in taken]
    for line, known in enumerate((field, *_HEADERS[field])):
        if found := [at for at, word in free if word in words(known)]:
            return found, line
        if not known:
            found = [
                at
                for at, word in free
                if _LIKE_A_TIME.fullmatch(word) and not _ANOTHER_TIME.search(word)
            ]
            return found, line
    return [], 0


def _is_pairs(
    index: Mapping[Field, int], mapping: Mapping[str, str], headers: Sequence[str], *, sure: bool
) -> bool:
    if "question" in mapping or "answer" in mapping:
        return True
    if "text" in mapping or "speaker" in mapping:
        return False
    pairs = "question" in index and "answer" in index
    turns = "speaker" in index and "text" in index
    if pairs and turns and not sure:  # "type" beside questions and answers
        return True
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
