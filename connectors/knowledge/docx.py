"""Word documents (DOCX), through mammoth, which knows styles, lists, tables and tracked changes.

It makes HTML of them, which the reader of pages then reads. Before that the archive is read with bounds,
and what Word hides is taken out.
"""

import io
import zipfile
from collections.abc import Iterator

import msgspec
from lxml import etree

from connectors.importers.base import MIB
from connectors.knowledge.article import Article, Reason, Skipped, Unreadable
from connectors.knowledge.html_page import read_markup
from connectors.knowledge.unpacking import Archive

_DOCUMENT = "word/document.xml"
_MAX_XML_BYTES = 64 * MIB
"""Of all parts that are read, unpacked: 2 MiB of text is some 20 MiB of Word's XML."""
_MAX_DEPTH = 200  # of elements; mammoth reads them by recursion. Word's own are some 20 deep
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_OFF = frozenset({"0", "false", "off", "none"})


class Docx:
    """A document of Word, LibreOffice or Google Docs; old ``.doc`` files are not."""

    name = "docx"
    description = "Word documents (DOCX)"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether it is a zip archive that is called .docx, or shows Word's folder at its beginning."""
        if not head.startswith(b"PK\x03\x04"):
            return False
        return filename.lower().endswith((".docx", ".docm")) or b"word/" in head

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the one article; see ``KnowledgeReader.read``."""
        archive = Archive(data, max_bytes=_MAX_XML_BYTES)
        if _DOCUMENT not in archive.names:
            raise Unreadable(Reason.DAMAGED, "the archive holds no Word document")
        hidden = 0
        clean = io.BytesIO()
        with zipfile.ZipFile(clean, "w") as out:
            for name in archive.names:
                if not name.endswith((".xml", ".rels")):  # pictures, fonts, macros
                    continue
                part = archive.read(name)
                if name.startswith("word/"):
                    part, count = _without_hidden(part, name)
                    hidden += count
                out.writestr(name, part)
        if hidden:
            detail = "pieces of text that Word does not show"
            yield Skipped("", Reason.HIDDEN, detail, part=True, count=hidden)
        clean.seek(0)
        import mammoth  # noqa: PLC0415 - what reads no document does not load it

        try:
            result = mammoth.convert_to_html(
                clean,
                convert_image=mammoth.images.img_element(lambda _: {}),
                include_default_style_map=True,
            )
        except (
            KeyError,
            ValueError,
            AttributeError,
            IndexError,
            TypeError,
            OSError,
            RecursionError,
        ) as exc:
            raise Unreadable(
                Reason.DAMAGED,
                f"the document is not built as Word builds them ({type(exc).__name__})",
            ) from exc
        for found in read_markup(f"<body>{result.value}</body>", filename, self.name):
            yield _without_lines(found)


def _without_hidden(part: bytes, name: str) -> tuple[bytes, int]:
    """A part of the document without runs that are hidden; and how many of them had text.

    Raises:
        Unreadable: it is no XML, or nested deeper than documents are.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
    )
    try:
        root = etree.fromstring(part, parser)
    except etree.XMLSyntaxError as exc:
        raise Unreadable(Reason.DAMAGED, f"{name} is no XML: {exc.msg}") from exc
    if root.getroottree().docinfo.doctype:
        raise Unreadable(
            Reason.DAMAGED, f"{name} declares a document type, which no Word document does"
        )
    depth = 0
    hidden = []
    for event, element in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > _MAX_DEPTH:
            raise Unreadable(Reason.DAMAGED, f"{name} is nested more than {_MAX_DEPTH} deep")
        if event == "end" and element.tag in {f"{_W}vanish", f"{_STRICT}vanish"}:
            space = element.tag.removesuffix("vanish")
            if element.get(f"{space}val", "true") not in _OFF:
                hidden.append((element, space))
    count = 0
    for mark, space in hidden:
        properties = mark.getparent()
        run = None if properties is None else properties.getparent()
        if run is not None and run.tag == f"{space}r" and run.getparent() is not None:
            count += any(text.strip() for text in run.itertext())
            run.getparent().remove(run)
    return etree.tostring(root, encoding="utf-8", xml_declaration=True), count


def _without_lines(found: Article | Skipped) -> Article | Skipped:
    """Lines are those of the HTML that was made on the way."""
    if isinstance(found, Skipped):
        return msgspec.structs.replace(found, place="")
    sections = tuple(msgspec.structs.replace(each, place="") for each in found.sections)
    return msgspec.structs.replace(found, sections=sections)
