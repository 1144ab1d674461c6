"""Names of uploaded files, as they are stored and shown."""

import re
import unicodedata

MAX_NAME = 255
# Control, format (invisible, or turning the direction of text: photo<U+202E>gnp.exe), half characters
# and separators of lines: none of them can be seen, and each makes a list, a log or a terminal lie.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def clean_name(filename: str) -> str:
    """A file's name without folders and invisible characters, on one line, of at most ``MAX_NAME``.

    Blanks of any kind become ordinary ones. Cleaning a clean name changes nothing. Where nothing is
    left the name is ``file``.
    """
    last = re.split(r"[/\\]", filename)[-1]
    seen = unicodedata.normalize("NFC", "".join(map(_plain, last)))
    name = seen[-MAX_NAME:].strip()  # the end: it has the extension
    return name if name.strip(".") else "file"


def _plain(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in _UNSEEN:
        return ""
    return " " if kind == "Zs" else character
