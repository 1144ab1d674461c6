from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.redactor import Redactor
from server.curation.applying import Curator, Decided, Decisions
from server.curation.scanning import StoredConversation, look_through
from server.curation.schemas import Rules

HELLO = Conversation(
    "c", (Turn(Role.CUSTOMER, "Hi Kasimir, where is it?"), Turn(Role.AGENT, "On its way."))
)
OPEN = Conversation("o", (Turn(Role.CUSTOMER, "Is anybody there?"),))


def curator(
    doubts: dict[tuple[str, str], Decided] | None = None,
    *,
    choices: dict[str, bool] | None = None,
    **rules: str,
) -> Curator:
    decisions = Decisions(doubts or {}, choices or {}, Rules(**rules))  # type: ignore[arg-type]
    return Curator(Redactor({}, "DE"), decisions)


def said(made: Conversation | None) -> str:
    assert made is not None
    return made.turns[0].text


def test_what_nobody_has_decided_is_replaced() -> None:
    assert said(curator().curate("1", HELLO)) == "Hi [NAME_1], where is it?"


def test_what_was_decided_holds_for_the_same_text_in_any_case() -> None:
    key = ("greeting", "kasimir")
    reject = curator({key: Decided("reject", "", "NAME")})
    assert reject.curate("1", HELLO) is HELLO
    approve = curator({key: Decided("approve", "", "NAME")})
    assert said(approve.curate("1", HELLO)) == "Hi [NAME_1], where is it?"


def test_an_edit_replaces_a_part_alone() -> None:
    turns = (Turn(Role.CUSTOMER, "Dear Lampenhaus Kasimir, where is it?"), HELLO.turns[1])
    edit = curator({("greeting", "lampenhaus kasimir"): Decided("edit", "kasimir", "PERSON")})
    made = edit.curate("1", Conversation("c", turns))
    assert said(made) == "Dear Lampenhaus [PERSON_1], where is it?"


def test_the_companys_own_address_stays_where_nobody_has_decided() -> None:
    def where(number: int, address: str) -> Conversation:
        turns = (Turn(Role.CUSTOMER, "Where?"), Turn(Role.AGENT, f"At {address}."))
        return Conversation(str(number), turns)

    own = [where(number, "12 Mill Lane") for number in range(3)]
    other = where(9, "7 Elm Street")
    made = curator()
    for one in (*own, other):
        made.observe(one)
    assert made.curate("0", own[0]) is own[0]
    replaced = made.curate("9", other)
    assert replaced is not None
    assert replaced.turns[1].text == "At [ADDRESS_1]."


def test_flagged_conversations_are_kept_left_out_or_asked_about_as_the_rules_say() -> None:
    assert curator().curate("1", OPEN) is OPEN
    for rule in ("leave_out", "ask"):
        made = curator(no_reply=rule)
        assert made.curate("1", OPEN) is None
        assert made.curate("2", HELLO) is not None
        assert made.left_out == {"no_reply": 1}


def test_a_persons_choice_wins_over_the_rules() -> None:
    kept = curator(choices={"1": True}, no_reply="leave_out")
    assert kept.curate("1", OPEN) is OPEN
    out = curator(choices={"1": False, "2": False})
    assert out.curate("1", OPEN) is None
    assert out.curate("2", HELLO) is None
    assert out.left_out == {"no_reply": 1, "left_out_by_hand": 1}


def test_a_scan_tells_doubts_flags_languages_groups_and_contradictions() -> None:
    question = "How long do I have to send my order back to you?"
    replies = ("14 days.", "30 days!")
    stored = [StoredConversation("a", HELLO), StoredConversation("b", OPEN)] + [
        StoredConversation(
            reply, Conversation(reply, (Turn(Role.CUSTOMER, question), Turn(Role.AGENT, reply)))
        )
        for reply in replies
    ]
    found = look_through(stored, Redactor({}, "DE"), lambda texts: []).scan
    assert found.conversations == 4
    (doubt,) = found.doubts
    assert (doubt.rule, doubt.text, doubt.count) == ("greeting", "Kasimir", 1)
    assert (doubt.places[0].before, doubt.places[0].after) == ("Hi ", ", where is it?")
    assert {
        flag: [one.conversation_id for one in those] for flag, those in found.flags.items()
    } == {"no_reply": ["b"]}
    assert found.languages == {"en": 4}
    assert found.groups == [["14 days.", "30 days!"]]
    (contradiction,) = found.contradictions
    assert [one.facts for one in contradiction.statements] == [["30 day"], ["14 day"]]
    assert contradiction.statements[0].conversation_id == "30 days!"


def test_an_insult_in_a_reply_waits_for_a_person_and_a_customers_does_not() -> None:
    def talk(question: str, reply: str) -> Conversation:
        return Conversation("i", (Turn(Role.CUSTOMER, question), Turn(Role.AGENT, reply)))

    rude = talk("Where is it?", "Are you an idiot?")
    made = curator()
    assert made.curate("1", rude) is None
    assert dict(made.left_out) == {"toxic": 1}
    assert curator(choices={"1": True}).curate("1", rude) is rude
    assert curator(toxic="keep").curate("1", rude) is rude
    swearing = talk("Where is the fucking parcel?", "It comes today.")
    assert made.curate("2", swearing) is swearing
