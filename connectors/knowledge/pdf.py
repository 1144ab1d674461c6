"""PDF, through pypdf: pure Python, so that a hostile file can cost time but not corrupt memory.

A PDF has no headings. They are its outline (bookmarks) where it has one, else lines set larger than most.
A page that holds only images has no text, and is named; nothing here reads text off images.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from connectors.errors import TookTooLong
from connectors.knowledge.article import (
    MAX_ARTICLE_CHARACTERS,
    Article,
    Headings,
    Reason,
    Section,
    Skipped,
    Unreadable,
    stem_of,
    title_of,
    too_large,
)

if TYPE_CHECKING:  # where it is not known yet whether there is a PDF to read, it is not loaded
    from pypdf import PdfReader

MAX_PAGES = 2_000
_HEAD_BYTES = 1024  # in which "%PDF-" stands, also behind what a mail program left there
_LARGER = 1.15  # times the size of most of the text: a heading
_HEADING_CHARACTERS = 120  # a longer line in large type is a quotation
_MAX_OUTLINE = 5_000
_NO_TITLE = re.compile(
    r"untitled|microsoft word|\.(?:docx?|indd|pages|tex|pptx?|odt|pdf)$|^document\d*$",
    re.IGNORECASE,
)
_ENDS = re.compile(r"[.!?:;\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*$")
_ITEM = re.compile(r"\s*(?:[-*\u2022\u2023\u25aa\u25cf\u2013]|\(?\d{1,3}[.)]|[a-z][.)])\s")
_REPEATED = 0.6  # of the pages, from four on, a line at an edge of the page is a running head
_PAGES_FOR_REPEATED = 4
_EDGE = 2  # lines at the top and at the bottom that may be running heads

# pypdf logs each oddity of a file; the report says what matters
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


class _Line(NamedTuple):
    text: str
    size: float


class Pdf:
    """A PDF with text in it."""

    name = "pdf"
    description = "PDF with text (not scans)"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether ``%PDF-`` stands near its beginning."""
        return b"%PDF-" in head[:_HEAD_BYTES]

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the one article; see ``KnowledgeReader.read``."""
        reader = _opened(data)
        count = _safely(lambda: len(reader.pages))
        if count > MAX_PAGES:
            detail = f"{count:,} pages are more than the {MAX_PAGES:,} of one article; split it"
            raise Unreadable(Reason.TOO_LARGE, detail)
        pages: list[list[_Line]] = []
        characters = 0
        empty = []
        for number in range(1, count + 1):
            try:
                lines = _lines(reader, number)
            except TookTooLong:
                raise
            except Exception as exc:  # noqa: BLE001 - a damaged page raises anything; the others are read
                detail = f"the page cannot be read ({type(exc).__name__})"
                yield Skipped(f"page {number}", Reason.DAMAGED, detail, part=True)
                lines = []
            else:
                if not lines:
                    empty.append(number)
            characters += sum(len(line.text) for line in lines)
            if characters > MAX_ARTICLE_CHARACTERS:
                raise Unreadable(Reason.TOO_LARGE, too_large(characters))
            pages.append(lines)
        if empty and not characters:
            raise Unreadable(
                Reason.NO_TEXT,
                "it holds images of text, and no text: run it through text recognition (OCR) first",
            )
        for number in empty:
            detail = (
                "the page holds no text; if it is a scan, run it through text recognition (OCR)"
            )
            yield Skipped(f"page {number}", Reason.NO_TEXT, detail, part=True)
        _remove_running_heads(pages)
        title = title_of(str(_metadata_title(reader) or ""))
        if not title or _NO_TITLE.search(title):
            title = stem_of(filename)
        marks = _outline(reader, count)
        yield Article(filename, title, self.name, tuple(_sections(pages, marks)))


def _opened(data: bytes) -> "PdfReader":
    from pypdf import PdfReader  # noqa: PLC0415 - see above
    from pypdf.errors import FileNotDecryptedError  # noqa: PLC0415

    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        # a file that only restricts printing opens with the empty password
        locked = reader.is_encrypted and not reader.decrypt("")
    except TookTooLong:
        raise
    except FileNotDecryptedError as exc:
        raise Unreadable(Reason.ENCRYPTED, _ENCRYPTED) from exc
    except Exception as exc:
        raise Unreadable(
            Reason.DAMAGED, f"it is no whole PDF ({type(exc).__name__}: {exc})"
        ) from exc
    if locked:
        raise Unreadable(Reason.ENCRYPTED, _ENCRYPTED)
    return reader


_ENCRYPTED = "it is protected by a password; save it without one"


def _safely(read: Any) -> Any:  # noqa: ANN401
    try:
        return read()
    except TookTooLong:
        raise
    except Exception as exc:
        raise Unreadable(
            Reason.DAMAGED, f"its pages cannot be found ({type(exc).__name__})"
        ) from exc


def _lines(reader: "PdfReader", number: int) -> list[_Line]:
    """The lines of a page, each with the size of most of its letters, in points."""
    sizes: list[tuple[str, float]] = []

    def visit(
        text: str, cm: Sequence[float], tm: Sequence[float], _font: object, size: float | None
    ) -> None:
        if text.strip():
            scale = (abs(tm[3]) or abs(tm[1])) * (abs(cm[3]) or abs(cm[1]))
            sizes.append((text.strip(), round(float(size or 0) * scale, 1)))

    text = reader.pages[number - 1].extract_text(visitor_text=visit)
    by_text: dict[str, float] = {}
    for piece, size in sizes:
        for part in piece.split("\n"):
            if part.strip():
                by_text.setdefault(part.strip(), size)
    found = []
    for line in text.split("\n"):
        bare = line.strip()
        found.append(_Line(bare, by_text.get(bare, 0.0)))
    while found and not found[-1].text:
        found.pop()
    return found if any(line.text for line in found) else []


def _remove_running_heads(pages: list[list[_Line]]) -> None:
    """Take out the lines that stand at the edges of most pages; a page's number may differ in them."""
    if len(pages) < _PAGES_FOR_REPEATED:
        return
    seen = Counter(
        key
        for number, lines in enumerate(pages, 1)
        for key in {key for at in _edges(lines) for key in _keys(lines[at].text, number)}
    )
    repeated = {key for key, count in seen.items() if count >= _REPEATED * len(pages)}
    for number, lines in enumerate(pages, 1):
        for at in reversed(_edges(lines)):
            if repeated.intersection(_keys(lines[at].text, number)):
                del lines[at]


def _keys(text: str, page: int) -> set[str]:
    """The line as it is, and with its first or its last number counted from the page's."""
    found = {text.lower()}
    numbers = list(re.finditer(r"\d{1,6}", text))
    for each in numbers[:1] + numbers[-1:]:
        found.add(f"{text[: each.start()]}#{int(each[0]) - page}{text[each.end() :]}".lower())
    return found


def _edges(lines: Sequence[_Line]) -> list[int]:
    filled = [at for at, line in enumerate(lines) if line.text]
    return sorted({*filled[:_EDGE], *filled[-_EDGE:]})


def _key(text: str) -> str:
    """A heading as the outline and the page may both have it."""
    return " ".join(text.lower().split())


def _metadata_title(reader: "PdfReader") -> Any:  # noqa: ANN401
    try:
        return reader.metadata.title if reader.metadata else None
    except TookTooLong:
        raise
    except Exception:  # noqa: BLE001 - a title is not needed
        return None


def _outline(reader: "PdfReader", pages: int) -> dict[int, list[tuple[int, str]]]:
    """By page, from 0: the levels and titles of the outline's entries."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        waiting: list[tuple[int, Any]] = [(1, entry) for entry in reversed(reader.outline)]
        count = 0
        while waiting and count < _MAX_OUTLINE:
            level, entry = waiting.pop()
            count += 1
            if isinstance(entry, list):
                waiting += [(level + 1, each) for each in reversed(entry)]
                continue
            page = reader.get_destination_page_number(entry)
            title = title_of(str(entry.title or ""))
            if title and page is not None and 0 <= page < pages:
                found.setdefault(page, []).append((level, title))
    except TookTooLong:
        raise
    except Exception:  # noqa: BLE001 - without an outline there are still sizes
        return {}
    return found


def _sections(
    pages: Sequence[Sequence[_Line]], outline: dict[int, list[tuple[int, str]]]
) -> Iterator[Section]:
    """The text by headings. A section that goes on over pages is of the page where it begins."""
    body = _body_size(pages)
    sizes = sorted(
        {line.size for lines in pages for line in lines if _is_heading(line, body)}, reverse=True
    )
    headings = Headings()
    held: list[str] = []
    place = "page 1"
    for number, lines in enumerate(pages, 1):
        marks = list(outline.get(number - 1, ()))
        known = {_key(line.text) for line in lines}
        for level, title in [mark for mark in marks if _key(mark[1]) not in known]:
            if held:  # the entry points at a page that does not show its title
                yield Section(headings.path, _paragraphs(held), place)
            headings.enter(level, title)
            held, place = [], f"page {number}"
        by_key = {_key(title): (level, title) for level, title in marks}
        for line in lines:
            mark = by_key.get(_key(line.text))
            if mark is None and not outline and _is_heading(line, body):
                mark = (1 + min(sizes.index(line.size), 5), line.text)
            if mark is None:
                if not held:
                    place = f"page {number}"
                held.append(line.text)
                continue
            if any(held):
                yield Section(headings.path, _paragraphs(held), place)
            headings.enter(*mark)
            held, place = [], f"page {number}"
    if any(held):
        yield Section(headings.path, _paragraphs(held), place)


def _body_size(pages: Sequence[Sequence[_Line]]) -> float:
    """The size in which most of the text is set; 0 where sizes are not known."""
    letters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            if line.size:
                letters[line.size] += len(line.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def _is_heading(line: _Line, body: float) -> bool:
    if not body or not line.text or len(line.text) > _HEADING_CHARACTERS:
        return False
    return line.size >= _LARGER * body and any(c.isalpha() for c in line.text)


def _paragraphs(lines: Sequence[str]) -> str:
    """Lines as paragraphs: a line that does not end a sentence goes on, a word cut at its end is joined."""
    out: list[str] = []
    for line in lines:
        before = out[-1] if out else ""
        if not line or not before or _ITEM.match(line):
            out.append(line)
        elif before.endswith("-") and line[:1].islower() and before[-2:-1].isalpha():
            out[-1] = before[:-1] + line
        elif _ENDS.search(before) and (line[:1].isupper() or not line[:1].isalpha()):
            out.append(line)
        else:
            out[-1] = f"{before} {line}"
    return "\n".join(out)
