"""The roles behind the values of a table's role column.

Some words can mean either side: "user" is the customer beside "admin" or "bot", and the agent
beside "contact" (Chatwoot, Help Scout, Drift). So a file's words are collected first, with those
that occur in one conversation, and then resolved.
"""

import re
from collections.abc import Collection, Mapping

import msgspec

from connectors.conversation import Role
from connectors.importers.normalization import (
    MAX_WORD_LENGTH,
    NO_WORDS,
    YES_WORDS,
    normalize,
    normalized_words,
)

_ROLE_WORDS: Mapping[Role, str] = {
    Role.CUSTOMER: "customer client visitor human consumer guest enduser requester requestor "
    "buyer shopper caller contact member lead patient passenger subscriber incoming inbound "
    "received in endcustomer customercontact "
    "kunde kundin kundinnen besucher besucherin gast anrufer anruferin interessent kontakt "
    "anfragender anfragesteller eingehend eingang empfangen "
    "visiteur visiteuse demandeur demandeuse entrant entrante recu acheteur "
    "cliente clienta visitante solicitante contacto comprador llamante recibido recibida "
    "visitatore richiedente contatto acquirente inentrata ricevuto entrata "
    "recebido recebida contato contacto entrada "
    "klant bezoeker aanvrager koper inkomend ontvangen "
    "klient klientka odwiedzajacy gosc kupujacy przychodzace przychodzaca przychodzacy "
    "kund besokare kunden kopare inkommande gaest kobende indgaende innkommende asiakas "
    "klienten zakaznik zakaznice ugyfel musteri ziyaretci gelen "
    "клиент клиентка посетитель заявитель покупатель гость входящее входящий входящая "
    "клієнт відвідувач вхідне πελατης 客户 客戶 顾客 顧客 访客 訪客 买家 買家 访问者 收到 "
    "お客様 お客さま 訪問者 受信 고객 고객님 방문자 구매자 수신 عميل العميل زبون לקוח khachhang "
    "pelanggan ลูกค้า",
    Role.AGENT: "agent assistant support supportagent humanagent operator representative rep "
    "staff employee advisor adviser admin administrator helpdesk service csr team outgoing "
    "outbound sent out assignee responder owner moderator technician specialist consultant "
    "teammate host seller merchant vendor customersupport customerservice customercare "
    "customersuccess customerserviceagent customerservicerepresentative customersupportagent "
    "supportteam supportstaff supportrep serviceagent servicedesk liveagent lightagent "
    "mitarbeiter mitarbeiterin berater beraterin bearbeiter bearbeiterin sachbearbeiter "
    "sachbearbeiterin kundenservice kundenbetreuer kundenbetreuerin kundendienst betreuer "
    "techniker ausgehend ausgang gesendet "
    "conseiller conseillere operateur operatrice technicien technicienne gestionnaire "
    "serviceclient sortant sortante envoye envoyee vendeur "
    "agente asesor asesora operador operadora soporte atencionalcliente servicioalcliente "
    "saliente enviado enviada empleado vendedor tecnico "
    "operatore operatrice assistenza consulente addetto servizioclienti inuscita uscita inviato "
    "atendente suporte atendimento saida enviado consultor funcionario "
    "medewerker medewerkster behandelaar adviseur klantenservice uitgaand verzonden verkoper "
    "konsultant konsultantka pracownik wychodzace wychodzaca wychodzacy sprzedawca obsluga "
    "handlaggare medarbetare kundtjanst utgaende medarbejder kundeservice saksbehandler "
    "asiakaspalvelija operatorka podpora ugyintezo temsilci destek giden "
    "оператор агент сотрудник поддержка менеджер специалист консультант исходящее исходящий "
    "исходящая продавец підтримка вихідне υποστηριξη 客服 坐席 座席 商家 卖家 賣家 客服人员 "
    "客服人員 发送 发出 担当者 担当 オペレーター エージェント サポート 送信 상담원 상담사 담당자 "
    "에이전트 판매자 발신 وكيل موظف الدعم נציג nhanvien เจ้าหน้าที่",
    Role.BOT: "bot chatbot agentbot aibot virtualassistant virtualagent ai aiagent automated "
    "automatic automation autoresponder autoreply answerbot captainassistant template campaign "
    "workflow botti робот бот 机器人 機器人 ボット 봇 챗봇",
    Role.NOTE: "note notes internal internalnote internalnotes privatenote private "
    "internalcomment privatecomment internalmessage agentnote staffnote whisper "
    "notiz internenotiz privatenotiz interneanmerkung anmerkung vermerk intern privat "
    "noteinterne noteprivee notainterna notaprivada notaprivata interne notitie internenotitie "
    "interneopmerking notatka notatkawewnetrzna wewnetrzna interna interno anteckning "
    "interntnotat notat dahilinot заметка примечание внутренняязаметка внутренний внутренняя "
    "внутреннийкомментарий 备注 內部備註 内部备注 内部 メモ 社内メモ 内部メモ 메모 내부메모",
    Role.SYSTEM: "system event activity systemmessage lineitem log trigger systeme sistema "
    "systeem ereignis система системное 系统 系統 システム 시스템",
}
# Either side: the opposite of the side that is clearly there.
_EITHER = normalized_words(
    "user users enduseraccount benutzer nutzer anwender utilisateur utilisatrice usuario usuaria "
    "utente utilizador gebruiker uzytkownik anvandare bruger bruker uzivatel kullanici "
    "пользователь користувач 用户 用戶 ユーザー 사용자 مستخدم"
)
# Names of a public answer in exports where only the customer's messages have a name of their own.
_REPLY = normalized_words("message reply response answer antwort reponse respuesta risposta")
_CODES = {"a": Role.AGENT, "v": Role.CUSTOMER, "c": Role.CUSTOMER, "u": Role.CUSTOMER}
_CODES |= {"b": Role.BOT, "s": Role.SYSTEM, "n": Role.NOTE}
_CODES |= {"m": Role.CUSTOMER, "r": Role.AGENT}  # osTicket's messages and responses
_NUMBERED = dict(  # Chatwoot's message_type
    zip("0123", (Role.CUSTOMER, Role.AGENT, Role.SYSTEM, Role.BOT), strict=True)
)
_MESSAGE_TYPE = "messagetype"
# Headers of a column of yes and no, by the role that yes means.
_YES_IS_CUSTOMER = normalized_words(
    "incoming isincoming inbound isinbound fromcustomer iscustomer fromclient isclient fromuser "
    "isuser fromvisitor isvisitor fromcontact iscontact fromenduser bycustomer"
)
_YES_IS_AGENT = normalized_words(
    "outgoing isoutgoing outbound isoutbound fromagent isagent agentreply isagentreply fromstaff "
    "isstaff fromsupport issupport fromadmin isadmin fromoperator isoperator byagent "
    "isreply isresponse"
)
FLAG_HEADERS = _YES_IS_CUSTOMER | _YES_IS_AGENT
_ENDINGS = ("message", "messages", "msg", "reply", "response", "comment", "nachricht")
_LEADING = re.compile(r"\s*([^\W\d_][^:(#|/\u2013]*?)\s*(?:[:(#|/\u2013]|[-_\s]+\d|\s-\s)")
_NAME = re.compile(r"[^\W\d_][^\d_:(){}\[\]@]*")
_IN_BRACKETS = re.compile(r"[(\[]([^()\[\]]+)[)\]]\s*$")
_MAX_VALUES = 64


def _words() -> dict[str, Role]:
    return {normalize(word): role for role, known in _ROLE_WORDS.items() for word in known.split()}


_WORDS = _words()
NOTE_WORDS = frozenset(word for word, role in _WORDS.items() if role is Role.NOTE)
SYSTEM_WORDS = frozenset(word for word, role in _WORDS.items() if role is Role.SYSTEM)
_ALONE = {normalize(word): Role.CUSTOMER for word in _EITHER}
_DEPENDENT = _REPLY.union(_ALONE)
_KNOWN = _DEPENDENT.union(_WORDS)


class _Value(msgspec.Struct):
    """A word of the column: as first written, and the role that the operator gave it."""

    written: str
    given: Role | None


class RoleResolver:
    """Maps a file's values to roles: ``observe`` every row, ``resolve``, then ``role_of``.

    ``observe_conversation`` tells which words occur together.

    Args:
        header: The column's header: it gives meaning to numbers and to yes and no.
        given: Values whose role the operator gave.
    """

    def __init__(self, header: str, given: Mapping[str, Role]) -> None:
        self._header = normalize(header)
        self._given = {word.strip().casefold(): role for word, role in given.items()}
        self._values: dict[str, _Value] = {}
        self._seen_together: set[tuple[str, str]] = set()
        self._by_file: dict[str, Role] = {}
        self._beside: dict[str, str] = {}
        self._word_of: dict[str, str] = {}

    def observe(self, value: str) -> str:
        """Take a row's value; returns the word for ``observe_conversation``."""
        word = self._word(value)
        if word and word not in self._values and len(self._values) < _MAX_VALUES:
            written = value.strip()
            given = self._given.get(written.casefold())
            # of "Jo Low (agent)" only the word: the report names no person
            self._values[word] = _Value(written if normalize(written) == word else word, given)
        return word

    def observe_conversation(self, words: Collection[str]) -> None:
        """Take the different words of one conversation."""
        for word in _DEPENDENT.intersection(words):
            self._seen_together |= {
                (word, other) for other in words if self._is(other, Role.CUSTOMER)
            }

    def resolve(self) -> None:
        """Decide on the words that depend on the others; call once, before ``role_of``."""
        words = set(self._values)
        if not words:
            return
        if self._header in FLAG_HEADERS and words <= YES_WORDS | NO_WORDS:
            other = {Role.CUSTOMER: Role.AGENT, Role.AGENT: Role.CUSTOMER}
            yes = Role.CUSTOMER if self._header in _YES_IS_CUSTOMER else Role.AGENT
            self._by_file = {word: yes if word in YES_WORDS else other[yes] for word in words}
        elif self._header == _MESSAGE_TYPE and words <= set(_NUMBERED):
            self._by_file = dict(_NUMBERED)
        elif len(words) > 1 and words <= set(_CODES):
            self._by_file = dict(_CODES)
        elif not any(self._is(word, Role.AGENT) for word in words):
            for word, customer in sorted(self._seen_together):
                self._by_file[word] = Role.AGENT
                self._beside[word] = self._values[customer].written

    def role_of(self, value: str) -> Role | None:
        """The value's role; None where it is unknown."""
        given = self._given.get(value.strip().casefold())
        word = self._word(value)
        return given or self._by_file.get(word) or _WORDS.get(word) or _ALONE.get(word)

    def name_in(self, value: str) -> str | None:
        """The person's name beside the word: "Jo Low (agent)", "Agent: Jo Low"."""
        if (
            len(value) > MAX_WORD_LENGTH
            or self.role_of(value) is None
            or self._word(value) == normalize(value)
        ):
            return None
        beside = _IN_BRACKETS.search(value)
        name = value[: beside.start()] if beside else value.partition(":")[2]
        name = " ".join(name.split())
        named = _NAME.fullmatch(name) and normalize(name) not in _KNOWN
        return name if named else None

    @property
    def has_participants(self) -> bool:
        """Whether some value is the customer or the agent; true for a column without values."""
        sides = {Role.CUSTOMER, Role.AGENT}
        values = self._values.values()
        return not values or any(self.role_of(value.written) in sides for value in values)

    def __str__(self) -> str:
        """The roles, for the report: "Contact=customer, User=agent (beside 'Contact')"."""
        parts = []
        for word, value in self._values.items():
            if role := self.role_of(value.written):
                beside = f" (beside {self._beside[word]!r})" if word in self._beside else ""
                parts.append(f"{value.written}={role}{'' if value.given else beside}")
        return ", ".join(parts)

    def _word(self, value: str) -> str:
        word = self._word_of.get(value)
        if word is None:
            word = _word_in(value)
            if len(self._word_of) < _MAX_VALUES and len(value) <= MAX_WORD_LENGTH:
                self._word_of[value] = word
        return word

    def _is(self, word: str, role: Role) -> bool:
        """Whether a word has this role by itself, or because the operator said so."""
        value = self._values.get(word)
        return role is ((value and value.given) or _WORDS.get(word))


def _word_in(value: str) -> str:
    """The word for the role: also in "agent:4039", "Customer (web)", "Jo (agent)", "user_reply"."""
    word = normalize(value)
    if word in _KNOWN or len(value) > MAX_WORD_LENGTH:
        return word
    beside = (_LEADING.match(value), _IN_BRACKETS.search(value))
    for candidate in (word, *(normalize(found[1]) for found in beside if found)):
        for ending in ("", *_ENDINGS):
            if candidate.endswith(ending) and candidate.removesuffix(ending) in _KNOWN:
                return candidate.removesuffix(ending)
    return word
