"""Tables of the console as files."""

from litestar import Response


def csv_file(data: bytes, name: str) -> Response[bytes]:
    """A CSV that the browser saves under this name."""
    return Response(
        data,
        media_type="text/csv; charset=utf-8",
        headers={
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        },
    )
