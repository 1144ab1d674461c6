"""The pages' own scripts, styles and images: ``/static/{hash}/{name}``, kept by browsers for good.

The hash is of all files together, so one script may import another by its name alone. It changes
with any of them, and with it every address that ``url`` gives.
"""

import gzip
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get
from litestar.params import FromPath

from server.errors import NotFound

_HERE = Path(__file__).parent
FOLDERS = (_HERE / "console" / "static", _HERE / "widget" / "static", _HERE / "vendor")
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_INDENTATION = re.compile(rb"^[ \t]+", re.MULTILINE)
_COMMENT = re.compile(rb"^(?://.*|/\*\*.*\*/)$", re.MULTILINE)
_FOR_GOOD = "public, max-age=31536000, immutable"


class StaticFile(NamedTuple):
    """A file as it is sent: its media type, its bytes, and the same compressed with gzip."""

    media_type: str
    content: bytes
    compressed: bytes


class StaticFiles:
    """What some folders hold, read once. Names are unique over all folders."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._files: dict[str, StaticFile] = {}
        digest = hashlib.sha256()
        for path in sorted(path for folder in folders for path in folder.glob("*")):
            if path.suffix not in _TYPES:
                continue  # licences, and the list of them
            if path.name in self._files:
                raise ValueError(f"two static files are called {path.name}; rename one: {path}")
            content = _sent(path)
            digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
            self._files[path.name] = StaticFile(
                _TYPES[path.suffix], content, gzip.compress(content, 9, mtime=0)
            )
        self.hash = digest.hexdigest()[:16]

    def __getitem__(self, name: str) -> StaticFile:
        """The file of this name; raises ``KeyError`` where there is none."""
        return self._files[name]

    def url(self, name: str) -> str:
        """The address of a file; raises ``KeyError`` where there is none."""
        if name not in self._files:
            raise KeyError(f"no static file is called {name!r}; there are: {sorted(self._files)}")
        return f"/static/{self.hash}/{name}"


def _sent(path: Path) -> bytes:
    """What browsers get of a file: of our scripts all but indentation and lines of comment.

    Lines stay where they are, so that an error names the line of the file.
    """
    content = path.read_bytes()
    if path.suffix != ".js" or path.name.endswith(".min.js"):
        return content
    return _COMMENT.sub(b"", _INDENTATION.sub(b"", content))


@cache
def static_files() -> StaticFiles:
    """The files of this installation."""
    return StaticFiles(FOLDERS)


class StaticController(Controller):
    """Open to all, since nothing here is a secret."""

    path = "/static"
    include_in_schema = False

    @get("/{digest:str}/{name:str}", sync_to_thread=False)
    def read(
        self, request: Request[Any, Any, Any], digest: FromPath[str], name: FromPath[str]
    ) -> Response[bytes]:
        """One file.

        A page of another version asks by another hash, in the minutes of an upgrade: it gets today's
        file, which is not kept.
        """
        files = static_files()
        try:
            file = files[name]
        except KeyError:
            raise NotFound(f"There is no file '{name}' here.") from None
        current = digest == files.hash
        headers = {
            "cache-control": _FOR_GOOD if current else "no-cache",
            "cross-origin-resource-policy": "same-origin",
            "etag": f'"{files.hash}"',
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        content = file.content
        if takes_gzip(request.headers.get("accept-encoding", "")):
            headers["content-encoding"] = "gzip"
            content = file.compressed
        return Response(content, media_type=file.media_type, headers=headers)


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and does not refuse it by a quality of 0."""
    for part in accepted.lower().split(","):
        name, _, quality = part.replace(" ", "").partition(";")
        if name in ("gzip", "*"):
            return quality.removeprefix("q=").strip("0.") != "" or quality == ""
    return False
