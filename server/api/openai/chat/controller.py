"""``/v1/chat/completions``."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncSession

from server.api.body import BodyReader
from server.api.guards import needs, provide_principal
from server.api.metadata import METADATA_PARAMETER, metadata_filter
from server.api.openai.chat.answer import ChatAnswer, Keep
from server.api.openai.chat.request import images_in, parse, to_chat, with_labels
from server.api.openai.chat.schemas import (
    ChatCompletion,
    ChatCompletionChunk,
    CompletionBody,
)
from server.api.openai.chat.stored import (
    DeletedCompletion,
    StoredAnswer,
    StoredMessage,
    UpdateBody,
    stored_answer,
    stored_messages,
)
from server.api.openai.paging import MAX_LIMIT, Page, page_of
from server.auth.keys import Principal
from server.chat import stored
from server.chat.service import ChatService
from server.db.session import Database
from server.db.write_behind import WriteBehind
from server.errors import NotFound

_Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]
_update = BodyReader(UpdateBody)


class ChatController(Controller):
    """Chat completions, for tenants' keys with the scope ``chat``."""

    path = "/v1/chat/completions"
    tags = ("chat",)
    guards = (needs("chat"),)

    @post(
        status_code=200,
        opt={
            "body": CompletionBody,
            "responses": {
                "application/json": ChatCompletion,
                "text/event-stream": ChatCompletionChunk,
            },
        },
    )
    async def create_chat_completion(
        self,
        request: Request[Any, Any, Any],
        chat: NamedDependency[ChatService],
    ) -> ASGIApp:
        """Continue a conversation, in one piece or streamed."""
        principal = provide_principal(request)  # a second dependency would cost a task group
        tenant_id = principal.require_tenant()
        body = parse(await request.body())
        images = await chat.images.label(images_in(body), principal)
        body = with_labels(body, images)
        asked = to_chat(body, images=images)
        resolved = await chat.models.resolve(
            tenant_id,
            body.model,
            key=body.safety_identifier or body.user or body.prompt_cache_key,
        )
        options = body.stream_options
        return ChatAnswer(
            chat,
            asked,
            resolved,
            principal=principal,
            stream=bool(body.stream),
            include_usage=bool(options and options.include_usage),
            also=None if body.service_tier is None else {"service_tier": "default"},
            keep=_keeping(body, chat.write_behind, tenant_id) if body.store else None,
        )

    @get(opt={"parameters": [METADATA_PARAMETER]})
    async def list_chat_completions(
        self,
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        model: FromQuery[str | None] = None,
        limit: _Limit = 20,
        order: FromQuery[Literal["asc", "desc"]] = "asc",
        after: FromQuery[str | None] = None,
    ) -> Page[StoredAnswer]:
        """Completions that were stored; ``metadata[key]=value`` finds those marked so."""
        async with database.reading() as session:
            rows = await stored.find(
                session,
                principal.require_tenant(),
                limit=limit + 1,
                after=after,
                newest_first=order == "desc",
                model=model,
                metadata=metadata_filter(request),
            )
        answers = [stored_answer(row) for row in rows]
        return page_of(answers, [answer.id for answer in answers], limit=limit)

    @get("/{completion_id:str}")
    async def retrieve_chat_completion(
        self,
        completion_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
    ) -> StoredAnswer:
        """One stored completion."""
        await chat.write_behind.settled(completion_id)
        async with database.reading() as session:
            return stored_answer(
                await stored.get(session, principal.require_tenant(), completion_id)
            )

    @get("/{completion_id:str}/messages")
    async def list_chat_completion_messages(
        self,
        completion_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
        limit: _Limit = 20,
        order: FromQuery[Literal["asc", "desc"]] = "asc",
        after: FromQuery[str | None] = None,
    ) -> Page[StoredMessage]:
        """The messages that a stored completion answers."""
        await chat.write_behind.settled(completion_id)
        async with database.reading() as session:
            row = await stored.get(session, principal.require_tenant(), completion_id)
        messages = stored_messages(row)
        if order == "desc":
            messages.reverse()
        ids = [message.id for message in messages]
        if after is not None:
            if after not in ids:
                raise NotFound(f"There is no message '{after}'.", param="after")
            place = ids.index(after) + 1
            messages, ids = messages[place:], ids[place:]
        return page_of(messages[: limit + 1], ids[: limit + 1], limit=limit)

    @post("/{completion_id:str}", status_code=200, opt={"body": UpdateBody})
    async def update_chat_completion(
        self,
        request: Request[Any, Any, Any],
        completion_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
    ) -> StoredAnswer:
        """Replace the metadata of a stored completion."""
        body = _update.read(await request.body())
        await chat.write_behind.settled(completion_id)
        async with database.transaction() as session:
            row = await stored.get(session, principal.require_tenant(), completion_id)
            row.client_metadata = body.metadata
            return stored_answer(row)

    @delete("/{completion_id:str}", status_code=200)
    async def delete_chat_completion(
        self,
        completion_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
    ) -> DeletedCompletion:
        """Forget a stored completion."""
        await chat.write_behind.settled(completion_id)
        async with database.transaction() as session:
            await stored.delete(session, principal.require_tenant(), completion_id)
        return DeletedCompletion(id=completion_id)


def _keeping(body: CompletionBody, write_behind: WriteBehind, tenant_id: str) -> Keep:
    """A function that keeps the answer to a body, in a transaction of its own."""

    async def keep(completion_id: str, answer: dict[str, Any]) -> None:
        async def work(session: AsyncSession) -> None:
            await stored.keep(
                session,
                tenant_id,
                completion_id=completion_id,
                model=body.model,
                messages=msgspec.to_builtins(body.messages),
                answer=answer,
                metadata=body.metadata,
            )

        await write_behind.put(completion_id, work)

    return keep
