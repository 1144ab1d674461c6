"""Markdown, and plain text, which is Markdown without headings."""

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from connectors.importers.decode import peek
from connectors.importers.html_text import text_of
from connectors.knowledge.article import (
    MAX_ARTICLE_CHARACTERS,
    Article,
    Headings,
    Section,
    Skipped,
    stem_of,
    title_of,
)
from connectors.knowledge.text import decode

_OTHERS = (
    ".json",
    ".jsonl",
    ".xml",
    ".css",
    ".js",
    ".yaml",
    ".yml",
    ".ini",
    ".log",
    ".eml",
    ".rtf",
)
# YAML between two lines of three dashes at the beginning, as site generators write it
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_MATTER_CHARACTERS = 20_000
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE | re.IGNORECASE)
_FEW = 4  # control characters that a short text may have by accident
_MAX_NESTING = 20  # of lists and quotes; as deep as people write


class Markdown:
    """CommonMark with tables. Text stays as it was written, without raw HTML and comments."""

    name = "markdown"
    description = "Markdown or plain text"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether it is text, and its name does not say that it is of another kind."""
        plain = filename.lower().removesuffix(".gz")
        if plain.endswith(_OTHERS):
            return False
        text = peek(head)
        if not text.strip() or "\0" in text:
            return False
        controls = sum(c < " " and c not in "\t\n\r\f\v" for c in text)
        return controls <= max(_FEW, len(text) // 50)

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the one article; see ``KnowledgeReader.read``."""
        text, skipped = decode(data, most=MAX_ARTICLE_CHARACTERS)
        yield from skipped
        title, start = _front_matter(text)
        lines = text.split("\n")
        tokens = (
            MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING})
            .enable("table")
            .parse("\n" * start + "\n".join(lines[start:]))
        )
        first = next((t for t in _headings(tokens) if t[0] == 1), None)
        title = title or (title_of(first[1]) if first else "") or stem_of(filename)
        yield Article(filename, title, self.name, tuple(_sections(tokens, lines)))


def _front_matter(text: str) -> tuple[str, int]:
    """The title that the front matter gives, and the number of lines that it takes."""
    found = _FRONT_MATTER.match(text[:_FRONT_MATTER_CHARACTERS])
    if found is None:
        return "", 0
    title = _TITLE.search(found[1])
    return title_of(title[1].strip().strip("\"'")) if title else "", found[0].rstrip("\n").count(
        "\n"
    ) + 1


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[int, str]]:
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield int(token.tag[1:]), _plain(tokens[at + 1])


def _sections(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[Section]:
    headings = Headings()
    blocks: list[str] = []
    line = 1
    begun = False
    for at, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        if token.type == "heading_open":
            if blocks:
                yield Section(headings.path, "\n\n".join(blocks), f"line {line}")
            headings.enter(int(token.tag[1:]), _plain(tokens[at + 1]))
            blocks, begun = [], False
            continue
        block = _block(tokens, at, lines)
        if block:
            if not begun:
                line, begun = token.map[0] + 1, True
            blocks.append(block)
    if blocks:
        yield Section(headings.path, "\n\n".join(blocks), f"line {line}")


def _block(tokens: Sequence[Token], at: int, lines: Sequence[str]) -> str:
    """A block of the document as it was written, but raw HTML as the text that it shows."""
    token = tokens[at]
    if token.map is None or token.type == "hr":
        return ""
    text = "\n".join(lines[token.map[0] : token.map[1]]).strip("\n")
    if token.type == "html_block":
        return text_of(text)
    if token.nesting != 1 or "<" not in text:
        return text
    for each in _within(tokens, at):
        if each.type == "html_block":
            text = text.replace(each.content.rstrip("\n"), text_of(each.content), 1)
        for child in each.children or ():
            if child.type == "html_inline":
                text = text.replace(child.content, "", 1)
    return text.strip("\n")


def _within(tokens: Sequence[Token], at: int) -> Iterator[Token]:
    """The tokens of a block that opens at ``at``."""
    for token in tokens[at + 1 :]:
        if token.level == 0:
            return
        yield token


def _plain(inline: Token) -> str:
    """A heading's text without its marks."""
    return "".join(
        " " if child.type in {"softbreak", "hardbreak"} else child.content
        for child in inline.children or ()
        if child.type in {"text", "code_inline", "softbreak", "hardbreak", "text_special"}
    )
