"""Tables (CSV) of questions and answers: each row is a section whose heading is the question."""

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

from connectors.importers.base import ImportOptions
from connectors.importers.csv.headers import HEADERS
from connectors.importers.csv.records import delimiter_of, read_records
from connectors.importers.decode import peek, read_lines
from connectors.importers.html_text import is_html, text_of
from connectors.importers.normalization import normalize, normalized_words
from connectors.knowledge.article import (
    MAX_ARTICLE_CHARACTERS,
    Article,
    Reason,
    Section,
    Skipped,
    Unreadable,
    stem_of,
    title_of,
    too_large,
)

Column = Literal["question", "answer", "category"]
_NAMES: Mapping[Column, frozenset[str]] = {
    "question": normalized_words("question questions q title faq " + " ".join(HEADERS["question"])),
    "answer": normalized_words(
        "answer answers a body text content solution " + " ".join(HEADERS["answer"])
    ),
    "category": normalized_words(
        "category section topic group area kategorie thema bereich rubrik categorie categoria "
        "rubrique sezione secao tema kategoria категория 分类 カテゴリ 카테고리"
    ),
}
_EXTENSIONS = (".csv", ".tsv")


class QuestionTable:
    """CSV, TSV and similar with a header that names a question and an answer."""

    name = "csv"
    description = "tables (CSV) with the columns question and answer, and perhaps category"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether the first line names the two columns, or the name ends in .csv or .tsv."""
        text = peek(head).lstrip()
        if (
            not text
            or "\0" in text
            or head.startswith((b"PK\x03\x04", b"%PDF", b"\xd0\xcf\x11\xe0"))
        ):
            return False
        if filename.lower().removesuffix(".gz").endswith(_EXTENSIONS):
            return True
        first = text.split("\n", 1)[0].strip("\r")
        columns = _columns([cell.strip().strip('"') for cell in first.split(delimiter_of(first))])
        return columns.keys() >= {"question", "answer"}

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the one article; see ``KnowledgeReader.read``."""
        options = ImportOptions()
        lines = read_lines(io.BytesIO(data), options, repair_mojibake=True)
        first = next((line for line in lines if line.text is None or line.text.strip()), None)
        if first is None:
            raise Unreadable(Reason.EMPTY, "the table is empty")
        if first.text is None:
            raise Unreadable(Reason.UNDECODABLE, f"line {first.number}: {first.detail}")
        records = read_records(
            chain([first], lines), delimiter_of(first.text), max_bytes=options.max_line_bytes
        )
        header = next(records).fields or []
        columns = _columns(header)
        if missing := [name for name in ("question", "answer") if name not in columns]:
            shown = ", ".join(title_of(cell) for cell in header[:12])
            detail = f"no column is called {' or '.join(missing)}; the header has: {shown}"
            raise Unreadable(Reason.NO_COLUMNS, detail)
        sections = []
        characters = 0
        for record in records:
            place = f"line {record.line}"
            if record.fields is None:
                yield Skipped(place, Reason.BAD_ROW, record.detail, part=True)
                continue
            question, answer, category = (
                _cell(record.fields, columns.get(name))
                for name in ("question", "answer", "category")
            )
            if not question or not answer:
                what = "answer" if question else "question"
                if question or answer:
                    yield Skipped(place, Reason.BAD_ROW, f"the row has no {what}", part=True)
                continue
            characters += len(question) + len(answer)
            if characters > MAX_ARTICLE_CHARACTERS:
                raise Unreadable(Reason.TOO_LARGE, too_large(characters))
            headings = tuple(filter(None, (title_of(category), title_of(question))))
            sections.append(Section(headings, answer, place))
        yield Article(filename, stem_of(filename), self.name, tuple(sections))


def _columns(header: Sequence[str]) -> dict[Column, int]:
    """Which column is what, by its header; the first of several."""
    found: dict[Column, int] = {}
    for at, cell in enumerate(header):
        name = normalize(cell)
        for column, names in _NAMES.items():
            if name in names and column not in found:
                found[column] = at
                break
    return found


def _cell(fields: Sequence[str], at: int | None) -> str:
    if at is None or at >= len(fields):
        return ""
    text = fields[at].strip()
    return text_of(text) if is_html(text) else text
