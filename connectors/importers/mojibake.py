"""Repairs mojibake: "GrÃ¼ÃŸe" was "Grüße" before a program read its UTF-8 as cp1252.

Repaired are runs of characters whose bytes, in a code page that UTF-8 is often mistaken for, are
UTF-8. A run that stands for a single character counts only where it is no ordinary text: "Ã¼" and
"â€™" are not, but "MAÇÃ”" may end a quotation.
"""

import re
from typing import NamedTuple

# The first bytes of what is repaired: Latin, Greek, Cyrillic, Hebrew, Arabic; three bytes; emoji.
# The other code pages have words and dashes in the places of most of them.
_LEADS = {
    "cp1252": bytes(
        [*range(0xC2, 0xC7), 0xCB, *range(0xCE, 0xD2), *range(0xD7, 0xDA), *range(0xE0, 0xF1)]
    ),
    "mac_roman": bytes([0xC2, 0xC3, 0xC4, 0xC5, 0xE2, 0xF0]),
    "cp850": bytes([0xC2, 0xC3, 0xE2]),
}
_COMMON = frozenset(
    "\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014\u2026\u2039\u203a\u2022«»°·¡¿"
)  # ordinary after a letter
_THREE, _FOUR = 0xE0, 0xF0  # lead bytes of characters of three and of four bytes
_MAX_ROUNDS = 3  # some files were encoded more than twice


class _CodePage(NamedTuple):
    """A code page: runs of characters that are UTF-8 in it, and each character's byte."""

    runs: re.Pattern[str]
    bytes_of: dict[int, int]

    def fix(self, text: str) -> tuple[str, int]:
        """The text with each run decoded, and how many characters that gave."""
        parts = []
        count = at = 0
        for found in self.runs.finditer(text):
            run = found[0]
            decoded = run.translate(self.bytes_of).encode("latin-1").decode("utf-8")
            alone = len(decoded) == 1 and _COMMON.issuperset(run[1:])
            if alone and not (len(run) == 2 and _inside_a_word(text, found)):  # noqa: PLR2004
                continue
            parts += [text[at : found.start()], decoded]
            at = found.end()
            count += len(decoded)
        return "".join([*parts, text[at:]]), count


def fix_mojibake(text: str) -> tuple[str, int]:
    """The repaired text, and how many characters were repaired."""
    total = 0
    for _ in range(_MAX_ROUNDS):
        if text.isascii():
            break
        repaired, count = max(
            (page.fix(text) for page in _CODE_PAGES), key=lambda result: result[1]
        )
        if not count:
            break
        text = repaired
        total += count
    return text, total


def _inside_a_word(text: str, found: re.Match[str]) -> bool:
    before, after = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
    return before.islower() or after.islower()


def _code_page(codec: str) -> _CodePage:
    of_byte = {}
    for byte in range(0x80, 0x100):
        try:
            of_byte[byte] = bytes([byte]).decode(codec)
        except UnicodeDecodeError:  # cp1252 has five holes, which programs fill with controls
            of_byte[byte] = chr(byte)
    bytes_of = {ord(character): byte for byte, character in of_byte.items()}
    if codec == "cp1252":  # latin-1 has controls where cp1252 has punctuation
        bytes_of |= {byte: byte for byte in range(0x80, 0xA0)}

    def any_of(first: int, last: int) -> str:
        fitting = [chr(c) for c, byte in bytes_of.items() if first <= byte <= last]
        return f"[{re.escape(''.join(fitting))}]"

    rest = any_of(0x80, 0xBF)
    # Valid UTF-8 alone: nothing longer than need be, no surrogates; controls only as such.
    controls = re.escape("".join(map(chr, range(0x80, 0xA0))))
    second = {
        0xC2: f"{any_of(0xA0, 0xBF)[:-1]}{controls}]",
        # of these, cp1252's own characters alone: what was encoded three times
        0xC6: any_of(0x92, 0x92),
        0xCB: f"{any_of(0x86, 0x86)[:-1]}{any_of(0x9C, 0x9C)[1:]}",
        0xE0: any_of(0xA0, 0xBF),
        0xED: any_of(0x80, 0x9F),
    }
    second[0xF0] = any_of(0x90, 0xBF)
    more = {byte: rest * ((byte >= _THREE) + (byte >= _FOUR)) for byte in _LEADS[codec]}
    forms = [
        f"{re.escape(of_byte[lead])}{second.get(lead, rest)}{more[lead]}" for lead in _LEADS[codec]
    ]
    return _CodePage(re.compile(f"(?:{'|'.join(forms)})+"), bytes_of)


_CODE_PAGES = tuple(map(_code_page, _LEADS))
