"""Folds a text: one way of writing each blank, dash, digit and letter.

Pasted texts hold no-break spaces, soft hyphens, full-width digits, digits of other scripts and HTML
character references. Every recognizer reads the folded copy; its spans are mapped back.
"""

import html
import re
import unicodedata
from array import array
from functools import lru_cache
from typing import NamedTuple

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff"
    "\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""For a character class: scripts without blanks between words, or with particles joined to them."""

_APOSTROPHES = dict.fromkeys(
    map(ord, "\u2018\u2019\u201b\u02bc\u02b9\u02bb\u00b4`\u2032\uff07"), "'"
)
# Apart from Unicode's dashes (category Pd): minus, hyphen bullet, box drawing.
_DASHES = frozenset("\u2212\u2043\u2500\u2501\u02d7")
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")  # letters by category, but invisible
_ODD = re.compile(r"[^\n\r\x20-\x5f\x61-\x7e]|&#?\w{2,31};")
_PIECE = re.compile(
    # Runs that stand for themselves. "&" may begin a reference; "`" is an apostrophe.
    r"(?P<same>[\n\r\x20-\x25\x27-\x5f\x61-\x7e]+(?![\u0300-\u036f])"
    r"|[\u0400-\u0481\u048a-\u052f]+(?![\u0300-\u036f])|[\u4e00-\u9fff\uac00-\ud7a3]+)"
    r"|&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31}\d{0,2});"
    # Between digits these are strokes, elsewhere letters or points.
    r"|(?P<stroke>(?<=\d)[\u30fc\u30fb\u00b7\u2027\u2022](?=\d))"
    r"|(?P<stop>(?<=[A-Za-z0-9])[\u3002\uff61](?=[A-Za-z0-9]))"
    # Letters that are written in parts: Korean syllables, accents set after their letter.
    r"|[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?"
    r"|.[\u0300-\u036f\u0653-\u0655\u3099\u309a]*",
    re.DOTALL,
)
_BETWEEN = {"stroke": "-", "stop": "."}


class Folded(NamedTuple):
    """A folded text and where each of its characters stands in the original."""

    text: str
    starts: "array[int] | None" = None
    ends: "array[int] | None" = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original that became ``text[start:end]``, which must not be empty."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def fold(text: str) -> Folded:
    """NFKC letter by letter, then ASCII blanks, dashes, apostrophes and digits.

    Removed are zero-width characters, soft hyphens, variation selectors, direction marks, other
    control characters, and combining marks that form no letter with their base. Character
    references (``&#64;``, ``&nbsp;``) are decoded.
    """
    if not _ODD.search(text):
        return Folded(text)
    parts: list[str] = []
    starts, ends = array("I"), array("I")
    for found in _PIECE.finditer(text):
        start, end = found.span()
        if found.lastgroup == "same":
            parts.append(found[0])
            starts.extend(range(start, end))
            ends.extend(range(start + 1, end + 1))
            continue
        folded = _BETWEEN.get(found.lastgroup or "") or _fold_piece(found[0])
        if not folded and ends and unicodedata.category(found[0][0]).startswith("M"):
            ends[-1] = end  # a mark goes with its letter
        parts.append(folded)
        starts.extend([start] * len(folded))
        ends.extend([end] * len(folded))
    return Folded("".join(parts), starts, ends)


@lru_cache(maxsize=1 << 14)
def _fold_piece(piece: str) -> str:
    if piece[0] == "&" and len(piece) > 1:
        piece = html.unescape(piece)
    piece = unicodedata.normalize("NFKC", piece.translate(_APOSTROPHES))
    return "".join(map(_fold_character, piece))


def _fold_character(character: str) -> str:  # noqa: PLR0911 - a table
    if character in "\n\r":
        return character
    if character in _DASHES:
        return "-"
    if character in _FILLERS:
        return ""
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Pd":
            return "-"
        case "Zs":
            return " "
        case "Zl" | "Zp":
            return "\n"
        case "Cc":
            return {"\t": " ", "\v": "\n", "\f": "\n", "\x85": "\n"}.get(character, "")
        case "Cf" | "Mn" | "Mc" | "Me":
            return ""
    if character == "\u2800":  # an empty Braille cell
        return " "
    return {"\u2044": "/", "\u2236": ":"}.get(character, character)


def folded_words(text: str) -> tuple[str, ...]:
    """The words of a list, in lower case, as a folded text has them."""
    return tuple(dict.fromkeys(fold(word).text.casefold() for word in text.split()))
