"""The body of an upload, read as a stream: the file is never whole in memory."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from litestar import Request
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from server.errors import Invalid, TooLarge
from server.files.names import clean_name

MAX_FIELD_BYTES = 16 << 10
MAX_FORM_BYTES = 64 << 10  # all that is not the file
MAX_PARTS = 64


class UploadedFile:
    """One file of a request, read as it arrives.

    Read ``chunks`` to its end first; then ``filename`` (cleaned) and ``fields`` are what the form
    says.

    Args:
        request: its body must not have been read.
        filename: the name of a file that comes without one.
        max_bytes: of the file; a form's other parts may have ``MAX_FORM_BYTES`` more.
        part: the name of the form's part that is the file.
        raw: whether the body may be the file itself, without a form.
    """

    def __init__(
        self,
        request: Request[Any, Any, Any],
        *,
        filename: str,
        max_bytes: int,
        part: str = "file",
        raw: bool = True,
    ) -> None:
        self.filename = clean_name(filename)
        self.fields: dict[str, list[str]] = {}
        self._request = request
        self._max_bytes = max_bytes
        self._part = part
        self._raw = raw

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The file's bytes.

        Raises:
            TooLarge: the request is larger than is accepted, or says so.
            Invalid: a form that cannot be read, or with no file, or several; an empty file.
        """
        length = self._request.headers.get("content-length", "")
        if length.isdecimal():
            self._check_size(int(length))
        kind, options = parse_options_header(self._request.headers.get("content-type", ""))
        form = kind == "multipart/form-data"
        if not form and not self._raw:
            raise Invalid(
                f"Send a form (multipart/form-data) with the file as the part '{self._part}'.",
                param=self._part,
            )
        file = self._file_of_form(options.get("boundary", "")) if form else self._request.stream()
        empty = True
        try:
            async for chunk in file:
                empty = empty and not chunk
                yield chunk
        except MultipartError as exc:
            why = exc.args[0] if exc.args else "it is no form"
            if any(isinstance(each, UnicodeError) for each in exc.args):
                why = "the name of a part or of its file is not UTF-8"
            raise Invalid(f"The form could not be read: {why}.", param=self._part) from exc
        if empty:
            raise Invalid("The file is empty.", param=self._part)

    async def _file_of_form(self, boundary: str) -> AsyncIterator[bytes]:
        files = received = 0
        part: MultipartSegment | None = None
        field = bytearray()
        with PushMultipartParser(boundary, max_segment_count=MAX_PARTS) as parser:
            async for chunk in self._request.stream():
                received += len(chunk)
                self._check_size(received)
                for event in parser.parse(chunk) if chunk else ():
                    if isinstance(event, MultipartSegment):
                        part, field = event, bytearray()
                        if event.filename is not None:
                            files += 1
                            self._begin_file(event, files)
                    elif part is None:
                        continue
                    elif event is None:
                        if part.filename is None:
                            self.fields.setdefault(part.name, []).append(
                                field.decode(errors="replace")
                            )
                    elif part.filename is not None:
                        yield bytes(event)
                    else:
                        field += event
                        _check_field(part.name, len(field))
        if not files:
            raise Invalid(
                f"The form holds no file: send one as the part '{self._part}'.", param=self._part
            )

    def _begin_file(self, part: MultipartSegment, count: int) -> None:
        if part.name != self._part:
            raise Invalid(
                f"Unknown parameter: '{part.name}': the file is the part '{self._part}'.",
                param=part.name,
            )
        if count > 1:
            raise Invalid("The form holds several files: send one at a time.", param=self._part)
        self.filename = clean_name(part.filename) if part.filename else self.filename

    def _check_size(self, size: int) -> None:
        # the form itself comes on top of the file
        if size > self._max_bytes + MAX_FORM_BYTES:
            raise TooLarge(
                f"The upload is larger than {self._max_bytes:,} bytes.", limit_bytes=self._max_bytes
            )


def _check_field(name: str, size: int) -> None:
    if size > MAX_FIELD_BYTES:
        raise Invalid(f"The form's field {name!r} is too long.", param=name)
