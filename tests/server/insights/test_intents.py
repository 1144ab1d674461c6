"""Conversations by the labels of an intent head, and how many of them were handed off."""

import csv
import io
from typing import Any

from bs4 import BeautifulSoup

from server.conversations.service import Ask
from server.db.models import MessageLabel
from server.insights import intents
from server.insights.intents import IntentCount
from tests.server.conversations.conftest import Shop, open_shop, shop, vault
from tests.server.web.conftest import sign_in

__all__ = ["open_shop", "shop", "sign_in", "vault"]


async def say(shop: Shop, visitor: Any, *labels: str) -> None:
    """A message for each label."""
    tenant_id = (await shop.site()).tenant.id
    for label in labels:
        ask: Ask = await shop.talk(visitor, "Hello", "Hello")
        async with shop.database.transaction() as session:
            session.add(
                MessageLabel(
                    tenant_id=tenant_id,
                    conversation_id=ask.conversation_id,
                    message_id=ask.message.id,
                    task="intent",
                    label=label,
                    probability=0.9,
                    head_version=1,
                    head_sha256="0" * 64,
                    day=ask.message.created_at.date(),
                )
            )


async def test_conversations_count_once_for_each_intent_and_other_tenants_not_at_all(
    shop: Shop, open_shop: Any, sign_in: Any
) -> None:
    other = await open_shop("other")
    await say(other, await other.enter(), "cancel")
    first, second = await shop.enter(), await shop.enter()
    await say(shop, first, "cancel", "cancel", "invoice")
    await say(shop, second, "cancel")
    await shop.hand_off(first)
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.reading() as session:
        found = await intents.count_by_intent(session, tenant_id)
    assert found == [IntentCount("cancel", 2, 1), IntentCount("invoice", 1, 1)]
    assert [each.share for each in found] == [0.5, 1.0]

    viewer = await sign_in("acme", "viewer")
    page = BeautifulSoup((await viewer.get("/console/t/acme/data/topics")).text, "html.parser")
    rows = page.select("section[aria-labelledby=intents] tbody tr")
    assert [[cell.text for cell in row.select("th, td")] for row in rows] == [
        ["cancel", "2", "1", "50%"],
        ["invoice", "1", "1", "100%"],
    ]
    file = (await viewer.get("/console/t/acme/data/intents.csv")).text
    assert list(csv.reader(io.StringIO(file)))[1:] == [["cancel", "2", "1"], ["invoice", "1", "1"]]
