"""HTML bodies to text, in one pass over the tags.

Not ``html.parser``: its time grows with the square on "<a <a <a" (40 kB take 16 s, measured), and
what is sent to a help desk is not trusted.
"""

import html
import re

from connectors.importers.normalization import normalized_words

_BLOCKS = normalized_words(
    "address article aside blockquote body br center dd div dl dt fieldset figure footer form h1 "
    "h2 h3 h4 h5 h6 header hr html li main nav ol p pre section table tbody tfoot thead tr ul"
)
_PARAGRAPHS = normalized_words("blockquote h1 h2 h3 h4 h5 h6 ol p pre table ul")
_INLINE = normalized_words(
    "a abbr b big code em font i img ins kbd label mark s small span strike strong sub sup td th "
    "tt u"
)
_HIDDEN = normalized_words("head script style title template")
# What stands for a tag that opens, and for one that closes.
_MARKS = dict.fromkeys(_BLOCKS, ("\n", "\n"))
_MARKS |= dict.fromkeys(_PARAGRAPHS, ("\n\n", "\n\n"))
_MARKS |= {"li": ("\n- ", ""), "td": ("", " "), "th": ("", " ")}
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:]*)((?:\s[^<>]*)?)/?>|<!--|<[!?][^<>]*>")
_HREF = re.compile(r"\shref\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos|nbsp|[a-zA-Z]{2,8});")
_ESCAPED = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos|nbsp);")
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_PAIR = re.compile(r"<(p|div|ul|ol|li|table|blockquote|a)(?:\s[^<>]*+)?>")
_LINK = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE)


def is_html(text: str) -> bool:
    """Whether a text as a whole is HTML.

    It begins and ends with a tag of a document, or has line breaks or pairs of tags that are rare in
    text about HTML, or it was escaped: there is no "<", and each "&" begins an entity.
    """
    if "<" not in text:
        return "&" in text and text.count("&") == len(_ESCAPED.findall(text))
    if _LINE_BREAK.search(text) or any(f"</{name}>" in text for name in _opened(text)):
        return True
    text = text.strip()
    if not (text.startswith("<") and text.endswith(">")):
        return False
    found = _TAG.match(text)
    if found is None:
        return False
    return not found[2] or found[2].lower() in _BLOCKS | _INLINE | _HIDDEN


def _opened(text: str) -> set[str]:
    return {found[1] for found in _PAIR.finditer(text)}


def has_markup(text: str) -> bool:
    """Whether there is a tag or an entity that ``text_of`` would turn into text."""
    if _ENTITY.search(text):
        return True
    known = _BLOCKS | _INLINE | _HIDDEN
    return any((found[2] or "").lower() in known for found in _TAG.finditer(text))


def text_of(markup: str) -> str:
    """The visible text: blocks as lines, list items with a dash, links with their address."""
    out: list[str] = []
    hidden = ""  # the element around that is not shown
    link: tuple[str, int] | None = None  # (address, where its text begins in out)
    at = 0
    while found := _TAG.search(markup, at):
        if not hidden:
            out.append(_inline(markup[at : found.start()]))
        at = found.end()
        if found[0] == "<!--":
            end = markup.find("-->", at)
            at = len(markup) if end < 0 else end + 3
            continue
        name = (found[2] or "").lower()
        closing = bool(found[1])
        if hidden:
            hidden = "" if closing and name == hidden else hidden
        elif name in _HIDDEN:
            hidden = "" if closing or found[0].endswith("/>") else name
        elif name == "a":
            if link:
                out.append(_address(*link, out))
            href = None if closing else _HREF.search(found[3])
            link = (_first_group(href), len(out)) if href else None
        elif name in _MARKS:
            out.append(_MARKS[name][closing])
        elif name and name not in _INLINE and ":" not in name:
            out.append(found[0])  # "<order number>" is text, not a tag
    if not hidden:
        out.append(_inline(markup[at:]))
    lines = [re.sub(r" {2,}", " ", line).strip() for line in "".join(out).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _first_group(found: re.Match[str]) -> str:
    return html.unescape(next(filter(None, found.groups()), ""))


def _inline(text: str) -> str:
    return re.sub(r"[ \t\r\n\f]+", " ", html.unescape(text).replace("\xa0", " "))


def _address(href: str, start: int, out: list[str]) -> str:
    """The address of a link in brackets, unless its text shows it."""
    shown = "".join(out[start:]).strip()
    bare = _LINK.sub("", href).strip("/")
    if not _LINK.match(href) or bare in shown:
        return ""
    return f" ({href.removeprefix('mailto:').removeprefix('tel:')})"
