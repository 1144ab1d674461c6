"""LangChain's own standard tests of a chat model, against our server over the fake engine.

The engine is the fake one because it calls tools and keeps to schemas at once, which the built-in
base is too small and too slow for; that both engines agree is what ``tests/contracts`` hold.
"""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import SecretStr

from server.app import create_app
from server.auth import keys
from server.auth.schemas import KeyRequest
from server.db.session import Database
from server.engine.backends.fake import fake_command
from server.engine.service import EngineService
from server.settings import Settings
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest

# the client keeps its connections for as long as the process lives, and so does this loop
pytestmark = pytest.mark.asyncio(loop_scope="module")


class _Serving(threading.Thread):
    """A server in a thread of its own: the tests here block theirs."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.settings = Settings(home=home, base="fake-base", engine="fake")
        self.key = self.url = ""
        self._server: uvicorn.Server | None = None
        self.ready = threading.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.settings.adapters.mkdir(parents=True)
        command = fake_command(
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


@pytest.mark.filterwarnings(
    "ignore:.*is marked with '@pytest.mark.asyncio' but it is not an async function",
    "ignore:Pydantic serializer warnings:UserWarning",  # the client's own, of parsed answers
    "ignore:Received a Pydantic BaseModel V1:UserWarning",
)
class TestChatModel(ChatModelIntegrationTests):
    """``langchain_openai.ChatOpenAI`` with our address and key."""

    params: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _address(self, serving: _Serving) -> None:
        self.params.update(
            model=serving.settings.base,
            base_url=serving.url,
            api_key=SecretStr(serving.key),
            stream_usage=True,  # which this client leaves out for any address but OpenAI's
        )

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.params

    @property
    def has_tool_choice(self) -> bool:
        return True

    # The suite asks for a reason for each test that is not as it comes.

    @pytest.mark.xfail(reason="the engine answers with any JSON, not with a joke's", strict=True)
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)

    @pytest.mark.xfail(reason="the engine calls no tool of its own accord", strict=True)
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason="the engine does not translate", strict=True)
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **options: Any) -> None:
        super().test_unicode_tool_call_integration(model, **options)

    @pytest.mark.xfail(reason="times are not tested: pytest-benchmark is left out", strict=True)
    def test_stream_time(self, model: BaseChatModel, benchmark: Any, vcr: Any) -> None:
        super().test_stream_time(model, benchmark, vcr)
