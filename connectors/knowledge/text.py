"""Text of any reader, made safe to store and to show to a model; what was taken out is counted."""

import io
import re
import unicodedata
from collections.abc import Iterator

from connectors.control_tokens import CONTROL_TOKEN, without_control_tokens
from connectors.importers.base import ImportOptions
from connectors.importers.decode import read_lines
from connectors.importers.mojibake import fix_mojibake
from connectors.knowledge.article import Reason, Skipped, Unreadable, too_large

# Not seen by a reader, seen by a model: C0 and C1 controls but tab and line feed, zero-width spaces,
# overrides of direction, noncharacters, and the tag characters that can spell a hidden message. Joiners stay: Persian
# and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS = str.maketrans(
    {"\x0b": "\n", "\x0c": "\n", "\x85": "\n", "\u2028": "\n", "\u2029": "\n\n"}
)
_SPACES = str.maketrans(dict.fromkeys("\xa0\u2007\u202f", " ") | {"\xad": None})
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"}
)
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([\w.:-]{2,40})""",
    re.IGNORECASE,
)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # of byte order, which win
_HEAD_BYTES = 2048  # in which a page says its encoding (HTML: 1,024)


def clean(text: str, place: str = "") -> Iterator[str | Skipped]:
    """Yield the text as it may be stored, then a ``Skipped`` for each kind of thing taken out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_BREAKS)
    text = fix_mojibake(text)[0].translate(_LIGATURES).translate(_SPACES)
    unseen = len(_UNSEEN.findall(text))
    if unseen:
        text = _UNSEEN.sub("", text)
    tokens = len(CONTROL_TOKEN.findall(text))
    if tokens:
        text = without_control_tokens(text)
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    yield re.sub(r"\n{3,}", "\n\n", text).strip()
    if unseen:
        detail = "characters that no reader sees were taken out"
        yield Skipped(place, Reason.CONTROL_CHARACTERS, detail, part=True, count=unseen)
    if tokens:
        detail = "marks by which chat models tell turns apart were taken out"
        yield Skipped(place, Reason.CONTROL_TOKENS, detail, part=True, count=tokens)


def decode(data: bytes, *, most: int, declared: bool = False) -> tuple[str, list[Skipped]]:
    """The text of a file, lines that are none left empty, and what was left out.

    The encoding is that of a byte-order mark, with ``declared`` what an HTML page says of itself, UTF-8,
    or guessed, in this order.

    Raises:
        Unreadable: it has more characters than ``most``.
    """
    encoding = _declared(data) if declared else None
    lines = []
    skipped = []
    characters = 0
    options = ImportOptions(encoding=encoding)
    for line in read_lines(io.BytesIO(data), options, repair_mojibake=True):
        lines.append(line.text or "")
        characters += len(lines[-1]) + 1
        if characters > most + 1:
            raise Unreadable(Reason.TOO_LARGE, too_large(len(data)))
        if line.text is None:
            skipped.append(
                Skipped(
                    f"line {line.number}", line.reason or Reason.UNDECODABLE, line.detail, part=True
                )
            )
    return "\n".join(lines), skipped


def _declared(data: bytes) -> str | None:
    found = _DECLARED.search(data[:_HEAD_BYTES])
    if found is None or data.startswith(_MARKS):
        return None
    name = found[1].decode("ascii")
    try:
        text = data[: 1 << 16].decode(name, errors="ignore")
    except LookupError:  # no such encoding: it is found out
        return None
    # pages that say latin-1 and are UTF-8 are common, the other way round as well
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return name if text else None
    return "utf-8"
