"""A client of the server's HTTP API, as a program of a customer would have one."""

from typing import Any

import aiohttp
import msgspec

OK, FIRST_ERROR = 200, 300


class DemoFailed(Exception):
    """A part did not work; the message says which."""


class ApiClient:
    """Calls the API with one key.

    Args:
        client: A session with the server's address; its owner closes it.
        key: The API key.
    """

    def __init__(self, client: aiohttp.ClientSession, key: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {key}"}

    async def call(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
        """One request; its JSON.

        Raises:
            DemoFailed: the answer was an error.
        """
        async with self._client.request(method, path, headers=self._headers, **options) as answer:
            body = await answer.read()
            if answer.status >= FIRST_ERROR:
                raise DemoFailed(f"{method} {path}: {answer.status} {body.decode()[:300]}")
            return msgspec.json.decode(body) if body else None

    async def exists(self, path: str) -> bool:
        """Whether the path answers with success."""
        async with self._client.get(path, headers=self._headers) as answer:
            return answer.status == OK

    async def ask(self, model: str, question: str) -> str:
        """The streamed answer to one question, whole.

        Raises:
            DemoFailed: the answer was an error, or the stream ended early.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 96,
            "stream": True,
        }
        parts: list[str] = []
        async with self._client.post(
            "/v1/chat/completions", json=body, headers=self._headers
        ) as answer:
            if answer.status != OK:
                text = (await answer.text())[:300]
                raise DemoFailed(f"chat with {model}: {answer.status} {text}")
            done = False
            async for line in answer.content:
                data = line.decode().removeprefix("data: ").strip()
                if data == "[DONE]":
                    done = True
                elif data.startswith("{"):
                    chunk = msgspec.json.decode(data)
                    if "error" in chunk:
                        raise DemoFailed(f"chat with {model}: {chunk['error']['message']}")
                    parts += [c["delta"].get("content") or "" for c in chunk["choices"]]
        if not done:
            raise DemoFailed(f"chat with {model}: the stream ended early")
        return "".join(parts).strip()
