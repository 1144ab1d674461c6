"""What exports call the columns that are used, in a dozen languages."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from connectors.importers.normalization import normalized_words
from connectors.importers.roles import FLAG_HEADERS

Field = Literal[
    "conversation",
    "role",
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

# Headers as ``normalize`` returns them; a field's own name counts before these, an earlier line
# before a later one.
HEADERS: Mapping[Field, tuple[str, ...]] = {
    "conversation": (
        "conversationid convid conversationref ticket ticketid ticketnumber thread threadid chat "
        "chatid session sessionid dialog dialogue dialogid dialogueid case caseid casenumber "
        "transcript transcriptid ticketno ticketnum ticketnr ticketref ticketreference caseno "
        "requestid requestnumber inquiryid interaction interactionid incidentid conversationnumber",
        "ticketnummer gesprach fall anfrage vorgang vorgangsnummer fallnummer gesprachsid konversation konversationsid "
        "anfragenummer numeroticket numeroduticket idconversation iddelaconversation conversacion "
        "idconversacion iddeconversacion numerodeticket idticket conversazione idconversazione "
        "idconversa conversa gesprek gespreksid idrozmowy rozmowa диалог обращение заявка "
        "会话 会话id 对话 对话id チケット番号 会話id 티켓번호 대화id 상담번호",
        "parentid",
    ),
    "role": (
        "sendertype senderrole authortype authorrole speakerrole participanttype "
        "participantrole actortype creatortype createdbytype fromtype usertype userrole",
        "sender from participant sentby party",
        "absender absendertyp rolle sprecher expediteur emetteur remitente emisor rol mittente "
        "ruolo remetente papel afzender nadawca rola avsandare отправитель роль 发送者 发送人 "
        "角色 送信者 役割 발신자 보낸사람 역할",
        f"messagetype direction messagedirection richtung sens direccion direzione direcao "
        f"richting {' '.join(sorted(FLAG_HEADERS))}",
        "type typ tipo author actor actorid who",
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
        "",  # LIKE_A_TIME
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
CERTAIN_ROLE_LINES = (
    2  # the last line of the headers of "role" that is; the values decide on later ones
)

# The last line of "time": any header about when a row was made.
LIKE_A_TIME = re.compile(
    r"\w*(?:created|creation|sent|posted|submitted|received|written)(?:at|on|date|time|datetime|ts)"
    r"(?:utc|gmt|local|iso)?|(?:message|comment|event|chat|turn|reply)(?:at|date|time|datetime|ts)"
    r"|\w*timestamp\w*|(?:epoch|unix)\w*|datetime\w*|ts|when"
)
ANOTHER_TIME = re.compile(
    r"updat|modif|clos|solv|resol|due|birth|sync|open|start|end|first|last|seen|read|deliver|"
    r"respon|handl|wait|zone|spent|dura|assign"
)

# A date and a time of day in two columns.
DATES = normalized_words("date datum fecha data дата 日期 날짜 sentdate messagedate createddate")
CLOCKS = normalized_words(
    "time uhrzeit zeit hora heure ora tijd время 时间 時間 時刻 시간 senttime messagetime "
    "createdtime"
)
