"""A browser in a widget's frame, without the browser: what the panel asks for, over a port."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from server.conversations import widgets
from server.conversations.schemas import WidgetPatch
from server.db.models import new_id
from server.webhooks.vault import Vault
from tests.server.serving import Serving

NONCE = re.compile(r'<meta name="tt-nonce" content="([^"]+)"')


@dataclass
class Frame:
    """One frame of a tenant's widget."""

    server: Serving
    slug: str
    pub: str
    session: str = ""
    visitor: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.server.url}/widget/{self.pub}"

    async def document(self, *, lang: str = "", **headers: str) -> tuple[int, str, dict[str, str]]:
        """(status, text, headers) of the panel's document."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.server.session.get(
            f"{self.url}/panel", params={"lang": lang, "v": "1"}, headers=sent
        ) as answer:
            return (
                answer.status,
                await answer.text(),
                {k.lower(): v for k, v in answer.headers.items()},
            )

    async def nonce(self) -> str:
        _, text, _ = await self.document()
        found = NONCE.search(text)
        assert found, text
        return found[1]

    async def call(self, path: str, body: Any = None, method: str = "") -> tuple[int, Any]:
        """(status, JSON) of a request with this frame's session."""
        async with self.open(path, body, method) as answer:
            if answer.status == 204:
                return 204, None
            return answer.status, await answer.json(content_type=None)

    def open(self, path: str, body: Any = None, method: str = "") -> Any:
        headers = dict(self.headers)
        if self.session:
            headers["authorization"] = f"Bearer {self.session}"
        return self.server.session.request(
            method or ("GET" if body is None else "POST"),
            f"{self.url}/{path}",
            json=body,
            headers=headers,
        )

    async def enter(self, **fields: Any) -> Any:
        body = {"nonce": await self.nonce(), "visitor": self.visitor, **fields}
        status, answer = await self.call("session", body)
        assert status == 201, answer
        self.session, self.visitor = answer["session"], answer["visitor"]
        return answer

    async def say(self, text: str, *, client_id: str | None = None) -> list[tuple[str, Any]]:
        """The events of an answer."""
        body = {"text": text, "client_id": client_id or new_id()}
        async with self.open("messages", body) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["content-type"].startswith("text/event-stream")
            return events(await answer.text())

    async def conversation(self) -> Any:
        status, answer = await self.call("conversation")
        assert status == 200, answer
        return answer["conversation"]


def events(text: str) -> list[tuple[str, Any]]:
    """(name, data) of each event."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(
            line.split(": ", 1) for line in block.splitlines() if line[:1] not in ("", ":")
        )
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def frame_of(server: Serving, slug: str = "acme", **fields: Any) -> Frame:
    """A tenant with a widget, and a frame that nobody has entered yet."""
    await server.tenant(slug, name=slug.title())
    vault = Vault(server.settings)
    await vault.open(server.database)
    async with server.database.transaction() as session:
        widget = await widgets.enable(session, slug, vault=vault)
        if fields:
            await widgets.update(session, slug, WidgetPatch(**fields))
    return Frame(server, slug, widget.public_key)


async def first_event(answer: aiohttp.ClientResponse, name: str) -> Any:
    """Read a stream up to an event; its data."""
    text = ""
    async for chunk in answer.content.iter_any():
        text += chunk.decode()
        for found, data in events(text[: text.rfind("\n\n") + 2]):
            if found == name:
                return data
    raise AssertionError(f"no event {name}: {text}")
