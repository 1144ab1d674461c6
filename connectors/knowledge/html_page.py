"""HTML pages: what a visitor reads, by headings; not the menus around it, and nothing that is hidden.

Parsed by lxml, which repairs markup as browsers do. What surrounds a page's text is known by HTML's own
elements (``main``, ``article``, ``nav``, ``header``, ``footer``, ``aside``) and not guessed: a guess
would lose text without a word.
"""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from connectors.importers.decode import peek
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
from connectors.knowledge.text import decode

MAX_MARKUP_CHARACTERS = 8 * MAX_ARTICLE_CHARACTERS
"""Of a page with its markup, which is often the larger part of it."""
_START = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body|title|main|article|h[1-6])\b",
    re.IGNORECASE | re.DOTALL,
)
_TAG = re.compile(r"<[a-z][a-z0-9]*[\s/>]", re.IGNORECASE)
_EXTENSIONS = (".html", ".htm", ".xhtml")

_NOT_READ = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "head",
        "title",
        "meta",
        "link",
        "svg",
        "math",
        "iframe",
        "object",
        "embed",
        "canvas",
        "audio",
        "video",
        "map",
        "form",
        "button",
        "select",
        "textarea",
        "input",
        "dialog",
    ]
)
_AROUND = frozenset(["nav", "header", "footer", "aside"])  # of a page without <main> or <article>
_AROUND_ROLES = frozenset(["navigation", "banner", "contentinfo", "complementary", "search"])
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "header",
        "hgroup",
        "html",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
        "aside",
        "nav",
        "hr",
    ]
)
_PARAGRAPHS = frozenset(
    ["blockquote", "dl", "figure", "ol", "p", "pre", "section", "article", "table", "ul", "div"]
)
_HIDING_STYLE = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?:\.0*)?\s*(?:;|!|$)"
    r"|font-size\s*:\s*0(?:\.0*)?\s*(?:px|pt|em|rem|%)?\s*(?:;|!|$)"
    r"|(?:left|top|text-indent)\s*:\s*-\d{3,})",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE)
_ADDRESS_CHARACTERS = 200


class HtmlPage:
    """One page. Its title is its first ``h1``, else its ``title``."""

    name = "html"
    description = "HTML pages"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether it begins as a page does, or is called one and has a tag."""
        text = peek(head)
        if _START.match(text):
            return True
        return filename.lower().endswith(_EXTENSIONS) and _TAG.search(text) is not None

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the one article; see ``KnowledgeReader.read``."""
        text, skipped = decode(data, most=MAX_MARKUP_CHARACTERS, declared=True)
        yield from skipped
        yield from read_markup(text, filename, self.name)


def read_markup(markup: str, filename: str, form: str) -> Iterator[Article | Skipped]:
    """Yield the article of a page that is text already, and what was left out of it.

    Raises:
        Unreadable: it has too much text, or none that can be parsed.
    """
    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, recover=True
    )
    data = markup.replace("\0", "").encode("utf-8", "replace")
    try:
        root = etree.fromstring(data, parser) if data.strip() else None
    except etree.XMLSyntaxError as exc:
        raise Unreadable(Reason.DAMAGED, f"it cannot be parsed as HTML: {exc.msg}") from exc
    if root is None:
        raise Unreadable(Reason.EMPTY, "the page is empty")
    for error in parser.error_log:
        if error.level >= etree.ErrorLevels.FATAL:
            detail = f"the rest of the page was not read: {error.message.strip()}"
            yield Skipped(f"line {error.line}", Reason.DAMAGED, detail, part=True)
            break
    page = _Page()
    body = _body(root)
    page.walk(body, around=body.tag not in {"main", "article"} and body.get("role") != "main")
    yield from page.skipped
    title = page.title or title_of("".join(root.xpath("string(//title)"))) or stem_of(filename)
    yield Article(filename, title, form, tuple(page.sections))


def _body(root: Any) -> Any:  # noqa: ANN401 - lxml has no types
    """Where the text of a page is: its one ``main`` or ``article``, else all of it."""
    for path in ("//main", "//*[@role='main']", "//article"):
        found = root.xpath(path)
        if len(found) == 1:
            return found[0]
    return next(iter(root.xpath("//body")), root)


class _Page:
    """Walks a tree without recursion and gathers its text."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.skipped: list[Skipped] = []
        self.title = ""
        self._headings = Headings()
        self._out: list[str] = []  # of the section under way
        self._heading: list[str] | None = None  # of the heading under way
        self._place = ""
        self._pending = 0  # line feeds before what comes next
        self._characters = 0
        self._pre = 0
        self._lists: list[
            int | None
        ] = []  # the number of the last item; None of one without numbers
        self._cells = 0

    def walk(self, root: Any, *, around: bool) -> None:  # noqa: ANN401
        """Read an element. ``around``: leave out what surrounds a page's text.

        Raises:
            Unreadable: there is more text than one article may have.
        """
        skipping: Any = None
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if skipping is not None:
                if event == "end" and element is skipping:
                    skipping = None
                    self._text(element.tail)
                continue
            if event == "end":
                self._close(element)
                if element is not root:
                    self._text(element.tail)
                continue
            hidden = self._is_hidden(element)
            if hidden or self._is_left_out(element, around=around):
                skipping = element
                if hidden:
                    self._note_hidden(element)
                continue
            self._open(element)
            self._text(element.text)
        self._end_section()

    def _is_left_out(self, element: Any, *, around: bool) -> bool:  # noqa: ANN401
        tag = element.tag
        if tag in _NOT_READ or (tag == "nav" or element.get("role") in _AROUND_ROLES):
            return True
        return around and tag in _AROUND

    def _is_hidden(self, element: Any) -> bool:  # noqa: ANN401
        if element.tag in _NOT_READ:
            return False
        hidden = element.get("hidden")
        if hidden is not None and hidden.lower() != "until-found":
            return True
        if element.get("aria-hidden", "").lower() == "true":
            return True
        return _HIDING_STYLE.search(element.get("style", "")) is not None

    def _note_hidden(self, element: Any) -> None:  # noqa: ANN401
        # an icon or an anchor beside a heading is hidden from screen readers and holds no words
        text = "".join(element.itertext())
        if any(character.isalnum() for character in text):
            detail = f"a hidden <{element.tag}> with {len(text.split()):,} words"
            place = f"line {element.sourceline}" if element.sourceline else ""
            self.skipped.append(Skipped(place, Reason.HIDDEN, detail, part=True))

    def _open(self, element: Any) -> None:  # noqa: ANN401
        tag = element.tag
        if tag in _HEADINGS:
            self._end_section()
            self._heading = []
            return
        if tag in _BLOCKS:
            self._break(2 if tag in _PARAGRAPHS and not self._lists else 1)
        if tag == "pre":
            self._pre += 1
        elif tag in {"ul", "ol"}:
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self._put("  " * max(0, len(self._lists) - 1) + self._mark())
        elif tag == "tr":
            self._cells = 0
        elif tag in {"td", "th"}:
            if self._cells:
                self._put(" | ")
            self._cells += 1
        elif tag == "br":
            self._break(1)
        if not self._place and element.sourceline:
            self._place = f"line {element.sourceline}"

    def _mark(self) -> str:
        if not self._lists or self._lists[-1] is None:
            return "- "
        self._lists[-1] += 1
        return f"{self._lists[-1]}. "

    def _close(self, element: Any) -> None:  # noqa: ANN401
        tag = element.tag
        if tag in _HEADINGS and self._heading is not None:
            text = title_of("".join(self._heading))
            self._heading = None
            if text:
                if tag == "h1" and not self.title:
                    self.title = text
                self._headings.enter(_HEADINGS[tag], text)
            return
        if tag == "pre":
            self._pre -= 1
        elif tag in {"ul", "ol"} and self._lists:
            self._lists.pop()
        elif tag == "a":
            self._link(element.get("href", ""))
        if tag in _BLOCKS:
            self._break(2 if tag in _PARAGRAPHS and not self._lists else 1)

    def _link(self, href: str) -> None:
        """The address behind what was linked, unless it was shown."""
        href = href.strip()
        if not _ADDRESS.match(href) or len(href) > _ADDRESS_CHARACTERS or self._heading is not None:
            return
        bare = href.partition(":")[2].strip("/")
        if bare not in "".join(self._out[-4:]):
            self._put(f" ({href.removeprefix('mailto:').removeprefix('tel:')})")

    def _text(self, text: str | None) -> None:
        if text and not self._pre:
            text = re.sub(r"\s+", " ", text)
            text = text.lstrip() if self._pending or not self._out else text
        if text:
            self._put(text)

    def _put(self, text: str) -> None:
        if self._heading is not None:
            self._heading.append(text)
            return
        if self._pending:
            if self._out:
                self._out.append("\n" * self._pending)
            self._pending = 0
        self._characters += len(text)
        if self._characters > MAX_ARTICLE_CHARACTERS:
            raise Unreadable(Reason.TOO_LARGE, too_large(self._characters))
        self._out.append(text)

    def _break(self, lines: int) -> None:
        if self._heading is not None:
            self._heading.append(" ")
        else:
            self._pending = max(self._pending, lines)

    def _end_section(self) -> None:
        text = re.sub(r"[ \t]*\n", "\n", "".join(self._out))
        if text.strip():
            self.sections.append(Section(self._headings.path, text.strip("\n"), self._place))
        self._out = []
        self._pending = 0
        self._place = ""
