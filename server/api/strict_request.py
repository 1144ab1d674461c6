"""Requests whose JSON is read as strictly as it is described."""

from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException

from server.api.body import BodyReader

_readers: dict[Any, BodyReader[Any]] = {}


class StrictRequest(Request[Any, Any, Any]):
    """Reads the body of a handler that declares ``data``.

    Litestar would turn ``"1"`` into a number and 0 into false on the way to the handler, and name
    the fault less well.
    """

    def stream(self) -> AsyncGenerator[bytes]:
        """The body as it comes; a compressed one is refused, not taken for broken JSON or kept."""
        encoding = self.headers.get("content-encoding", "").strip()
        if encoding.lower() not in ("", "identity"):
            raise HTTPException(
                detail=f"The body is encoded as '{encoding[:40]}', which is not read here: "
                "send it without Content-Encoding.",
                status_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        return super().stream()

    async def json(self) -> Any:  # noqa: ANN401 - the handler's own type
        """The body as what the handler takes; raises as ``BodyReader.read``."""
        kind = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        reader = _readers.get(kind)
        if reader is None:
            reader = _readers[kind] = BodyReader(kind)
        return reader.read(await self.body())
