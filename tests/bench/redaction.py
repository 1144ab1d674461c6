"""How well personal data is found: recall and false hits by kind, and lines a second.

    python -m tests.bench.redaction

The lines are made up here from a fixed seed: sentences round values of a known kind, and
sentences round numbers that are none (order numbers, dates, prices, versions). Synthetic lines
flatter: real ones are messier. Names without metadata are not found at all and not measured.
"""

import random
import time
from collections import Counter
from typing import NamedTuple

from phonenumbers import (
    PhoneNumberFormat,
    PhoneNumberType,
    example_number_for_type,
    format_number,
)
from stdnum import luhn
from stdnum.iso7064 import mod_97_10

from connectors.detect import PLACEHOLDER
from connectors.redact import Redactor

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


class Line(NamedTuple):
    """A line, the value in it and the value's kind (none: nothing personal)."""

    text: str
    value: str
    kind: str | None


def main() -> None:
    """Measure and print."""
    source = random.Random(SEED)
    lines = [make_line(kind, source) for kind in ROUND_VALUE for _ in range(PER_KIND)]
    lines += [make_nothing(source) for _ in range(PER_KIND * 3)]
    redactor = Redactor()
    redactor.redact_text("call +44 20 7946 0958")  # loads the phone numbers' metadata
    started = time.process_time()
    redacted = [redactor.redact_text(line.text) for line in lines]
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
    print(f"{len(lines):,} lines, {len(lines) / seconds:,.0f} lines/s of one core's time")
    print(f"{'kind':<6} {'lines':>6} {'recall':>7} {'false':>6}")
    for kind in ROUND_VALUE:
        print(f"{kind:<6} {made[kind]:>6} {found[kind] / made[kind]:>7.3f} {false[kind]:>6}")
    print(f"(false: hits where that kind was not; {made[None]} lines hold nothing personal)")


def make_line(kind: str, source: random.Random) -> Line:
    """A sentence with one value of the kind."""
    value = {
        "EMAIL": make_email, "PHONE": make_phone, "CARD": make_card, "IBAN": make_iban,
        "IP": make_ip, "URL": make_url,
    }[kind](source)  # fmt: skip
    return Line(source.choice(ROUND_VALUE[kind]).format(value), value, kind)


def make_nothing(source: random.Random) -> Line:
    """A sentence with numbers that are nobody's."""
    numbers = {name: digits(source, length) for name, length in DIGITS.items()}
    return Line(source.choice(NOTHING).format(**numbers, day=source.randint(1, 28)), "", None)


def digits(source: random.Random, length: int) -> str:
    """So many digits, the first not 0."""
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
