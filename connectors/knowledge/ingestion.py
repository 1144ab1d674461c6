"""From a file of articles to pieces that can be searched: choose the format, read, clean, redact, cut, count.

The caller stores.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import msgspec

from connectors.conversation import Conversation, Role, Turn
from connectors.errors import TookTooLong
from connectors.import_pipeline import RecordLimit
from connectors.knowledge import HEAD_BYTES, choose
from connectors.knowledge.article import (
    MAX_ARTICLE_CHARACTERS,
    MAX_FILE_BYTES,
    MAX_SECTIONS,
    Article,
    KnowledgeReader,
    Reason,
    Section,
    Skipped,
    Unreadable,
    title_of,
)
from connectors.knowledge.chunking import Chunk, chunks_of
from connectors.knowledge.text import clean
from connectors.redaction.redactor import Redactor

EXAMPLES_OF_A_REASON = 10
"""How many things a report names for each reason; all are counted."""
MAX_CHUNKS = 20_000
"""Of one article: of the longest, 2 MiB of text, some 2,500 are made; this many only of very many headings."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An article that is ready to be stored. ``sha256`` is of its title and pieces: of what is found."""

    name: str
    title: str
    format: str
    sha256: str
    sections: int
    characters: int
    chunks: tuple[Chunk, ...]


class KnowledgeReport(msgspec.Struct, kw_only=True):
    """What was read of a file.

    ``articles`` were kept, with ``sections`` and ``chunks``; of them ``new`` were not there before,
    ``replaced`` have a new version now and ``unchanged`` were there already, word for word. ``skipped``
    articles were left out, ``skipped_parts`` are parts of kept ones. ``reasons`` counts both by reason;
    ``examples`` are the first of each, with their places. ``redacted`` counts replaced personal data by
    kind. ``shortened`` pieces had more tokens than the encoder reads: their end does not count in the
    search, and is shown.
    """

    format: str = ""
    filename: str = ""
    sha256: str = ""
    size_bytes: int = 0
    articles: int = 0
    new: int = 0
    replaced: int = 0
    unchanged: int = 0
    sections: int = 0
    characters: int = 0
    chunks: int = 0
    skipped: int = 0
    skipped_parts: int = 0
    shortened: int = 0
    reasons: dict[str, int] = {}
    examples: list[Skipped] = []
    redacted: dict[str, int] = {}


class Ingestion:
    """One reading of a file. Iterate once; then ``report`` is complete.

    For example::

        run = Ingestion(path.read_bytes(), path.name, redactor=Redactor())
        for article in run:
            store(article)
        print(run.report.reasons)

    Args:
        data: the file.
        filename: for the report, and for names and titles.
        name: what the article is called instead of its file; the folder of an archive's articles.
        redactor: takes personal details out; None keeps them.
        article_limit: entered for each article's reading, and again for its redaction; where it raises
            ``TookTooLong`` the article is left out.
    """

    def __init__(
        self,
        data: bytes,
        filename: str,
        *,
        name: str = "",
        redactor: Redactor | None = None,
        article_limit: RecordLimit = nullcontext,
    ) -> None:
        self._data = data
        self._filename = filename
        self._name = name
        self._redactor = redactor
        self._limit = article_limit
        self._names: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._redacted: Counter[str] = Counter()
        self._report = KnowledgeReport(
            filename=filename, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
        )

    def __iter__(self) -> Iterator[Prepared]:
        """Yield the articles that are kept."""
        for found in self._read():
            if isinstance(found, Skipped):
                self.skip(found)
                continue
            try:
                prepared = self._prepare(found)
            except TookTooLong as exc:  # never kept unredacted
                self.skip(Skipped(found.name, Reason.TOO_SLOW, str(exc)))
            except Unreadable as exc:
                self.skip(Skipped(found.name, exc.reason, str(exc)))
            else:
                self._report.articles += 1
                self._report.sections += prepared.sections
                self._report.characters += prepared.characters
                self._report.chunks += len(prepared.chunks)
                yield prepared

    @property
    def report(self) -> KnowledgeReport:
        """The counts so far; complete after the last article."""
        return msgspec.structs.replace(
            self._report,
            reasons=dict(self._reasons.most_common()),
            redacted=dict(self._redacted.most_common()),
            examples=list(self._report.examples),
        )

    def skip(self, item: Skipped) -> None:
        """Count what was left out, and name the first of each reason."""
        if item.part:
            self._report.skipped_parts += item.count
        else:
            self._report.skipped += item.count
        self._reasons[item.reason] += item.count
        if sum(each.reason == item.reason for each in self._report.examples) < EXAMPLES_OF_A_REASON:
            if self._redactor:
                item = msgspec.structs.replace(
                    item,
                    place=self._redactor.redact_text(item.place),
                    detail=self._redactor.redact_text(item.detail),
                )
            self._report.examples.append(item)

    def _read(self) -> Iterator[Article | Skipped]:
        try:
            reader = self._choose()
            self._report.format = reader.name
            yield from self._within_limit(reader)
        except Unreadable as exc:
            yield Skipped(self._filename, exc.reason, str(exc))
        except TookTooLong as exc:
            yield Skipped(self._filename, Reason.TOO_SLOW, str(exc))

    def _choose(self) -> KnowledgeReader:
        if len(self._data) > MAX_FILE_BYTES:
            detail = f"it is larger than {MAX_FILE_BYTES >> 20} MiB; split it"
            raise Unreadable(Reason.TOO_LARGE, detail)
        return choose(self._data[:HEAD_BYTES], self._filename)

    def _within_limit(self, reader: KnowledgeReader) -> Iterator[Article | Skipped]:
        """What a reader finds, each within the limit."""
        found = reader.read(self._data, self._filename)
        while True:
            with self._limit():
                item = next(found, None)
            if item is None:
                return
            yield item

    def _prepare(self, article: Article) -> Prepared:
        """Clean, redact and cut an article.

        Raises:
            Unreadable: it is empty, or too large.
            TookTooLong: its redaction did.
        """
        name = self._name_of(article)
        sections = self._cleaned(article)
        if not sections:
            raise Unreadable(Reason.EMPTY, "it holds no text")
        if len(sections) > MAX_SECTIONS:
            detail = f"{len(sections):,} sections are more than the {MAX_SECTIONS:,} of one article"
            raise Unreadable(Reason.TOO_MANY_SECTIONS, detail)
        with self._limit():
            title, sections = self._redact(_first(clean(article.title)), sections)
            sections = tuple(_below(title, each) for each in sections)
            chunks = tuple(chunks_of(title, sections))
        if len(chunks) > MAX_CHUNKS:
            detail = (
                f"{len(chunks):,} pieces are more than the {MAX_CHUNKS:,} of one article; split it"
            )
            raise Unreadable(Reason.TOO_LARGE, detail)
        content: Any = (title, [(each.headings, each.text) for each in chunks])
        return Prepared(
            name=name,
            title=title,
            format=article.format,
            sha256=hashlib.sha256(msgspec.json.encode(content)).hexdigest(),
            sections=len(sections),
            characters=sum(len(each.text) for each in sections),
            chunks=chunks,
        )

    def _name_of(self, article: Article) -> str:
        """What the article is called, which no other of this file is.

        Raises:
            Unreadable: another has this name.
        """
        name = article.name
        if self._name:
            if name == self._filename:
                name = self._name
            elif "://" not in name:  # an address is a name of its own
                name = f"{self._name}/{name}"
        name = title_of(_first(clean(name)))
        if self._redactor:
            name = self._redactor.redact_text(name)
        if not name or name in self._names:
            raise Unreadable(
                Reason.REPEATED_NAME, f"an earlier article of this file is called {name!r}"
            )
        self._names.add(name)
        return name

    def _cleaned(self, article: Article) -> tuple[Section, ...]:
        sections = []
        characters = 0
        within = "" if article.name == self._filename else article.name
        for section in article.sections:
            place = ", ".join(filter(None, (within, section.place)))
            text, *taken = clean(section.text, place)
            for each in taken:
                assert isinstance(each, Skipped)  # noqa: S101 - what ``clean`` yields after the text
                self.skip(each)
            headings = tuple(
                filter(None, (title_of(_first(clean(each))) for each in section.headings))
            )
            if isinstance(text, str) and text:
                characters += len(text)
                sections.append(Section(headings, text, section.place))
            if characters > MAX_ARTICLE_CHARACTERS:
                detail = f"it has more than {MAX_ARTICLE_CHARACTERS:,} characters; split it"
                raise Unreadable(Reason.TOO_LARGE, detail)
        return tuple(sections)

    def _redact(self, title: str, sections: tuple[Section, ...]) -> tuple[str, tuple[Section, ...]]:
        """Without personal data, by the same rules as a conversation; a person has one placeholder in all of it."""
        if self._redactor is None:
            return title, sections
        headings = list(dict.fromkeys(each for section in sections for each in section.headings))
        texts = [title, *headings, *(section.text for section in sections)]
        whole = Conversation("", tuple(Turn(Role.NOTE, text) for text in texts))
        redacted, counts = self._redactor.redact(whole)
        self._redacted += counts
        hidden = [turn.text for turn in redacted.turns]
        shown = dict(zip(headings, hidden[1 : 1 + len(headings)], strict=True))
        return hidden[0], tuple(
            Section(tuple(shown[each] for each in section.headings), text, section.place)
            for section, text in zip(sections, hidden[1 + len(headings) :], strict=True)
        )


def _below(title: str, section: Section) -> Section:
    """A section without the first heading where that is the article's title."""
    if section.headings[:1] == (title,):
        return msgspec.structs.replace(section, headings=section.headings[1:])
    return section


def _first(cleaned: Iterator[str | Skipped]) -> str:
    text = next(cleaned)
    return text if isinstance(text, str) else ""
