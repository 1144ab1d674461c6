"""LangChain's own standard tests of a chat model, against our server over the scripted engine.

The engine is the scripted one because it calls tools and keeps to schemas at once, which the built-in
base is too small and too slow for; that both engines agree is what ``tests/contracts`` hold.
"""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import SecretStr

from server.app import create_app
from server.db.session import Database
from server.engine.scripted import scripted_command
from server.engine.service import EngineService
from server.settings import Settings
from server.tenants import keys
from server.tenants import service as tenants
from server.tenants.schemas import KeyRequest, TenantRequest


class _Serving(threading.Thread):
    """A server in a thread of its own: the tests here block theirs."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.settings = Settings(home=home, base="scripted-base", engine="scripted")
        self.key = self.url = ""
        self._server: uvicorn.Server | None = None
        self.ready = threading.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.settings.adapters.mkdir(parents=True)
        command = scripted_command(
            base=self.settings.base,
            adapters=self.settings.adapters,
            run=self.settings.run,
            tokens_per_second=2000,
        )
        engine = EngineService(base=self.settings.base, run=self.settings.run, command=command)
        database = Database(self.settings.database)
        app = create_app(self.settings, engine=engine, database=database)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.serve())
            while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.02)
            await engine.wait_ready(60)
            async with database.transaction() as session:
                tenant = await tenants.create(session, TenantRequest(slug="acme"))
                self.key, _ = await keys.create(session, KeyRequest(), tenant=tenant)
            port = self._server.servers[0].sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{port}/v1"
            self.ready.set()

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self.join(30)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Serving]:
    made = _Serving(tmp_path_factory.mktemp("langchain"))
    made.start()
    assert made.ready.wait(90)
    yield made
    made.stop()


class TestChatModel(ChatModelIntegrationTests):
    """``langchain_openai.ChatOpenAI`` with our address and key, and nothing else changed."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @pytest.fixture
    def model(self, serving: _Serving, request: pytest.FixtureRequest) -> BaseChatModel:
        """The model that every test of the suite is given."""
        extra: dict[str, Any] = getattr(request, "param", None) or {}
        return ChatOpenAI(
            model=serving.settings.base,
            base_url=serving.url,
            api_key=SecretStr(serving.key),
            **extra,
        )
