"""Zip archives of pages: HTML, Markdown and the other formats, each entry an article.

Where a ``sitemap.xml`` lies beside the pages, or above them, a page's name is its address there.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import msgspec
from lxml import etree

from connectors.errors import TookTooLong
from connectors.importers.base import MIB
from connectors.knowledge.article import (
    MAX_FILE_BYTES,
    Article,
    KnowledgeReader,
    Reason,
    Skipped,
    Unreadable,
)
from connectors.knowledge.unpacking import Archive

MAX_UNPACKED_BYTES = 256 * MIB
MAX_ADDRESSES = 50_000
"""Of a sitemap, as the sitemaps protocol has it (sitemaps.org)."""
_SITEMAP = "sitemap.xml"
_PAGES = re.compile(r"\.(?:x?html?|md|markdown)$", re.IGNORECASE)
_OFFICE = {"xl/": "an Excel workbook: save it as CSV", "ppt/": "a presentation: save it as PDF"}
# what comes along in an archive and is no article
_PASSED_OVER = re.compile(
    r"(?:^|/)(?:__MACOSX/|\.[^./]|thumbs\.db$)|\.(?:css|js|mjs|map|png|jpe?g|gif|svg|webp|avif|ico|woff2?|ttf|"
    r"otf|eot|mp4|webm|mp3|json|xml|ya?ml|toml|lock|gz)$",
    re.IGNORECASE,
)


class ZipArchive:
    """An archive with articles in it. ``readers``: those of what may be in it; archives may not."""

    name = "zip"
    description = (
        "zip archives of such files, with a sitemap.xml beside them that names their addresses"
    )

    def __init__(self, readers: Sequence[KnowledgeReader]) -> None:
        self._readers = readers

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether it is a zip archive."""
        return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))

    def read(self, data: bytes, filename: str) -> Iterator[Article | Skipped]:
        """Yield the archive's articles, in its order; see ``KnowledgeReader.read``."""
        archive = Archive(data, max_bytes=MAX_UNPACKED_BYTES)
        for folder, what in _OFFICE.items():
            if any(name.startswith(folder) for name in archive.names):
                raise Unreadable(Reason.UNKNOWN_FORMAT, f"it is {what}")
        addresses, skipped = _addresses(archive)
        yield from skipped
        files = {}
        for name in archive.names:
            if name.rpartition("/")[2].lower() != _SITEMAP and not _PASSED_OVER.search(name):
                files[name] = addresses.get(_key(name), name)
        for address in sorted(set(addresses.values()) - set(files.values())):
            yield Skipped(
                _SITEMAP,
                Reason.NO_FILE,
                f"no file of the archive is the page {address[:200]}",
                part=True,
            )
        for name, address in files.items():
            yield from self._entry(archive, name, address)

    def _entry(self, archive: Archive, name: str, address: str) -> Iterator[Article | Skipped]:
        try:
            data = archive.read(name, max_bytes=MAX_FILE_BYTES)
            reader = next(
                (each for each in self._readers if each.sniff(data[: 1 << 16], name)), None
            )
            if reader is None:
                empty = not data.strip()
                reason = Reason.EMPTY if empty else Reason.UNKNOWN_FORMAT
                yield Skipped(name, reason, "the file is empty" if empty else "no format fits")
                return
            for found in reader.read(data, name):
                if isinstance(found, Skipped):
                    place = ", ".join(filter(None, (name, found.place)))
                    yield msgspec.structs.replace(found, place=place)
                else:
                    yield msgspec.structs.replace(found, name=address)
        except Unreadable as exc:
            if exc.reason is Reason.BAD_COMPRESSION:  # the archive was made to do harm
                raise
            yield Skipped(name, exc.reason, str(exc))
        except TookTooLong as exc:
            yield Skipped(name, Reason.TOO_SLOW, str(exc))


def _addresses(archive: Archive) -> tuple[dict[str, str], list[Skipped]]:
    """By ``_key`` of a file: the address that a sitemap gives its page."""
    pages = {_key(name) for name in archive.names if _PAGES.search(name)}
    found: dict[str, str] = {}
    skipped = []
    for name in archive.names:
        if name.rpartition("/")[2].lower() != _SITEMAP:
            continue
        folder = name.rpartition("/")[0].lower()
        try:
            addresses = _read_sitemap(archive.read(name, max_bytes=MAX_FILE_BYTES))
        except Unreadable as exc:
            skipped.append(Skipped(name, exc.reason, str(exc), part=True))
            continue
        for address in addresses:
            path = unquote(urlsplit(address).path)
            fitting = [key for key in _keys_of(folder, path) if key in pages]
            found.setdefault(fitting[0] if fitting else f"?{address}", address)
    return found, skipped


def _read_sitemap(data: bytes) -> list[str]:
    """The addresses of a sitemap.

    Raises:
        Unreadable: it is no sitemap, or too long.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as exc:
        raise Unreadable(Reason.DAMAGED, f"the sitemap is no XML: {exc.msg}") from exc
    found = [(each.text or "").strip() for each in root.iter("{*}loc")]
    if len(found) > MAX_ADDRESSES:
        detail = f"the sitemap has more than {MAX_ADDRESSES:,} addresses"
        raise Unreadable(Reason.TOO_MANY_ENTRIES, detail)
    return [each for each in found if urlsplit(each).scheme in {"http", "https"}]


def _keys_of(folder: str, path: str) -> Iterator[str]:
    """How a page at this path may be called in an archive, whose pages begin at the sitemap's folder or above."""
    parts = [part for part in PurePosixPath("/" + path.strip("/")).parts if part != "/"]
    for start in range(
        min(len(parts), 4) + 1
    ):  # a site's first folders are often not in the archive
        rest = "/".join(parts[start:])
        for name in (rest, f"{rest}/index" if rest else "index"):
            yield _key(f"{folder}/{name}" if folder else name)
            if folder:
                yield _key(name)
        if not parts[start + 1 :]:
            break


def _key(name: str) -> str:
    return re.sub(r"\.(?:x?html?|md|markdown)$", "", name.strip("/").lower())
