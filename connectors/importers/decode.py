"""Bytes to numbered lines: compression, encodings and bounds, in one place for all importers.

Lines are streamed. A file without a byte-order mark counts as UTF-8 until a line is not; if
everything before was plain ASCII, the whole file is then read as an eight-bit encoding, else the
line alone is rejected. A line over the bound is skipped without being held. Lines end in LF, CRLF or,
where the first line does, in CR alone.
"""

import codecs
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, NamedTuple

import charset_normalizer

from connectors.errors import BadMapping
from connectors.importers.base import MIB, ImportOptions, Note, Reason, ignore_note
from connectors.importers.mojibake import fix_mojibake

_CHUNK = 64 * 1024
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_EIGHT_BIT = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "cp949", "big5"]
# Below 0xC0 every Windows code page has punctuation (curly quotes, the euro), which distinguishes
# none of them; with fewer letters than this the guess is a coin toss (tried on a dozen sentences in nine languages).
_FIRST_LETTER = 0xC0
_LETTERS_FOR_A_GUESS = 8
# What else Latin text may be: from a classic Mac (with CR line ends), or from DOS.
_LATIN = ("mac_roman", "cp850")
_BETTER = 2.0  # by how much, in points of ``_plausible``, one must beat cp1252
_GOOD = 0.75  # points a character that are expected of the right one
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_INSIDE_WORDS = frozenset("\u2019\u2013\u2014\xb7\xad")
_OUTSIDE_WORDS = frozenset("\u2018\u2019\u201c\u201d\u201e\u2013\u2014\u2026\u2022€£§©®™°«»¿¡\xa0")
_OLD_MAC = re.compile(rb"\A[^\n\r]*\r(?!\r*\n)")


class Line(NamedTuple):
    """A physical line from 1, without its end; ``text`` is None where ``reason`` says why."""

    number: int
    text: str | None
    reason: Reason | None = None
    detail: str = ""


class _UnreadableError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_lines(
    stream: IO[bytes],
    options: ImportOptions,
    note: Note = ignore_note,
    *,
    repair_mojibake: bool = False,
) -> Iterator[Line]:
    """Yield every line, in order.

    Args:
        stream: Read once, in pieces of 64 KiB.
        options: The encoding, where the operator knows it, and the bounds.
        note: Gets ``encoding`` at the end.
        repair_mojibake: Whether to repair, and note, what was encoded twice.

    Raises:
        BadMapping: ``options.encoding`` is not a text encoding.
    """
    chunks = _unpack(iter(lambda: stream.read(_CHUNK), b""), bound=options.max_unpacked_bytes)
    number = 0
    decoder: _LineDecoder | None = None
    try:
        head = next(chunks, b"")
        encoding, certain, mark = _encoding_of(head, options.encoding)
        chunks = chain([head[mark:]], chunks)
        label = encoding
        if encoding.startswith(("utf-16", "utf-32")):
            chunks = _transcode(chunks, encoding)
            encoding, certain = "utf-8", True
        first = next(chunks, b"")
        chunks = chain([first], chunks)
        old_mac = _OLD_MAC.match(first) is not None
        if old_mac:
            chunks = (chunk.replace(b"\r", b"\n") for chunk in chunks)
        decoder = _LineDecoder(
            encoding, first, certain=certain, old_mac=old_mac, repair_mojibake=repair_mojibake
        )
        decoder.label = label
        for raw in _split(chunks, options.max_line_bytes):
            number += 1
            if raw is None:
                detail = f"longer than {options.max_line_bytes / MIB:g} MiB"
                yield Line(number, None, Reason.LINE_TOO_LONG, detail)
            else:
                yield decoder.decode(number, raw)
    except _UnreadableError as exc:
        yield Line(number + 1, None, exc.reason, exc.detail)
    if decoder:
        note("encoding", decoder.label)
        if decoder.repaired:
            note("encoded twice", f"{decoder.repaired:,} characters, put right")


def peek(head: bytes) -> str:
    """The beginning of a file as text, for sniffing; undecodable bytes become U+FFFD."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _CHUNK)
        except zlib.error:
            return ""
    encoding, _, mark = _encoding_of(head, None)
    return head[mark:].decode(encoding, errors="replace")


def _encoding_of(head: bytes, wanted: str | None) -> tuple[str, bool, int]:
    """The encoding, whether it is certain, and how many bytes its mark takes."""
    mark, marked = next(((len(m), name) for m, name in _MARKS if head.startswith(m)), (0, ""))
    if wanted:
        try:
            found = codecs.lookup(wanted).name
            "".encode(found)
        except LookupError as exc:
            raise BadMapping(f"no text encoding {wanted!r}; try utf-8, cp1252 or utf-16") from exc
        if found == "utf-8-sig":
            found = "utf-8"
        if found in ("utf-16", "utf-32"):
            found = marked if marked.startswith(found) else f"{found}-le"
        return found, True, mark if found == marked else 0
    if marked:
        return marked, True, mark
    sample = head[:1024]
    if b"\0" in sample:
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if max(even, odd) > 0.4 * len(sample) and min(even, odd) < 0.05 * len(sample):
            return ("utf-16-be" if even > odd else "utf-16-le"), True, 0
    return "utf-8", False, 0


def _unpack(chunks: Iterator[bytes], *, bound: int) -> Iterator[bytes]:
    """Decompress gzip (several members too) up to ``bound`` bytes; pass anything else on."""
    first = next(chunks, b"")
    if not first.startswith(_GZIP):
        yield from chain([first], chunks)
        return
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = 0
    for chunk in chain([first], chunks):
        rest = chunk
        while rest:
            if unpacker.eof:
                if not rest.strip(b"\0"):  # padding after the last member is allowed
                    break
                unpacker = zlib.decompressobj(wbits=31)
            try:
                data = unpacker.decompress(rest, _CHUNK)
            except zlib.error as exc:
                raise _UnreadableError(Reason.BAD_COMPRESSION, f"gzip: {exc}") from exc
            unpacked += len(data)
            if unpacked > bound:
                detail = f"unpacks to more than {bound / MIB:g} MiB; the rest was not read"
                raise _UnreadableError(Reason.TOO_LARGE, detail)
            if data:
                yield data
            rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    if not unpacker.eof:
        detail = "the gzip file ends too early; the rest is missing"
        raise _UnreadableError(Reason.BAD_COMPRESSION, detail)


def _transcode(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """UTF-16 or UTF-32 to UTF-8; what is not text becomes bytes that are not UTF-8 either."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        yield b"\xff"


def _split(chunks: Iterable[bytes], limit: int) -> Iterator[bytes | None]:
    """Cut at LF; None stands for a line longer than ``limit`` bytes."""
    held = bytearray()
    too_long = False
    for chunk in chunks:
        *ended, tail = chunk.split(b"\n")
        for piece in ended:
            too_long = too_long or len(held) + len(piece) > limit
            yield None if too_long else bytes(held + piece)
            held.clear()
            too_long = False
        if not too_long:
            held += tail
        if len(held) > limit:
            too_long = True
            held.clear()
    if too_long:
        yield None
    elif held:
        yield bytes(held)


class _LineDecoder:
    """Decodes line by line; decides on the encoding at the first line that is not ASCII."""

    def __init__(
        self, encoding: str, head: bytes, *, certain: bool, old_mac: bool, repair_mojibake: bool
    ) -> None:
        self.label = encoding
        self.repaired = 0
        self._encoding = encoding
        self._head = head
        self._certain = certain
        self._old_mac = old_mac
        self._repair_mojibake = repair_mojibake

    def decode(self, number: int, raw: bytes) -> Line:
        raw = raw.removesuffix(b"\r")
        if not self._certain and not raw.isascii():
            self._decide_encoding(raw)
        try:
            text = raw.decode(self._encoding)
        except UnicodeDecodeError as exc:
            where = f"byte {exc.start + 1} of the line is not {self._encoding}"
            return Line(number, None, Reason.UNDECODABLE, where)
        if self._repair_mojibake:
            text, repaired = fix_mojibake(text)
            self.repaired += repaired
        return Line(number, text)

    def _decide_encoding(self, raw: bytes) -> None:
        self._certain = True
        sample = raw if self._head.isascii() else self._head
        if not _mostly_utf8(sample):
            self._encoding = _guess(sample, old_mac=self._old_mac)
            self.label = f"{self._encoding} (guessed)"


def _mostly_utf8(sample: bytes) -> bool:
    """Whether more of the lines that are not ASCII are UTF-8 than are not."""
    balance = 0
    lines = sample.split(b"\n")
    for line in lines[:-1] or lines:  # the last one may be cut in the middle of a character
        if not line.isascii():
            try:
                line.decode("utf-8")
                balance += 1
            except UnicodeDecodeError:
                balance -= 1
    return balance > 0


def _guess(sample: bytes, *, old_mac: bool) -> str:
    """Which eight-bit encoding: cp1252 unless another one fits and cp1252 does not."""
    points = _plausible(sample, "cp1252")
    letters = sum(byte >= 0x80 for byte in sample)  # noqa: PLR2004
    other, best = max(
        ((each, _plausible(sample, each)) for each in _LATIN), key=lambda pair: pair[1]
    )
    if old_mac and (mac := _plausible(sample, "mac_roman")) >= max(points, 0):
        other, best = "mac_roman", mac + _BETTER
    if best >= max(points + _BETTER, _GOOD * letters):
        return other
    if sum(byte >= _FIRST_LETTER for byte in sample) < _LETTERS_FOR_A_GUESS:
        return "cp1252"
    matches = charset_normalizer.from_bytes(sample, cp_isolation=_EIGHT_BIT, enable_fallback=False)
    best_match = matches.best()
    if best_match is None or any("cp1252" in match.could_be_from_charset for match in matches):
        return "cp1252"
    return best_match.encoding


def _plausible(sample: bytes, encoding: str) -> float:
    """Points for how the characters beyond ASCII stand in Latin text.

    A letter in a word or a quotation mark beside one +1; a capital or a sign inside a word -2.
    """
    text = sample.decode(encoding, errors="replace")
    points = 0.0
    for found in _BEYOND_ASCII.finditer(text):
        character = found[0]
        before, after = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
        if character.isalpha() and unicodedata.name(character, "").startswith("LATIN "):
            small = before.islower() or (before.isalpha() and after.islower())
            if small and character.isupper():
                points -= 2
            else:
                points += before.isalpha() or after.isalpha()
        elif before.isalpha() and after.isalpha():
            points += 1 if character in _INSIDE_WORDS else -2
        else:
            points += 1 if character in _OUTSIDE_WORDS else -1
    return points
