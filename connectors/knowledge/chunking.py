"""Articles cut into the pieces that are searched: at headings, then at the ends of paragraphs and sentences.

A piece never goes over a heading, and keeps the headings above it. Its size is bounded in characters,
because what cuts has no tokenizer: the encoder of the search, all-MiniLM-L6-v2, reads 256 tokens at
most, and English help pages have some 4.4 characters a token, so 900 characters and a heading of
usual length fit. Text of other kinds has more tokens for as many characters (a Chinese character is
one), so that words are estimated too, and a piece ends at whichever bound comes first.
"""

import re
from collections.abc import Iterator

import msgspec

from connectors.knowledge.article import Section

MAX_CHARACTERS = 900
MAX_TOKENS = 230
"""Estimated, of the text and its headings together; of the 256 two are special, the rest is for error."""
MIN_TOKENS = 64
"""That are left for the text where its headings are very long."""

_WORD = re.compile(
    r"[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W\d_]+|\d+|[^\w\s]|_"
)
_PIECE_CHARACTERS = 6  # a longer word becomes several tokens, about one for each so many characters
_DIGITS = 3  # of a number in one token
_PARAGRAPH = re.compile(r"\n{2,}")
_LINE = re.compile(r"\n")
# the end of a sentence, with the quote or bracket that closes it; not after a single letter ("e.g.")
_SENTENCE = re.compile(
    r"(?<=[.!?\u2026])(?<!\b\w\.)[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f\u061f\u0964])"
)
_SPACE = re.compile(r"\s+")


class Chunk(msgspec.Struct, frozen=True):
    """A piece of an article: ``ordinal`` counts from 0, ``headings`` are those above it."""

    ordinal: int
    headings: tuple[str, ...]
    text: str


def chunks_of(title: str, sections: tuple[Section, ...]) -> Iterator[Chunk]:
    """Yield the pieces of an article, in its order; all of its text is in one of them."""
    ordinal = 0
    for section in sections:
        above = sum(map(estimate_tokens, (title, *section.headings)))
        bound = max(MIN_TOKENS, MAX_TOKENS - above)
        for text in _cut(section.text.strip(), bound):
            yield Chunk(ordinal, section.headings, text)
            ordinal += 1


def embedded_text(title: str, headings: tuple[str, ...] | list[str], text: str) -> str:
    """What is given to the encoder for a piece: its headings say what it is about."""
    return "\n".join([*dict.fromkeys((title, *headings)), text])


def estimate_tokens(text: str) -> int:
    """About how many tokens a WordPiece tokenizer makes of a text; rather too many than too few."""
    count = 0
    for found in _WORD.finditer(text):
        word = found[0]
        if word.isdigit():
            count += -(-len(word) // _DIGITS)
        elif word.isascii():
            count += -(-len(word) // _PIECE_CHARACTERS) if len(word) > _PIECE_CHARACTERS + 4 else 1
        else:  # letters that the English vocabulary has few pieces with
            count += -(-len(word) // 2)
    return count


def _fits(text: str, bound: int) -> bool:
    return len(text) <= MAX_CHARACTERS and (len(text) <= bound or estimate_tokens(text) <= bound)


def _cut(text: str, bound: int) -> Iterator[str]:
    """Pieces that fit, as large as their paragraphs let them be."""
    yield from _pack(_pieces(text, bound, (_PARAGRAPH, _LINE, _SENTENCE, _SPACE)), bound)


def _pieces(text: str, bound: int, cuts: tuple[re.Pattern[str], ...]) -> Iterator[tuple[str, str]]:
    """Texts that fit, each with what stood before it: cut no finer than is needed."""
    if _fits(text, bound):
        yield "", text
        return
    if not cuts:
        step = min(MAX_CHARACTERS, bound)
        for at in range(0, len(text), step):
            yield "", text[at : at + step]
        return
    pattern, *rest = cuts
    before = ""
    at = 0
    for found in pattern.finditer(text):
        part, gap = text[at : found.start()], found[0]
        if part:
            # a quote that closes the sentence stays with it
            closing = gap.rstrip()
            yield from _joined(before, _pieces(part + closing, bound, tuple(rest)))
            before = gap[len(closing) :]
        at = found.end()
    if at < len(text):
        yield from _joined(before, _pieces(text[at:], bound, tuple(rest)))


def _joined(before: str, pieces: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for index, (gap, piece) in enumerate(pieces):
        yield (gap if index else before), piece


def _pack(pieces: Iterator[tuple[str, str]], bound: int) -> Iterator[str]:
    """Neighbours together while they fit."""
    held: list[str] = []
    length = tokens = 0
    for gap, piece in pieces:
        more = estimate_tokens(piece)
        if held and (length + len(gap) + len(piece) > MAX_CHARACTERS or tokens + more > bound):
            yield "".join(held).strip()
            held, length, tokens = [], 0, 0
        held += [gap, piece] if held else [piece]
        length += (len(gap) if length else 0) + len(piece)
        tokens += more
    if last := "".join(held).strip():
        yield last
