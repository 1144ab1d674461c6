"""How well personal data is found: recall and false hits by kind, and how fast.

    python -m tests.bench.redaction            # recall, false hits, throughput
    python -m tests.bench.redaction --hostile  # throughput on texts made to be slow, alone

The lines are generated from a fixed seed: sentences with a value of a known kind, and sentences with
numbers that are not personal (order numbers, dates, prices, versions). ``plain`` lines have values as
in a form; ``odd`` ones as people paste and disguise them, in the words of twelve countries. Generated
lines flatter: real ones are messier. Names without metadata are not found, and not measured.

Hostile texts are those that make a redactor slow: groups of digits, signs, half an address. The
slowest is the most that one import can cost the others.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from phonenumbers import (
    PhoneNumberFormat,
    PhoneNumberType,
    example_number_for_type,
    format_number,
)
from stdnum import luhn
from stdnum.iso7064 import mod_97_10

from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.placeholders import PLACEHOLDER
from connectors.redaction.redactor import Redactor

SEED = 20310101
PER_KIND = 400
REGIONS = ("GB", "US", "DE", "FR", "ES", "IT", "SE", "NL")
ROUND_VALUE = {
    "EMAIL": ("my address is {}", "{} is mine", "write to {}, please", "from: {}."),
    "PHONE": (
        "call me on {}",
        "my mobile is {}",
        "you can reach me at {} after six",
        "phone: {}",
        "{}",
        "use {} then",
        "hello, {} is fine",
    ),
    "CARD": ("the card is {}", "I paid with {} in May", "charge {} again"),
    "IBAN": ("refund to {} please", "IBAN: {}", "{} is my account"),
    "IP": ("I log in from {}", "your server {} is slow", "blocked: {}"),
    "URL": ("the link {} is dead", "I clicked {}", "see {} for it"),
}
NOTHING = (
    "where is order {ten}?", "order number {eleven}", "order {three}-{seven}-{seven}",
    "my invoice {two}-{five}-{three} is wrong", "tracking 1Z{three}AA{ten}", "ref {ten}, thanks",
    "booking {six}/{two}", "it cost {three}.{two} last May", "on {day}.{day}.2031 at {day}:{two}",
    "serial {three} {three} {four}", "policy {eight}", "version {day}.{day}.{day}.{day}",
    "customer number 0{ten}", "{ten} is the article", "I ordered {two} of {five}",
    "part 0{two}-{three}-{four} broke", "{ten}", "{eleven} is it", "I think it is {three} {three} {four}", "0{ten}", "{six}-{four}",
    "open {day}:00-{day}:30", "ticket #{seven}", "parcel {twelve} never came",
)  # fmt: skip
DIGITS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "ten": 10,
    "eleven": 11, "twelve": 12,
}  # fmt: skip


# Around a mobile number of the country, as it is dialled there.
ROUND_MOBILE = {
    "GB": ("my number is {}", "{} is my number", "mob: {}", "you can text {}", "reach me, {}, after five"),
    "DE": ("meine Nummer ist {}", "Rufnummer: {}", "unter {} erreichbar", "Handy {}", "R\u00fcckruf bitte: {}"),
    "FR": ("mon num\u00e9ro est le {}", "{} pour me joindre", "portable : {}", "appelez le {}"),
    "ES": ("mi n\u00famero es {}", "m\u00f3vil {}", "ll\u00e1mame al {}", "{} es mi tel\u00e9fono"),
    "IT": ("cellulare {}", "il mio numero \u00e8 {}", "chiamatemi al {}"),
    "NL": ("mijn nummer is {}", "mobiel: {}", "bel me op {}"),
    "PL": ("m\u00f3j numer to {}", "tel. {}", "prosz\u0119 dzwoni\u0107 {}"),
    "SE": ("mitt nummer \u00e4r {}", "ring mig p\u00e5 {}", "mobil {}"),
    "RU": ("тел. {}", "мой номер {}", "позвоните по {}", "{} мой мобильный"),
    "JP": ("携帯 {}", "私の番号は{}です", "{}に電話してください"),
    "CN": ("我的手机号是{}", "请打{}联系我", "电话：{}，谢谢"),
    "IN": ("my number is {}", "call me at {}", "मेरा नंबर {} है"),
}  # fmt: skip
ODD_ROUND = (
    "卡号{}请退款", "これ\u306f{}です", "내 {} 입니다", "x: {}", "({})", "<b>{}</b>", "{}\u200b", "\u202a{}\u202c", "-> {} <-", "{}\u3002",
)  # fmt: skip
# Where each is the number of something else, with a number that would be a mobile's.
NOT_MOBILE = {
    "GB": ("order {}", "my order number is {}", "{} is the tracking number", "account no. {}", "SKU {}", "meter {}"),
    "DE": ("Bestellnummer {}", "meine Kundennummer ist {}", "{} ist die Rechnungsnummer", "Z\u00e4hler {}"),
    "FR": ("num\u00e9ro de commande {}", "n\u00b0 de suivi {}", "facture {}", "dossier {}"),
    "ES": ("pedido {}", "n\u00famero de factura {}", "mi n\u00famero de cliente es {}"),
    "IT": ("ordine {}", "numero di pratica {}", "fattura n. {}"),
    "NL": ("bestelling {}", "factuur {}", "klantnummer {}"),
    "PL": ("zam\u00f3wienie {}", "faktura {}", "numer przesy\u0142ki {}"),
    "SE": ("ordernummer {}", "faktura {}", "kundnummer {}"),
    "RU": ("заказ {}", "номер договора {}", "накладная {}"),
    "JP": ("注文番号 {}", "伝票番号は{}です"),
    "CN": ("订单号{}", "快递单号：{}", "我的会员号是{}"),
    "IN": ("order id {}", "my account number is {}", "ticket {}"),
}  # fmt: skip
PUBLIC_LINKS = (
    "https://acme.zendesk.com/hc/en-us/articles/{twelve}-How-do-I-reset-my-password",
    "https://acme.freshdesk.com/support/solutions/articles/4{ten}-reset-password",
    "https://blog.example/2024/05/{day}/{two}-ways-to-save-energy",
    "https://shop.example/sale?utm_source=mail&utm_campaign=week_{two}_2024_final_offer&page={two}",
    "https://shop.example/?code=SUMMER{two}", "https://desk.example/tickets?state=open&sort=asc",
    "https://apps.apple.com/gb/app/acme/id{ten}", "https://shop.example/p/lamp-{four}?variant={twelve}",
    "https://www.youtube.com/watch?v=dQw4w9Wg{two}Q&list=PLrAXtmErZgOeiKm4sgNOknGvNjby9ef{two}",
)  # fmt: skip
FULL_WIDTH = {ord("0") + digit: 0xFF10 + digit for digit in range(10)}
WORST_TEXT = 65_536  # characters


class Line(NamedTuple):
    """A line, the value in it and the value's kind (none: nothing personal)."""

    text: str
    value: str
    kind: str | None
    region: str = "GB"


def main() -> None:
    """Measure and print."""
    redactors = {region: Redactor({}, region) for region in ROUND_MOBILE}
    for redactor in redactors.values():
        redactor.redact_text("call +44 20 7946 0958")  # loads the phone numbers' metadata
    if "--hostile" not in sys.argv:
        source = random.Random(SEED)
        plain = [make_line(kind, source) for kind in ROUND_VALUE for _ in range(PER_KIND)]
        plain += [make_nothing(source) for _ in range(PER_KIND * 3)]
        measure("plain", plain, redactors)
        odd = [make_odd(kind, source) for kind in ROUND_VALUE for _ in range(PER_KIND)]
        odd += [make_odd_nothing(source) for _ in range(PER_KIND * 3)]
        measure("odd", odd, redactors)
    hostile(redactors["GB"])


def measure(name: str, lines: list[Line], redactors: dict[str, Redactor]) -> None:
    """Print recall and false hits of one set of lines."""
    started = time.process_time()
    redacted = [redactors[line.region].redact_text(line.text) for line in lines]
    seconds = time.process_time() - started
    made: Counter[str | None] = Counter()
    found: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for line, text in zip(lines, redacted, strict=True):
        kinds = [match[0][1:-1].rpartition("_")[0] for match in PLACEHOLDER.finditer(text)]
        made[line.kind] += 1
        if line.kind and line.kind in kinds and line.value not in text:
            found[line.kind] += 1
            kinds.remove(line.kind)
        false.update(kinds)
    print(f"{name}: {len(lines):,} lines, {len(lines) / seconds:,.0f} lines/s of one core's time")
    print(f"{'kind':<6} {'lines':>6} {'recall':>7} {'false':>6}")
    for kind in ROUND_VALUE:
        print(f"{kind:<6} {made[kind]:>6} {found[kind] / made[kind]:>7.3f} {false[kind]:>6}")
    print(f"(false: hits where that kind was not; {made[None]} lines hold nothing personal)\n")


def hostile(redactor: Redactor) -> None:
    """Print the throughput on each hostile text, the slowest last."""
    speeds = []
    for name, text in hostile_texts():
        started = time.process_time()
        redactor.redact_text(text)
        speeds.append((len(text.encode()) / 1000 / (time.process_time() - started), name))
    crowd = tuple(
        Turn(Role.CUSTOMER, f"Hello {at}, I never got my order", author=f"Ann{word(at)} Lee{word(at * 7)}")
        for at in range(9_100)
    )  # fmt: skip
    started = time.process_time()
    redactor.redact(Conversation("c", crowd))
    seconds = time.process_time() - started
    size = sum(len(turn.text) + len(turn.author or "") for turn in crowd) / 1000
    speeds.append((size / seconds, f"9,100 turns by 9,100 authors ({seconds:.1f} s)"))
    print(f"hostile texts of {WORST_TEXT // 1024} KiB: KB/s of one core's time")
    for speed, name in sorted(speeds, reverse=True):
        print(f"{speed:>9,.0f}  {name}")


def word(number: int) -> str:
    """A number spelt in letters."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def hostile_texts() -> Iterator[tuple[str, str]]:
    """Name and text."""
    source = random.Random(SEED)
    patterns = (
        "1 ", "1/", "1-", "1.", "1", "0 ", "00 ", "4 ", "(1)", "(020) ", "+", "+1 ", "@", "a@", "a.", "(", "[",
        "http://", "a/?a=b&", ":1", "::", "GB82 ", "%40", "&amp;", "#", "a at a dot ", "[EMAIL_1]", "我1", "1\u200b",
        "123 456 7890 ", "020 7946 0958 ", "07911123456 ", "12 34 56 78 ", "1/2/3/4/", "2024-05-06 12:30 ",
        "4111 1111 1111 1111 04/27 ", "4111111111111111 ", "DE89 3704 0044 0532 0130 00 ", "203.0.113.9 ",
        "call 1234567 ", "order 07911123456 ", "my number is ", "jane at example dot com ", "v@post.example ",
        "https://h.example/?token=ab12cd34 ",
    )  # fmt: skip
    for pattern in patterns:
        yield repr(pattern), pattern * (WORST_TEXT // len(pattern))
    for sizes in ((2,), (3,), (4,), (3, 3, 4), (5, 6), (10,), (11,), (16,)):
        for glue in " -":
            times = WORST_TEXT // sum(size + 1 for size in sizes)
            groups = [digits(source, size) for _ in range(times) for size in sizes]
            yield f"random groups of {'-'.join(map(str, sizes))}, {glue!r}", glue.join(groups)


def make_line(kind: str, source: random.Random) -> Line:
    """A sentence with one value of the kind."""
    value = {
        "EMAIL": make_email, "PHONE": make_phone, "CARD": make_card, "IBAN": make_iban,
        "IP": make_ip, "URL": make_url,
    }[kind](source)  # fmt: skip
    return Line(source.choice(ROUND_VALUE[kind]).format(value), value, kind)


def make_nothing(source: random.Random) -> Line:
    """A sentence with numbers that are not personal."""
    numbers = {name: digits(source, length) for name, length in DIGITS.items()}
    return Line(source.choice(NOTHING).format(**numbers, day=source.randint(1, 28)), "", None)


def make_odd(kind: str, source: random.Random) -> Line:
    """A value as people paste or disguise it; a mobile number in its country's words."""
    if kind == "PHONE":
        region = source.choice(list(ROUND_MOBILE))
        value = make_mobile(region, source)
        return Line(source.choice(ROUND_MOBILE[region]).format(value), value, kind, region)
    line = make_line(kind, source)
    value = line.value
    if kind == "EMAIL":
        user, _, host = value.partition("@")
        value = source.choice(
            [
                f"{user} (at) {host}", f"{user}[at]{host.replace('.', '[dot]')}", f"{user}&#64;{host}", f"{user}\uff20{host}",
                f"{user}\u00ad@{host}", f"{user}@m\u00fcller.de", f"{user} at {host.replace('.', ' dot ')}", f"п{user[0]}тр@пример.рф", value,
            ]
        )  # fmt: skip
    elif kind == "CARD":
        value = source.choice(
            [
                value, value.replace(" ", "\u202f").replace("-", "\u2011"), value.translate(FULL_WIDTH),
                "\u200b".join(value), value.replace("-", " - "),
            ]
        )  # fmt: skip
        text = source.choice(["{} 04/27", "{} 04/27 123", "order 99 {}", "no.{}", *ODD_ROUND])
        return Line(text.format(value), value, kind)
    elif kind == "IBAN":
        bare = value.replace(" ", "")
        groups = [bare[at : at + 4] for at in range(0, len(bare), 4)]
        value = source.choice(
            [".".join(groups), "-".join(groups), "  ".join(groups).lower(), f"{bare[:2]} {bare[2:]}", "\u00a0".join(groups), bare.lower()]
        )  # fmt: skip
    elif kind == "IP":
        value = source.choice([value, value.translate(FULL_WIDTH)])
    else:
        return line
    return Line(source.choice(ODD_ROUND).format(value), value, kind)


def make_odd_nothing(source: random.Random) -> Line:
    """A mobile-like number of something else in its country's words, or a public link."""
    numbers = {name: digits(source, length) for name, length in DIGITS.items()}
    if source.random() < 0.3:
        day = source.randint(10, 28)
        return Line(f"see {source.choice(PUBLIC_LINKS).format(**numbers, day=day)}", "", None)
    region = source.choice(list(NOT_MOBILE))
    text = source.choice(NOT_MOBILE[region]).format(make_mobile(region, source))
    return Line(text, "", None, region)


def make_mobile(region: str, source: random.Random) -> str:
    """A mobile number of the country without blanks, as dialled there."""
    number = example_number_for_type(region, PhoneNumberType.MOBILE)
    assert number is not None
    assert number.national_number is not None
    number.national_number += source.randint(0, 5)
    written = format_number(number, PhoneNumberFormat.NATIONAL)
    return "".join(character for character in written if character.isdigit())


def digits(source: random.Random, length: int) -> str:
    """A number of this length, the first digit not 0."""
    return str(source.randint(10 ** (length - 1), 10**length - 1))


def make_email(source: random.Random) -> str:
    """An address in one of the usual shapes."""
    first, last = (
        "".join(source.choices("abcdefghiklmnoprstuvw", k=source.randint(3, 8))) for _ in "ab"
    )
    user = source.choice([f"{first}.{last}", f"{first}{digits(source, 2)}", f"{first}+{last}"])
    address = f"{user}@{last}.{source.choice(['example', 'co.example', 'mail.example'])}"
    return source.choice([address, address.title(), address.upper()])


def make_phone(source: random.Random) -> str:
    """A number of one of eight countries, with its last digits changed while it stays valid."""
    kind = source.choice([PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE])
    number = example_number_for_type(source.choice(REGIONS), kind)
    if number is None or number.national_number is None:
        return make_phone(source)
    number.national_number += source.randint(0, 5)
    forms = [PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL, PhoneNumberFormat.E164]
    return format_number(number, source.choice(forms))


def make_card(source: random.Random) -> str:
    """A card number with its check digit."""
    prefix, length = source.choice([("4", 16), ("52", 16), ("37", 15), ("6011", 16)])
    bare = prefix + "".join(source.choices("0123456789", k=length - len(prefix) - 1))
    card = f"{bare}{luhn.calc_check_digit(bare)}"
    glue = source.choice(["", " ", "-"])
    return glue.join(card[at : at + 4] for at in range(0, length, 4))


def make_iban(source: random.Random) -> str:
    """An account of one of four countries, in groups or not."""
    country, bank, length = source.choice(
        [("DE", "", 18), ("GB", "WEST", 14), ("NL", "ABNA", 10), ("FR", "", 23)]
    )
    account = bank + "".join(source.choices("0123456789", k=length))
    iban = f"{country}{mod_97_10.calc_check_digits(account + country)}{account}"
    return source.choice([iban, " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))])


def make_ip(source: random.Random) -> str:
    """Version 4 or 6."""
    if source.random() < 0.5:
        return ".".join(str(source.randint(1, 223)) for _ in range(4))
    groups = [f"{source.randint(0, 0xFFFF):x}" for _ in range(source.randint(2, 6))]
    return f"2001:db8::{':'.join(groups[:5])}"


def make_url(source: random.Random) -> str:
    """A link that opens something."""
    token = "".join(source.choices("abcdefghij0123456789", k=28)) + "a1"
    return source.choice(
        [
            f"https://shop.example/reset?token={token}",
            f"https://shop.example/o/{token}",
            f"http://vera:{token[:8]}@shop.example/files",
            f"www.shop.example/login?lang=en&session_id={token}",
        ]
    )


if __name__ == "__main__":
    main()
