"""``/v1/responses``."""

import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ASGIApp

from server.api.guards import needs, provide_principal
from server.api.openai.paging import MAX_LIMIT, Page, page_of
from server.api.openai.responses.answer import ResponseAnswer
from server.api.openai.responses.input import (
    InputConversation,
    images_in,
    items_of,
    referenced_items,
    with_labels,
)
from server.api.openai.responses.request import opening, parse, to_chat
from server.api.openai.responses.schemas import (
    DeletedResponse,
    ResponseBody,
    ResponseEvent,
    ResponseObject,
)
from server.auth.keys import Principal
from server.chat.service import ChatService
from server.db.models import new_id
from server.db.session import Database
from server.errors import Invalid
from server.responses import service
from server.responses.items import CallItem, MessageItem, ResultItem, response_of


class ResponseController(Controller):
    """Responses, for tenants' keys with the scope ``chat``."""

    path = "/v1/responses"
    tags = ("responses",)
    guards = (needs("chat"),)

    @post(
        status_code=200,
        opt={
            "body": ResponseBody,
            "responses": {"application/json": ResponseObject, "text/event-stream": ResponseEvent},
        },
    )
    async def create_response(
        self,
        request: Request[Any, Any, Any],
        chat: NamedDependency[ChatService],
        database: NamedDependency[Database],
    ) -> ASGIApp:
        """Answer, in one piece or streamed; by default the answer is kept for 30 days."""
        principal = provide_principal(request)
        tenant_id = principal.require_tenant()
        body = parse(await request.body())
        images = await chat.images.label(images_in(body), principal)
        body = with_labels(body, images)
        named = referenced_items(body)
        before, found = service.History([], []), {}
        if named or body.previous_response_id is not None:
            behind = {f"{service.PREFIX}{response_of(item)}" for item in named}
            await chat.write_behind.settled(*behind, body.previous_response_id or "")
            async with database.reading() as session:
                before = await service.history(session, tenant_id, body.previous_response_id)
                found = await service.find_items(session, tenant_id, named)
        name = new_id()
        items = items_of(body, name, found)
        asked = to_chat(body, InputConversation(before.items, items), images=images)
        resolved = await chat.models.resolve(
            tenant_id,
            body.model,
            key=body.safety_identifier
            or body.user
            or body.prompt_cache_key
            or (before.ids[0] if before.ids else name),  # all that goes on from one first response
        )
        return ResponseAnswer(
            chat,
            asked,
            resolved,
            principal=principal,
            opening=opening(
                body,
                f"{service.PREFIX}{name}",
                created_at=int(time.time()),
                model=resolved.model,
            ),
            items=items,
            before=before.ids,
            stream=bool(body.stream),
        )

    @get("/{response_id:str}")
    async def retrieve_response(
        self,
        response_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
        stream: FromQuery[bool] = False,
    ) -> ResponseObject:
        """A response that was kept."""
        if stream:
            raise Invalid(
                "Only responses that are made in the background can be streamed again.",
                param="stream",
                code="unsupported_value",
            )
        await chat.write_behind.settled(response_id)
        async with database.reading() as session:
            row = await service.get(session, principal.require_tenant(), response_id)
        return msgspec.convert(row.answer, ResponseObject)

    @delete("/{response_id:str}", status_code=200)
    async def delete_response(
        self,
        response_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
    ) -> DeletedResponse:
        """Forget a response, and with it what went on from it."""
        await chat.write_behind.settled(response_id)
        async with database.transaction() as session:
            await service.delete_response(session, principal.require_tenant(), response_id)
        return DeletedResponse(id=response_id)

    @post("/{response_id:str}/cancel", status_code=200)
    async def cancel_response(
        self,
        response_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
    ) -> ResponseObject:
        """Only responses that are made in the background could be cancelled: always refused."""
        await chat.write_behind.settled(response_id)
        async with database.reading() as session:
            await service.get(session, principal.require_tenant(), response_id)
        raise Invalid("Cannot cancel a synchronous response.")

    @get("/{response_id:str}/input_items")
    async def list_input_items(
        self,
        response_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = 20,
        order: FromQuery[Literal["asc", "desc"]] = "desc",
        after: FromQuery[str | None] = None,
    ) -> Page[MessageItem | CallItem | ResultItem]:
        """Everything that a response was made from, that of the responses before it included."""
        await chat.write_behind.settled(response_id)
        async with database.reading() as session:
            items = await service.input_items(session, principal.require_tenant(), response_id)
        if order == "desc":
            items.reverse()
        ids = [item.id for item in items]
        if after is not None:
            if after not in ids:
                raise Invalid(f"No input item with id '{after}'.", param="after")
            start = ids.index(after) + 1
            items, ids = items[start:], ids[start:]
        return page_of(items[: limit + 1], ids, limit=limit)
