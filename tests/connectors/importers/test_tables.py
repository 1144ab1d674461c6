"""What no row of a table tells by itself, and what is assumed about the whole of it."""

import io

import pytest

from connectors.conversation import Conversation, Role, chat_messages
from connectors.errors import BadMapping
from connectors.import_pipeline import run_import
from connectors.importers import IMPORTERS, ImportOptions, Reason, Rejected, parse_map
from connectors.importers.address_columns import is_address_header
from connectors.redaction.redactor import Redactor


class Read:
    """A table as it was read."""

    def __init__(self, table: str | bytes, *, told: str = "", **options) -> None:
        mapping, roles = parse_map([told])
        data = table.encode() if isinstance(table, str) else table
        self.notes: dict[str, str] = {}
        items = list(
            IMPORTERS["csv"].read(
                io.BytesIO(data),
                ImportOptions(mapping=mapping, roles=roles, **options),
                self.notes.__setitem__,
            )
        )
        self.kept = [item for item in items if isinstance(item, Conversation)]
        self.rejected = [item for item in items if isinstance(item, Rejected)]

    @property
    def texts(self) -> list[str]:
        return [turn.text for turn in self.kept[0].turns]

    @property
    def speakers(self) -> list[str]:
        return [turn.role.value for conversation in self.kept for turn in conversation.turns]


def rows(header: str, *lines: str) -> str:
    return "\n".join([header, *lines]) + "\n"


# order of turns


@pytest.mark.parametrize(
    "times",
    [
        ["05/06/2031 11:00", "05/06/2031 10:50", "05/06/2031 10:20", "05/06/2031 10:00"],
        ["6/13/2031 1:00 AM", "6/12/2031 11:50 PM", "6/12/2031 12:20 PM", "6/12/2031 9:00 AM"],
        ["13.06.2031 11:00", "12.06.2031 10:50", "2.06.2031 10:20", "31.5.2031 10:00"],
        ["June 13, 2031", "June 12, 2031", "June 2, 2031", "May 31, 2031"],
        ["2031-06-13 10:00:00 UTC", "2031-06-12 10:00:00 UTC", "2031-06-02 10:00 UTC", "2031-05-31 UTC"],
        ["1938765600000", "1938765540000", "1938765480000", "1938765420000"],
        ["13/06/2031", "", "02/06/2031", "31/05/2031"],
        ["13/06/2031 10:00", "13/06/2031 10:00", "13/06/2031 10:00", "13/06/2031 09:59"],
        ["11:00", "10:50", "10:20", "10:00"],
    ],
)  # fmt: skip
def test_a_file_with_the_newest_first_is_turned_round(times):
    said = [("agent", "A2"), ("customer", "Q2"), ("agent", "A1"), ("customer", "Q1")]
    lines = [f'7,{who},{text},"{time}"' for (who, text), time in zip(said, times, strict=True)]
    read = Read(rows("ticket,sender,message,created at", *lines))
    assert not read.rejected
    assert read.texts == ["Q1", "A1", "Q2", "A2"]
    assert "1 newest first" in read.notes["order"]


def test_equal_times_of_a_file_with_the_newest_first_are_turned_round_too():
    read = Read(
        rows(
            "ticket,sender,message,time",
            "1,agent,A,2031-06-01 10:00",
            "1,customer,Q,2031-06-01 10:00",
            "2,agent,A,2031-05-02 10:00",
            "2,customer,Q,2031-05-01 10:00",
        )
    )
    assert [[turn.text for turn in each.turns] for each in read.kept] == [["Q", "A"], ["Q", "A"]]


def test_a_file_with_the_newest_first_may_hold_a_conversation_that_is_not():
    read = Read(
        rows(
            "ticket,sender,message,time",
            *(
                f"{n},agent,A,{n}/13/2031 10:01\n{n},customer,Q,{n}/13/2031 10:00"
                for n in (5, 4, 3)
            ),
            "2,customer,Q,2/28/2031 12:05 AM",
            "2,agent,A,2/28/2031 12:06 AM",
        )
    )
    assert [[turn.text for turn in each.turns] for each in read.kept] == [["Q", "A"]] * 4
    assert "3 newest first, 0 in another order" in read.notes["order"]


def test_a_turn_without_a_time_stays_beside_the_one_before_it():
    read = Read(
        rows(
            "ticket,sender,message,time",
            "1,customer,Q2,2031-06-01 12:00",
            "1,agent,A2,",
            "1,customer,Q1,2031-06-01 10:00",
            "1,agent,A1,a while later",
            "1,customer,Q3,2031-06-01 13:00",
        )
    )
    assert read.texts == ["Q1", "A1", "Q2", "A2", "Q3"]
    assert "1 of 4 are not understood, such as 'a while later' in line 5" in read.notes["times"]


def test_the_file_tells_how_untimed_turns_of_one_conversation_stand():
    read = Read(
        rows(
            "ticket,sender,message,time",
            *(
                f"{n},customer,q,2031-06-01 10:00\n{n},agent,a,2031-06-01 10:01"
                for n in range(3, 9)
            ),
            "1,customer,Q2,2031-06-01 12:00",
            "1,agent,A2,",
            "1,customer,Q1,2031-06-01 10:00",
            "1,agent,A1,",
        )
    )
    assert [turn.text for turn in read.kept[-1].turns] == ["Q1", "A1", "Q2", "A2"]


def test_a_conversation_over_midnight_with_times_of_day_alone_stays_as_it_is():
    read = Read(rows("ticket,sender,message,time", "1,customer,Q,23:59", "1,agent,A,00:01"))
    assert read.texts == ["Q", "A"]


def test_a_date_and_a_time_in_two_columns_are_one():
    read = Read(
        rows(
            "Ticketnummer;Absender;Nachricht;Datum;Uhrzeit",
            "1;Kunde;später;02.03.2031;09:00",
            "1;Kunde;früher;01.03.2031;10:00",
        )
    )
    assert read.texts == ["früher", "später"]
    assert read.kept[0].turns[0].sent_at == "01.03.2031 10:00"


@pytest.mark.parametrize("header", ["Created At (UTC)", "message_created_at", "Timestamp [UTC]"])
def test_a_time_column_is_known_by_other_names(header):
    read = Read(rows(f"ticket,sender,message,{header}", "1,agent,A,20", "1,customer,Q,10"))
    assert f"time={header}" in read.notes["columns"]


def test_a_file_that_does_not_tell_day_from_month_is_refused_until_it_is_said():
    table = rows("ticket,sender,message,date", "1,customer,Q,01/02/2031", "1,agent,A,02/01/2031")
    with pytest.raises(BadMapping, match="--dates"):
        Read(table)
    assert Read(table, dates="month-first").texts == ["Q", "A"]
    assert Read(table, dates="day-first").texts == ["A", "Q"]


def test_without_times_a_file_that_looks_turned_round_is_told_and_can_be_turned():
    table = rows("ticket,sender,message", "1,agent,A,", "1,customer,Q,")
    read = Read(table)
    assert read.texts == ["A", "Q"]
    assert "--order newest-first" in read.notes["order"]
    assert Read(table, order="newest-first").texts == ["Q", "A"]


# who speaks


@pytest.mark.parametrize(
    ("header", "values", "speakers"),
    [
        ("sender_type", "Contact User", "customer agent"),
        ("sender_type", "Contact User AgentBot", "customer agent bot"),
        ("created_by_type", "customer user", "customer agent"),
        ("rolle", "Kontakt Benutzer", "customer agent"),
        ("author_type", "user admin contact", "customer agent customer"),
        ("role", "user assistant", "customer agent"),
        ("author_role", "end-user agent admin", "customer agent agent"),
        ("from", "visitor operator", "customer agent"),
        ("sender", "requester assignee", "customer agent"),
        ("direction", "inbound outbound", "customer agent"),
        ("message_type", "incoming outgoing", "customer agent"),
        ("message_type", "0 1 2 3", "customer agent system bot"),
        ("type", "customer message note lineitem", "customer agent note system"),
        ("type", "M R N", "customer agent note"),
        ("incoming", "true false", "customer agent"),
        ("from_agent", "0 1", "customer agent"),
        ("sender", "client support", "customer agent"),
        ("actor_id", "visitor:1 agent:40", "customer agent"),
        ("author", "Jane(Customer) Tom(Agent)", "customer agent"),
        ("absender", "Kundin Mitarbeiterin", "customer agent"),
        ("expéditeur", "Demandeur Conseillère", "customer agent"),
        ("remitente", "Cliente Agente Asesor", "customer agent agent"),
        ("mittente", "Richiedente Operatore", "customer agent"),
        ("remetente", "Solicitante Atendente", "customer agent"),
        ("afzender", "Klant Medewerker", "customer agent"),
        ("отправитель", "Клиент Оператор", "customer agent"),
        ("角色", "客户 客服", "customer agent"),
        ("送信者", "お客様 担当者", "customer agent"),
        ("역할", "고객 상담원", "customer agent"),
    ],
)
def test_who_a_word_is_depends_on_the_others_in_the_file(header, values, speakers):
    lines = [f"1,{value},text" for value in values.split()]
    read = Read(rows(f"conversation,{header},body", *lines))
    assert not read.rejected
    assert read.speakers == speakers.split()


def test_the_report_says_who_was_taken_for_whom_and_why():
    read = Read(rows("conversation,sender_type,body", "1,Contact,a", "1,User,b"))
    assert read.notes["roles"] == "Contact=customer, User=agent (beside 'Contact')"


def test_a_user_who_never_meets_the_other_customers_is_one_of_them():
    read = Read(
        rows("ticket,role,text", "1,user,q", "1,bot,a", "2,customer,q", "2,bot,a"),
    )
    assert read.speakers == ["customer", "bot"] * 2


def test_a_word_said_by_hand_counts_before_what_the_file_tells():
    table = rows("conversation,sender_type,body", "1,Contact,a", "1,User,b")
    assert Read(table, told="role:User=customer").speakers == ["customer", "customer"]


def test_a_column_that_does_not_say_who_speaks_is_asked_for():
    with pytest.raises(BadMapping, match="role=COLUMN"):
        Read(rows("ticket,type,text", "1,incident,a", "1,question,b"))


@pytest.mark.parametrize(
    ("table", "note"),
    [
        (rows("ticket,role,text", "1,customer,q", "1,client,a"), "no agent"),
        (rows("ticket,role,text", "1,agent,q", "1,support,a"), "no customer"),
    ],
)
def test_a_file_with_one_side_alone_says_so(table, note):
    run = run_import(io.BytesIO(table.encode()), "x.csv")
    list(run)
    assert "--map 'role:VALUE=" in run.report.notes[note]
    assert sum(run.report.roles.values()) == 2


# internal notes


@pytest.mark.parametrize(
    ("header", "note", "reply"),
    [
        ("private", "true", "false"),
        ("public", "false", "true"),
        ("Public?", "No", "Yes"),
        ("is_private", "1", "0"),
        ("is_internal", "TRUE", "FALSE"),
        ("internal", "yes", ""),
        ("IsPublished", "0", "1"),
        ("IsVisibleForCustomer", "0", "1"),
        ("intern", "ja", "nein"),
        ("interne", "oui", "non"),
        ("privado", "sí", "no"),
        ("приватный", "да", "нет"),
        ("type", "note", "comment"),
        ("part_type", "note", "comment"),
        ("part_type", "note", "assignment"),
        ("comment_type", "Internal comment", "Public comment"),
        ("ArticleType", "note-internal", "email-external"),
        ("channel", "internal-note", "email"),
        ("visibility", "internal", "public"),
        ("Sichtbarkeit", "intern", "öffentlich"),
        ("Typ", "Interne Notiz", "E-Mail"),
        ("tipo", "nota interna", "respuesta"),
        ("public", "internal", "public"),
    ],
)
def test_an_internal_note_is_a_note_and_is_never_learnt(header, note, reply):
    read = Read(
        rows(
            f"conversation_id,role,body,{header}",
            f"1,customer,Where is it?,{reply}",
            f"1,agent,Do not tell: we lost it.,{note}",
            f"1,agent,We look for it.,{reply}",
        )
    )
    assert read.speakers == ["customer", "note", "agent"]
    assert [message.content for message in chat_messages(read.kept[0])] == [
        "Where is it?",
        "We look for it.",
    ]
    assert f"{header}={note} (1 rows)" in read.notes["internal notes"]


def test_the_answer_of_a_pair_that_is_private_is_a_note():
    read = Read(rows("question,answer,private", "q,lost again,true", "q,we look,false"))
    assert read.speakers == ["customer", "note", "customer", "agent"]


def test_a_flag_that_is_not_understood_makes_a_note_and_is_told():
    read = Read(
        rows(
            "ticket,role,text,private",
            "1,customer,q,false",
            "1,agent,secret,true",
            "1,agent,who knows,perhaps",
        )
    )
    assert read.speakers == ["customer", "note", "note"]
    assert "'perhaps'" in read.notes["internal notes"]


def test_a_flag_can_be_said_by_hand_with_its_values():
    table = rows("ticket,role,text,Kreis", "1,customer,q,alle", "1,agent,a,Kollegen")
    assert Read(table).speakers == ["customer", "agent"]
    read = Read(table, told="private=Kreis,private:Kollegen=yes")
    assert read.speakers == ["customer", "note"]
    with pytest.raises(BadMapping, match="neither yes nor no"):
        parse_map(["private:Kollegen=vielleicht"])


def test_a_column_that_is_no_flag_is_left_alone_and_told():
    read = Read(rows("ticket,role,text,note", "1,customer,q,call back", "1,agent,a,"))
    assert read.speakers == ["customer", "agent"]
    assert "note is no flag (such as 'call back')" in read.notes["internal notes"]


def test_what_a_system_says_is_no_reply():
    read = Read(
        rows(
            "conversation_id,sender_type,message_type,content",
            "1,Contact,incoming,hi",
            "1,,activity,Resolved by Tom",
            "1,,template,Rate us",
        )
    )
    assert read.speakers == ["customer", "system", "bot"]


# names


def redacted(table: str) -> list[Conversation]:
    run = run_import(io.BytesIO(table.encode()), "x.csv", redactor=Redactor())
    return list(run)


def test_the_name_columns_of_pairs_belong_to_their_sides_and_are_redacted():
    table = rows(
        "customer_name,question,answer,agent_name",
        'Jane Doe,I am Jane Doe; where is it?,"Dear Jane, it is near. Tom Hardy",Tom Hardy',
    )
    asked, answered = Read(table).kept[0].turns
    assert (asked.author, answered.author) == ("Jane Doe", "Tom Hardy")
    asked, answered = redacted(table)[0].turns
    assert asked.text == "I am [NAME_1]; where is it?"
    assert answered.text == "Dear [NAME_1], it is near. [NAME_2]"


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("customer_name,agent_name", "Jane Doe,Tom Hardy"),
        ("Requester,Assignee", "Jane Doe,Tom Hardy"),
        ("contact name,assigned agent name", "Jane Doe,Tom Hardy"),
        ("Kundenname,Bearbeiter", "Jane Doe,Tom Hardy"),
        ("nom du client,nom du conseiller", "Jane Doe,Tom Hardy"),
        ("nombre del cliente,nombre del agente", "Jane Doe,Tom Hardy"),
    ],
)
def test_each_name_column_of_a_table_of_turns_belongs_to_its_side(header, names):
    table = rows(
        f"conversation_id,role,text,{header}",
        f"1,customer,I am Jane Doe,{names}",
        f"1,agent,Dear Jane this is Tom,{names}",
    )
    assert [turn.author for turn in Read(table).kept[0].turns] == ["Jane Doe", "Tom Hardy"]
    said = [turn.text for turn in redacted(table)[0].turns]
    assert said == ["I am [NAME_1]", "Dear [NAME_1] this is [NAME_2]"]


def test_a_name_that_no_turn_is_by_reaches_the_redactor_and_goes_no_further():
    table = rows(
        "conversation_id,role,text,author,customer_first_name,customer_last_name",
        "1,customer,Jane here,shopper77,Jane,Doe",
        '1,agent,"Hello Jane Doe",Tom,Jane,Doe',
    )
    assert Read(table).kept[0].names == {"Jane Doe": Role.CUSTOMER}
    kept = redacted(table)[0]
    assert "Jane" not in kept.turns[0].text + kept.turns[1].text
    assert "Doe" not in kept.turns[1].text
    assert kept.names == {}


def test_a_name_beside_the_word_for_a_side_is_the_author_and_stays_out_of_the_report():
    read = Read(
        rows(
            "ticket,author,comment",
            "1,Jane Doe (Customer),I am Jane",
            "1,Agent: Tom Hardy,hello",
            "1,Customer (web),hi",
        )
    )
    assert [turn.author for turn in read.kept[0].turns] == ["Jane Doe", "Tom Hardy", None]
    assert read.notes["roles"] == "customer=customer, agent=agent"


def test_two_columns_that_name_the_same_person_name_one():
    table = rows(
        "conversation_id,role,text,customer_name,requester,submitter name",
        "1,customer,hi,Jane Doe,Jane Doe,Ann Low",
    )
    kept = Read(table).kept[0]
    assert kept.turns[0].author == "Jane Doe"
    assert kept.names == {"Ann Low": Role.CUSTOMER}


@pytest.mark.parametrize(
    "header", ["company_name", "file name", "customer_id", "agent", "Gruppenname", "client"]
)
def test_a_column_of_other_things_names_nobody(header):
    read = Read(rows(f"ticket,role,text,{header}", "1,customer,hi,web", "1,agent,hello,web"))
    assert read.kept[0].names == {}
    assert [turn.author for turn in read.kept[0].turns] == [None, None]


# shape


@pytest.mark.parametrize(
    "number", ["2.03105E+13", "2,03105E+13", "2E+13", "2.03105e+13", "########"]
)
def test_ids_that_a_spreadsheet_rounded_merge_nobody(number):
    read = Read(rows("ticket id;sender;message", f"{number};customer;a", f"{number};customer;b"))
    assert not read.kept
    assert [item.reason for item in read.rejected] == [Reason.ROUNDED_ID] * 2
    assert "as text" in read.rejected[0].detail


def test_long_ids_that_lost_their_last_figures_merge_nobody():
    header = "ticket,sender,message"
    lost = ["20310512345678000", "20310512345679000"]
    read = Read(rows(header, *(f"{each},customer,a" for each in lost)))
    assert [item.reason for item in read.rejected] == [Reason.ROUNDED_ID] * 2
    whole = [*lost, "20310512345678901"]
    assert len(Read(rows(header, *(f"{each},customer,a" for each in whole))).kept) == 3


@pytest.mark.parametrize("nothing", ["NULL", "nan", "#N/A", "None", "n/a"])
def test_a_word_for_nothing_is_no_id(nothing):
    read = Read(rows("ticket,sender,message", f"{nothing},customer,a", f"{nothing},customer,b"))
    assert [item.reason for item in read.rejected] == [Reason.BAD_RECORD] * 2


@pytest.mark.parametrize("identifier", ["12E4", "5e10", "E+13", "20310512"])
def test_an_id_that_only_looks_like_a_rounded_one_is_kept(identifier):
    read = Read(rows("ticket,sender,message", f"{identifier},customer,a"))
    assert [conversation.id for conversation in read.kept] == [identifier]


@pytest.mark.parametrize(
    "table",
    [
        "ticket id,sender,message\n1,customer,Hi,\n1,agent,Hello,,\n",
        "ticket id,sender,message,,\n1,customer,Hi,,\n1,agent,Hello,,\n",
        "ticket id,sender,message,,\n1,customer,Hi\n1,agent,Hello\n",
        "ticket id;sender;message;tags;group\n1;customer;Hi\n1;agent;Hello;x\n",
    ],
)
def test_empty_cells_at_the_end_are_nothing(table):
    read = Read(table)
    assert not read.rejected
    assert read.texts == ["Hi", "Hello"]


def test_a_row_cut_by_a_line_end_is_not_half_a_message():
    read = Read(rows("ticket,sender,message,tags", "1,customer,Hello", "my lamp,x", "1,agent,a,b"))
    assert read.texts == ["a"]
    assert [item.line for item in read.rejected] == [2, 3]


def test_a_table_of_countless_columns_is_refused():
    with pytest.raises(BadMapping, match="3,000 columns"):
        Read(",".join(f"h{n}" for n in range(3000)) + "\n")
    with pytest.raises(BadMapping, match="h59 and 140 more"):
        Read(",".join(f"h{n}" for n in range(200)) + "\n")


def test_html_becomes_what_a_reader_sees():
    read = Read(
        rows(
            "conversation_id,author_type,body",
            "9,user,<p>Where is my parcel?</p>",
            '9,admin,"<p>Hi &amp; welcome<br>We&#39;ll look.</p>"',
            '9,admin,"<div>See <a href=""https://a.example/x?b=1&amp;c=2"">here</a>:'
            '<ul><li>one</li><li>two</li></ul><script>x()</script></div>"',
            "9,user,Is 1 < 2 &amp; fine?",
        )
    )
    assert read.texts == [
        "Where is my parcel?",
        "Hi & welcome\nWe'll look.",
        "See here (https://a.example/x?b=1&c=2):\n\n- one\n- two",
        "Is 1 < 2 & fine?",
    ]
    assert read.notes["html"].startswith("4 texts")


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("Hello,<br>we look.<br/>Bye", "Hello,\nwe look.\nBye"),
        ("I&#39;ll look at AT&amp;T &lt;soon&gt;", "I'll look at AT&T <soon>"),
        ("See <a href='https://a.example/x'>here</a>!", "See here (https://a.example/x)!"),
        ("<div>one</div>\n<div>two</div>", "one\n\ntwo"),
    ],
)
def test_one_html_text_among_plain_ones_becomes_text(said, seen):
    plain = ("1,agent,nothing & <nobody>",) * 5
    read = Read(rows("ticket,role,text", f'1,customer,"{said}"', *plain))
    assert read.texts == [seen, *("nothing & <nobody>",) * 5]


def test_text_about_html_stays_as_it_is():
    said = "How do I use <b> and &amp; in <Order number>?"
    read = Read(rows("ticket,role,text", f"1,customer,{said}", "1,agent,Like this", "1,agent,ok"))
    assert read.texts[0] == said
    assert "html" not in read.notes


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["<a ", "href", "<p>", "<!--", "<a href=x>", "<script>", "<p ", "</", "&#"]
)
def test_hostile_html_takes_time_by_its_length_alone(piece):
    text = f"<p>{piece * (300_000 // len(piece))}</p>".replace('"', "")
    Read(rows("ticket,role,text", f"1,customer,{text}"))


def test_a_conversation_of_too_many_characters_is_bounded_and_told():
    line = "1,customer," + "a" * 900_000
    read = Read(rows("ticket,role,text", line, line, line))
    assert len(read.kept[0].turns) == 2
    assert [item.reason for item in read.rejected] == [Reason.TOO_LARGE]


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("shipping_address", True),
        ("customerCity", True),
        ("PLZ", True),
        ("Straße", True),
        ("Código postal", True),
        ("email_address", False),
        ("ip address", False),
        ("status", False),
        ("capacity", False),
    ],
)
def test_columns_of_postal_addresses_are_known_by_their_headers(header, known):
    assert is_address_header(header) is known


def test_address_columns_of_a_table_are_handed_on():
    table = rows(
        "conversation,role,text,street,city",
        "1,customer,It goes to Elm Row 5.,Elm Row 5,Bristol",
        "1,agent,Sure.,Elm Row 5,Bristol",
    )
    assert Read(table).kept[0].places == ("Elm Row 5", "Bristol")
