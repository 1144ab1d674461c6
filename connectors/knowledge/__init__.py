"""Articles of a help centre, as text to search: the registry of formats."""

import re
from collections.abc import Sequence

from connectors.importers.decode import peek
from connectors.knowledge.archive import ZipArchive
from connectors.knowledge.article import KnowledgeReader, Reason, Unreadable
from connectors.knowledge.docx import Docx
from connectors.knowledge.html_page import HtmlPage
from connectors.knowledge.markdown import Markdown
from connectors.knowledge.pdf import Pdf
from connectors.knowledge.question_table import QuestionTable

HEAD_BYTES = 1 << 16

# the first that takes a file reads it: what is known by its bytes before what is known by its words
_SINGLE: Sequence[KnowledgeReader] = (Pdf(), Docx(), HtmlPage(), QuestionTable(), Markdown())
READERS: dict[str, KnowledgeReader] = {
    each.name: each for each in (_SINGLE[0], _SINGLE[1], ZipArchive(_SINGLE), *_SINGLE[2:])
}


def choose(head: bytes, filename: str) -> KnowledgeReader:
    """The reader of a file, by its first ``HEAD_BYTES``; what its name ends in is only a hint.

    Raises:
        Unreadable: there is none; the message says what the file seems to be.
    """
    for reader in READERS.values():
        if reader.sniff(head, filename):
            return reader
    if not peek(head).strip("\0 \t\r\n\ufeff"):
        raise Unreadable(Reason.EMPTY, "the file is empty")
    for pattern, hint in _OTHERS:
        if pattern.match(head):
            raise Unreadable(Reason.UNKNOWN_FORMAT, hint)
    raise Unreadable(Reason.UNKNOWN_FORMAT, f"it is none of: {', '.join(READERS)}")


_OTHERS = (
    (
        re.compile(rb"\xd0\xcf\x11\xe0"),
        "it is an old Word document, or one with a password: save it as DOCX, without one",
    ),
    (
        re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF|II\*\0|MM\0\*"),
        "it is an image, which holds no text",
    ),
    (re.compile(rb"\{\\rtf"), "it is rich text (RTF): save it as DOCX"),
    (
        re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml.{0,400}?<(?:urlset|sitemapindex)", re.DOTALL),
        "it is a sitemap, which only names pages: put it into a zip archive with them",
    ),
)
