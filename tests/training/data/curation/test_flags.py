import pytest

from connectors.conversation import Conversation, Role, Turn
from training.data.curation.flags import FLAG_TEXTS, FLAGS, flags_of, is_auto_reply
from training.data.curation.insults import insult_in
from training.data.curation.secrets import secrets_in

C, A, B, N = Role.CUSTOMER, Role.AGENT, Role.BOT, Role.NOTE
_TAIL = "Q4m8Zt2pLw6RdY1vKs9XbN3hJc7GfT5aEu0i"  # 36 letters and digits


def found(*turns: tuple[Role, str]) -> dict[str, int | None]:
    conversation = Conversation("c", tuple(Turn(role, text) for role, text in turns))
    return {finding.flag: finding.turn for finding in flags_of(conversation)}


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([(C, "Where is it?"), (A, "On its way.")], {}),
        ([(C, "Where is it?"), (A, "On its way."), (C, "Thanks!")], {}),
        ([(C, "Where is it?"), (C, "Hello?")], {"no_reply": 1}),
        ([(C, "Where is it?"), (N, "call him")], {"no_reply": 0}),
        ([(A, "Buy now!"), (A, "Really.")], {"one_sided": None}),
        ([(C, "Where?"), (B, "I do not know.")], {"bot_only": 1}),
        ([(C, "Where?"), (B, "One moment."), (A, "It is here.")], {}),
        ([(C, "Where?"), (A, "Here."), (C, "And when does it come?")], {"cut_off": 2}),
        ([(C, "Where?"), (A, "Here."), (C, "Really? :)")], {"cut_off": 2}),
        ([(C, "Where?"), (A, "Please send us your")], {"cut_off": 1}),
        ([(C, "Wo?"), (A, "Bitte wenden Sie sich an die")], {"cut_off": 1}),
        ([(C, "Where?"), (A, "It is at the door")], {}),
        ([(C, "Where?"), (A, "Could you tell me the order number?")], {}),
        ([(C, "Where?"), (A, "We have received your message.")], {"auto_reply": 1}),
        ([(C, "Where?"), (A, "We have received your message."), (A, "It is here.")], {}),
        ([(C, "Automatic reply: I am out of the office."), (A, "Hello")], {"auto_reply": None}),
        ([(C, "Help"), (A, f"Use ghp_{_TAIL}")], {"secret": 1}),
        ([(C, f"I have ghp_{_TAIL}"), (A, "Delete it.")], {}),
        ([(C, "Where?"), (A, "Here."), (A, "Read it, you IDIOT!")], {"toxic": 2}),
        ([(C, "Where?"), (B, "Shit."), (A, "Here."), (A, "You idiot!")], {"toxic": 1}),
        ([(C, "Wo ist die Scheiße?"), (A, "Es tut mir leid.")], {}),
        ([(C, "Where?"), (N, "what an asshole"), (A, "It is here.")], {}),
        ([], {}),
        ([(C, "  "), (A, "")], {}),
    ],
)
def test_conversations_are_flagged(
    turns: list[tuple[Role, str]], expected: dict[str, int | None]
) -> None:
    assert found(*turns) == expected


def test_every_flag_has_its_words() -> None:
    assert set(FLAG_TEXTS) == set(FLAGS)


@pytest.mark.parametrize(
    "text",
    [
        "Thank you for contacting us! One of our agents will get back to you shortly.",
        "Your request #4711 has been received.",
        "This is an automated message, please do not reply.",
        "Abwesenheitsnotiz: Ich bin bis 5. Mai nicht im Büro.",
        "Wir haben Ihre Nachricht erhalten.",
        "Réponse automatique",
        "Hemos recibido tu solicitud.",
    ],
)
def test_automatic_messages_are_known(text: str) -> None:
    assert is_auto_reply(text)


@pytest.mark.parametrize(
    "text",
    [
        "Thank you for contacting us about the lamp. It is out of stock.",
        "We have received the parcel and will refund you.",
        "The office is closed on Sunday.",
        "Wir haben Ihre Rücksendung geprüft.",
        "I have received your order number, thank you.",
    ],
)
def test_what_a_person_writes_is_no_automatic_message(text: str) -> None:
    assert not is_auto_reply(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AKIA" + "IOSFODNN7EXAMPLE", "AWS access key"),
        (f"token ghp_{_TAIL}.", "GitHub token"),
        ("xoxb-" + "123456789012-abcdefABCDEF", "Slack token"),
        ("sk_live_" + _TAIL[:24], "Stripe key"),
        ("AIza" + _TAIL[:35], "Google API key"),
        ("sk-proj-" + _TAIL, "OpenAI key"),
        ("glpat-" + _TAIL[:20], "GitLab token"),
        ("npm_" + _TAIL, "npm token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "private key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz", "JSON web token"),
        ("Your password is Xy7!kk22", "password"),
        ("Passwort: sommer2026!", "password"),
    ],
)
def test_secrets_are_known_by_their_formats(text: str, kind: str) -> None:
    assert [secret.kind for secret in secrets_in(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "Click on password reset to set a new one.",
        "Your password is required.",
        "Password: ********",
        "The password is [TERM_1]",
        "sk-1234",
        "AKIA is a prefix",
        "password is https://shop.example/reset1",
    ],
)
def test_talk_of_passwords_is_no_secret(text: str) -> None:
    assert not list(secrets_in(text))


@pytest.mark.parametrize(
    "piece", ["sk-", "eyJ.", "xoxb-", "password ", "BEGIN ", "out of ", "your request "]
)
def test_long_texts_are_read_in_a_moment(piece: str) -> None:
    found((C, "Why?"), (A, piece * 5_000))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Well, that is bullshit.", "bullshit"),
        ("Sie Arschloch!", "Arschloch"),
        ("So ein Scheiß", "Scheiß"),
        ("Espèce de connard", "connard"),
        ("eres un gilipollas", "gilipollas"),
        ("Vaffanculo", "Vaffanculo"),
        ("wat een klootzak", "klootzak"),
        ("vai para o caralho", "caralho"),
    ],
)
def test_strong_words_are_insults_in_seven_languages(text: str, word: str) -> None:
    assert insult_in(text) == word


@pytest.mark.parametrize(
    "text",
    [
        "Deliveries to Scunthorpe take 3 days.",
        "The manual is idiot-proof.",
        "Votre train a un retard de 10 minutes.",
        "La hure de sanglier est épuisée.",
        "Shitake mushrooms are back in stock.",
        "Mrs Cockburn and Mr Dick will call you. We assess the classic brass.",
        "Fire retardant fabric, from Morón.",
        "Le computer est à Puteaux, el reputado servicio.",
        "Die Fotos sind da, und die Wichtel auch.",
    ],
)
def test_names_places_and_words_of_other_languages_are_none(text: str) -> None:
    assert insult_in(text) == ""
