"""Each request's place in the audit log: its id and its client's address; guards add who that is."""

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from server.api.problems import request_id
from server.audit.actors import ANONYMOUS, acting


class ActingMiddleware(ASGIMiddleware):
    """Around every handler and its guards: nobody acts until a guard has seen who it is."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Answer the request."""
        client = scope.get("client")
        address = client[0] if client else ""
        with acting(ANONYMOUS, request_id=request_id(scope), address=address):
            await next_app(scope, receive, send)
