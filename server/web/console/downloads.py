"""Tables of the console as files."""

from litestar import Response

from server.web.headers import console_headers


def csv_file(data: bytes, name: str) -> Response[bytes]:
    """A CSV that the browser saves under this name."""
    return Response(
        data,
        media_type="text/csv; charset=utf-8",
        headers={**console_headers(), "content-disposition": f'attachment; filename="{name}"'},
    )
