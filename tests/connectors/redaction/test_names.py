"""People whom an export names, in the texts of their conversation."""

import cProfile
import pstats

import pytest

from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.redactor import Redactor

# who wrote, as what, which text, and what it becomes
PEOPLE = [
    ("王小明", "customer", "我是王小明，请帮忙", "我是[NAME_1]，请帮忙"),
    ("김민수", "customer", "김민수님 안녕하세요", "[NAME_1]님 안녕하세요"),
    ("Müller", "customer", "Ich bin Herr Mueller", "Ich bin Herr [NAME_1]"),
    ("Jean-Luc Moreau", "customer", "Jean Luc ici", "[NAME_1] ici"),
    ("Jane Doe (Acme GmbH)", "customer", "Jane here", "[NAME_1] here"),
    ("jane.doe@example.com", "customer", "I'm Jane", "I'm [NAME_1]"),
    ("Anna Bank", "customer", "Anna here, Anna Bank", "[NAME_1] here, [NAME_1]"),
    ("Anna Bank", "agent", "Anna Bank here. The Bank is closed.", "[NAME_1] here. The Bank is closed."),
    ("Lloyds Bank", "agent", "Welcome to Lloyds Bank", "Welcome to Lloyds Bank"),
    ("José García", "customer", "Soy Jose Garcia", "Soy [NAME_1]"),
    ("Jose Garcia", "customer", "Soy José", "Soy [NAME_1]"),
    ("José", "customer", "Jose\u0301 aquí", "[NAME_1] aquí"),
    ("Muller", "customer", "Herr Müller", "Herr [NAME_1]"),
    ("Mueller", "customer", "Herr Muller", "Herr [NAME_1]"),
    ("Sean O'Brien", "customer", "I'm O’Brien, Sean O´Brien", "I'm [NAME_1], [NAME_1]"),
    ("Sean O’Brien", "customer", "Mr O'Brien or OBrien or O Brien", "Mr [NAME_1] or [NAME_1] or [NAME_1]"),
    ("Jean Luc Moreau", "customer", "Jean-Luc Moreau", "[NAME_1]"),
    ("Jane Doe", "customer", "Jane's order", "[NAME_1]'s order"),
    ("Jane Doe", "customer", "Doe, Jane", "[NAME_1], [NAME_1]"),
    ("Doe, Jane", "customer", "Jane Doe and Ms Doe", "[NAME_1] and Ms [NAME_1]"),
    ("Jane Doe from Acme GmbH", "customer", "Acme GmbH, Jane", "Acme GmbH, [NAME_1]"),
    ("Acme GmbH - Jane Doe", "customer", "Jane from Acme GmbH", "[NAME_1] from Acme GmbH"),
    ("Jane Doe | Acme Ltd", "customer", "Jane", "[NAME_1]"),
    ("jane_doe85@example.com", "customer", "Jane Doe, Doe", "[NAME_1], [NAME_1]"),
    ("janedoe@example.com", "customer", "I'm Jane", "I'm [NAME_1]"),
    ("Doe.Jane@example.com", "agent", "Hi, Jane here", "Hi, [NAME_1] here"),
    ("info@example.com", "agent", "Info here. Please see Info", "Info here. Please see Info"),
    ("happy.customer@example.com", "customer", "Happy to hear", "Happy to hear"),
    ("山田太郎", "customer", "山田です。山田様、太郎さん、山田太郎", "[NAME_1]です。[NAME_1]様、[NAME_1]さん、[NAME_1]"),
    ("山田 太郎", "customer", "山田太郎です", "[NAME_1]です"),
    ("スミス・ジョン", "customer", "ジョンさん、スミス・ジョンです", "[NAME_1]さん、[NAME_1]です"),
    ("王小明", "customer", "王先生您好，小明，你好", "[NAME_1]先生您好，[NAME_1]，你好"),
    ("김민수", "customer", "민수씨, 김 고객님, 김민수입니다", "[NAME_1]씨, [NAME_1] 고객님, [NAME_1]입니다"),
    ("김 민수", "customer", "김민수가 말했다", "[NAME_1]가 말했다"),
    ("客服", "agent", "客服在线", "客服在线"),
    ("상담원", "agent", "상담원입니다", "상담원입니다"),
    ("Иван Петров", "customer", "Ивану Петрову, от Ивана", "[NAME_1], от [NAME_1]"),
    ("محمد علي", "customer", "أنا محمد علي", "أنا [NAME_1]"),
    ("राम शर्मा", "customer", "मैं राम शर्मा हूँ", "मैं [NAME_1] हूँ"),
    ("Søren Ågård", "customer", "Soren Agard, Soeren", "[NAME_1], [NAME_1]"),
    ("Łukasz", "customer", "to Lukasz", "to [NAME_1]"),
    ("Anna von Berg", "customer", "Von der Firma. Frau von Berg. der Berg", "Von der Firma. Frau [NAME_1]. der Berg"),
    ("May Chen", "customer", "in May, thanks May. May I?", "in May, thanks [NAME_1]. May I?"),
    ("Jane", "customer", "jane doe. hi jane, i'm jane", "jane doe. hi [NAME_1], i'm [NAME_1]"),
    ("Will Ashdown", "agent", "hello Will. Will you wait?", "hello [NAME_1]. Will you wait?"),
    ("Jane", "customer", "我是Jane请", "我是[NAME_1]请"),
    ("สมชาย ใจดี", "customer", "คุณสมชาย", "คุณ[NAME_1]"),
    ("Harbour Library Team", "agent", "The Harbour Library Team", "The Harbour Library Team"),
    ("Weiß", "customer", "Herr Weiss", "Herr [NAME_1]"),
    ("Anne-Marie Smith-Jones", "customer", "Anne Marie; Ms Smith; Mrs Jones", "[NAME_1]; Ms [NAME_1]; Mrs [NAME_1]"),
    ("D'Angelo", "customer", "Mr D’Angelo", "Mr [NAME_1]"),
    ("Nguyễn Văn An", "customer", "Toi la Nguyen Van An", "Toi la [NAME_1]"),
    ("İpek Yılmaz", "customer", "ipek yilmaz, Ipek", "[NAME_1], [NAME_1]"),
    ("Jane Doe", "agent", "JANE DOE", "[NAME_1]"),
    ("Jane\u200bDoe", "customer", "JaneDoe? Jane\u200bDoe", "[NAME_1]? [NAME_1]"),
    ("Jane Doe (ACME Ltd.)", "agent", "Jane Doe here from ACME Ltd.", "[NAME_1] here from ACME Ltd."),
    ("Jane Doe, Acme Inc.", "customer", "This is Jane", "This is [NAME_1]"),
    ("Jane Doe [Acme]", "customer", "Jane", "[NAME_1]"),
    ("Jane Doe @ Acme Support Team", "agent", "Jane will help", "[NAME_1] will help"),
    ("Jane D.", "customer", "Jane D. here, Jane", "[NAME_1]. here, [NAME_1]"),
    ("J. Doe", "customer", "Mr Doe", "Mr [NAME_1]"),
    ("Mr. John Smith", "customer", "I'm John Smith, john smith", "I'm [NAME_1], [NAME_1]"),
    ("SMITH John", "customer", "John Smith", "[NAME_1]"),
    ("John Smith Jr.", "customer", "John Smith", "[NAME_1]"),
    ("john.smith@acme-bank.com", "customer", "Hi, John Smith here", "Hi, [NAME_1] here"),
    ("John Smith <john@x.com>", "customer", "John", "[NAME_1]"),
    ("johnsmith1985@gmail.com", "customer", "I'm John", "I'm [NAME_1]"),
    ("marie-claire.dupont@example.fr", "customer", "Marie-Claire Dupont ici", "[NAME_1] ici"),
    ("mueller@example.de", "customer", "Herr Müller", "Herr [NAME_1]"),
    ("François Lefèvre", "customer", "Francois Lefevre", "[NAME_1]"),
    ("Zoë", "customer", "Zoe here", "[NAME_1] here"),
    ("Björn Åkesson", "customer", "Bjorn Akesson, Björn", "[NAME_1], [NAME_1]"),
    ("Groß", "customer", "Herr Gross, Frau Groß", "Herr [NAME_1], Frau [NAME_1]"),
    ("Jürgen Schäfer", "customer", "Juergen Schaefer", "[NAME_1]"),
    ("Juergen Schaefer", "customer", "Jürgen Schäfer und Jurgen", "[NAME_1] und [NAME_1]"),
    ("Renée O'Connor", "customer", "Renee OConnor", "[NAME_1]"),
    ("Siobhán Ní Bhriain", "customer", "Siobhan", "[NAME_1]"),
    ("Mary-Jane Watson", "customer", "Mary Jane, Mary-Jane, MaryJane", "[NAME_1], [NAME_1], [NAME_1]"),
    ("Mary Jane Watson", "customer", "Mary-Jane Watson", "[NAME_1]"),
    ("Ana María López", "customer", "Ana Maria Lopez; Sra. López", "[NAME_1]; Sra. [NAME_1]"),
    ("李小龙", "customer", "李小龙先生", "[NAME_1]先生"),
    ("陳大文", "customer", "我叫陳大文", "我叫[NAME_1]"),
    ("박지성", "customer", "박지성입니다", "[NAME_1]입니다"),
    ("이민호", "customer", "안녕하세요 이민호입니다", "안녕하세요 [NAME_1]입니다"),
    ("홍길동", "customer", "길동이라고 합니다", "[NAME_1]이라고 합니다"),
    ("최유진", "customer", "유진님", "[NAME_1]님"),
    ("鈴木一郎", "customer", "鈴木と申します", "[NAME_1]と申します"),
    ("田中", "customer", "田中です", "[NAME_1]です"),
    ("高橋 みゆき", "customer", "高橋みゆきです。みゆきさん", "[NAME_1]です。[NAME_1]さん"),
    ("Wang Xiaoming", "customer", "I am Xiaoming Wang", "I am [NAME_1]"),
    ("王小明 (Wang Xiaoming)", "customer", "王小明, Xiaoming", "[NAME_1], [NAME_1]"),
    ("王小明@微信", "customer", "王小明", "[NAME_1]"),
    ("Nguyễn Thị Hoa", "customer", "Nguyen Thi Hoa", "[NAME_1]"),
    ("Владимир Кузнецов", "customer", "Владимира Кузнецова нет", "[NAME_1] нет"),
    ("Οδυσσέας", "customer", "Οδυσσεας εδώ", "[NAME_1] εδώ"),
    ("יוסי כהן", "customer", "שמי יוסי כהן", "שמי [NAME_1]"),
    ("فاطمة", "customer", "أنا فاطمة", "أنا [NAME_1]"),
    ("प्रिया", "customer", "मैं प्रिया हूँ", "मैं [NAME_1] हूँ"),
    ("Anna", "customer", "Hannah and Annabel", "Hannah and Annabel"),
    ("Will", "agent", "I will do it. Will you? It will.", "I will do it. Will you? It will."),
    ("Rose Hope", "agent", "I hope it rose. Hope this helps. Rose here?", "I hope it rose. Hope this helps. Rose here?"),
    ("Mark Price", "agent", "The Price is right. Please mark it. Mark this.", "The Price is right. Please mark it. Mark this."),
    ("Support", "agent", "Support is here", "Support is here"),
    ("Amazon Store", "agent", "Amazon Store ships", "Amazon Store ships"),
    ("Deutsche Bank", "agent", "Deutsche Bank AG", "Deutsche Bank AG"),
    ("Deutsche Bank AG", "customer", "Deutsche Bank AG", "Deutsche Bank AG"),
    ("Acme GmbH & Co. KG", "customer", "Acme GmbH", "Acme GmbH"),
    ("Grand Hotel", "agent", "Grand Hotel", "Grand Hotel"),
    ("Peter Bank", "agent", "Peter Bank", "[NAME_1]"),
    ("Thomas Store", "agent", "I'm Thomas", "I'm [NAME_1]"),
    ("Sophie Company", "agent", "Sophie here", "[NAME_1] here"),
    ("Lee", "customer", "Mr Lee", "Mr [NAME_1]"),
    ("Al", "customer", "Hi Al", "Hi Al"),
    ("Order Team", "agent", "Order is late", "Order is late"),
    ("The New Guy", "customer", "The New Guy. New order. The guy.", "The [NAME_1]. New order. The guy."),
    ("sales@acme.com", "agent", "Sales are good. Acme", "Sales are good. Acme"),
    ("order-update@amazon.com", "agent", "Your Order Update", "Your Order Update"),
    ("newsletter@shop.com", "agent", "Newsletter", "Newsletter"),
    ("big.brother@example.com", "customer", "Big deal, my Brother", "Big deal, my Brother"),
    ("客服小美", "agent", "客服小美为您服务", "客服小美为您服务"),
    ("王先生", "customer", "王先生", "[NAME_1]先生"),
    ("user123", "customer", "User 123", "User 123"),
    ("+44 7911 123456", "customer", "hello", "hello"),
    ("Jane", "customer", "Mary Jane Jane's jane", "Mary [NAME_1]'s jane"),
    ("April May", "customer", "in April or May, April May", "in April or May, [NAME_1]"),
    ("Guest 42", "customer", "Guest", "Guest"),
    ("Klein", "customer", "Klein ist die Lampe. ein Klein. Frau Klein", "Klein ist die Lampe. ein [NAME_1]. Frau [NAME_1]"),
    ("Dr. Jane Doe", "agent", "Jane Doe here, Dr Doe", "[NAME_1] here, Dr [NAME_1]"),
    ("Jane (Support)", "agent", "Jane here. Our Support is open", "[NAME_1] here. Our Support is open"),
    ("Peter Shop", "agent", "Peter from the Shop", "[NAME_1] from the Shop"),
    ("Book Shop", "agent", "The Book Shop is open", "The Book Shop is open"),
    ("Maria Hotel", "customer", "Maria Hotel, the Hotel was fine", "[NAME_1], the Hotel was fine"),
    ("Happy Customer", "customer", "Happy to help", "Happy to help"),
    ("support@example.com", "agent", "Support here", "Support here"),
    ("no-reply@example.com", "agent", "No reply. Reply No", "No reply. Reply No"),
    ("j.doe@example.com", "customer", "Mr Doe", "Mr [NAME_1]"),
    ("mueller.jan@example.de", "customer", "Jan Müller", "[NAME_1]"),
    ("佐藤花子", "customer", "佐藤様、花子さん", "[NAME_1]様、[NAME_1]さん"),
    ("李雷", "customer", "我叫李雷。李先生", "我叫[NAME_1]。[NAME_1]先生"),
    ("欧阳娜娜", "customer", "欧阳女士，娜娜您好", "[NAME_1]女士，[NAME_1]您好"),
    ("이영희", "customer", "이 고객님이 아니라 영희씨", "이 고객님이 아니라 [NAME_1]씨"),
    ("Acme 有限公司", "agent", "有限公司您好", "有限公司您好"),
    ("Анна Иванова", "customer", "звонила Анне Ивановой", "звонила [NAME_1]"),
    ("Max Koch", "agent", "der Koch kommt. Herr Koch", "der Koch kommt. Herr [NAME_1]"),
    ("Ludwig van Beethoven", "customer", "Herr van Beethoven. Van hire", "Herr [NAME_1]. Van hire"),
]  # fmt: skip


@pytest.mark.parametrize(("author", "speaker", "text", "expected"), PEOPLE)
def test_a_person_is_found_as_people_write_the_name(author, speaker, text, expected):
    turn = Turn(role=Role(speaker), text=text, author=author)
    redacted, _ = Redactor().redact(Conversation(id="c", turns=(turn,)))
    assert redacted.turns[0].text == expected
    again, _ = Redactor().redact(redacted)
    assert again == redacted


def test_an_identifier_that_is_a_name_becomes_a_digest():
    turns = (Turn(role=Role.CUSTOMER, text="hello", author="王小明"),)
    assert Redactor().redact(Conversation("王小明", turns))[0].id.startswith("redacted-")
    assert Redactor().redact(Conversation("ticket 7", turns))[0].id == "ticket 7"


def test_two_people_of_one_surname_share_what_cannot_tell_them_apart():
    turns = (
        Turn(role=Role.CUSTOMER, text="Ada Holm here", author="Ada Holm"),
        Turn(role=Role.AGENT, text="Bo Holm here, Ms Holm", author="Bo Holm"),
    )
    redacted, _ = Redactor().redact(Conversation("c", turns))
    assert [turn.text for turn in redacted.turns] == ["[NAME_1] here", "[NAME_2] here, Ms [NAME_1]"]


def crowd(people: int) -> Conversation:
    """Everyone has another name, and mentions the one before."""
    letters = "abcdefghij"
    names = ["".join(letters[int(digit)] for digit in f"{at:06}").title() for at in range(people)]
    return Conversation(
        "c",
        tuple(
            Turn(
                role=Role.CUSTOMER,
                text=f"As {names[at - 1]} said, I never got it; call 0207946{at % 10000:04}",
                author=f"Mx {names[at]} {names[at][::-1].title()}",
            )
            for at in range(people)
        ),
    )


def calls(conversation: Conversation) -> int:
    """How many functions are called to redact it."""
    redactor = Redactor()
    redactor.redact(crowd(2))  # loads what is loaded once
    with cProfile.Profile() as profile:
        redactor.redact(conversation)
    return int(vars(pstats.Stats(profile))["total_calls"])


def test_the_work_grows_with_turns_and_people_and_not_with_their_product():
    few, many = calls(crowd(150)), calls(crowd(1200))
    assert many < 8 * few * 1.3


def test_a_field_that_is_no_name_does_not_make_each_look_up_long():
    turn = Turn(role=Role.CUSTOMER, text="ab cd " * 3000, author="ab cd " * 3000)
    assert calls(Conversation("c", (turn,))) < 60 * len(turn.text)
