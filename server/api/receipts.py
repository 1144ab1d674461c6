"""``/v1/receipts``: what an answer rests on."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.api.guards import needs
from server.auth.keys import Principal
from server.chat.service import ChatService
from server.db.session import Database
from server.retrieval import receipts
from server.retrieval.schemas import ReceiptView


class ReceiptController(Controller):
    """Receipts of answers, for tenants' keys with the scope ``chat``."""

    path = "/v1/receipts"
    tags = ("receipts",)
    guards = (needs("chat"),)

    @get("/{answer_id:str}")
    async def retrieve_receipt(
        self,
        answer_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        chat: NamedDependency[ChatService],
    ) -> ReceiptView:
        """What an answer rests on: the id is that of the completion, the response or the message."""
        await chat.write_behind.settled(receipts.row(answer_id))
        async with database.reading() as session:
            return await receipts.get(session, principal.require_tenant(), answer_id)
