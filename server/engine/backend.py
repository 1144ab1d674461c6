"""What the server needs of an engine, whichever engine it is.

``EngineBackend`` is the interface. `server.engine.client.EngineClient` implements it for every
engine that speaks vLLM's HTTP API and the few routes of ours (``/tenantune/...``), over a unix
socket or a URL. Three engines do, and ``tests/contracts/test_engine.py`` asks the same of them:

- ``server.engine.backends.vllm``: vLLM, as a child process of this server;
- ``server.engine.backends.fake``: an engine without a model, as a child process;
- ``server.engine.backends.remote``: either of them, started by someone else and used by its URL.

An engine of another kind implements this interface and passes that test file.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


class EngineSettings(msgspec.Struct):
    """The engine's settings that the server depends on.

    Args:
        max_num_seqs: answers that the engine generates at the same time.
        dtype: the type that it computes in; empty where the engine does not say.
    """

    max_num_seqs: int
    dtype: str = ""


class EngineInfo(msgspec.Struct):
    """How an engine describes itself. ``max_cpu_loras``: adapters that it can hold loaded."""

    max_cpu_loras: int
    settings: EngineSettings


class EngineBackend(Protocol):
    """One engine: one base model, and adapters that are loaded and unloaded by name.

    A request names its model in ``body["model"]``: the base's name, or the name of an adapter.
    Bodies and answers are those of vLLM's OpenAI API, as JSON. Use on one event loop.

    All methods that wait raise ``EngineUnavailable`` when the engine does not answer or fails as a
    whole, ``EngineBusy`` when it takes no more requests, and ``EngineRejected`` when it refuses
    this request, with the engine's own HTTP status: 404 for a model that it does not know, 400 for
    a body that it cannot use.
    """

    heard_at: float
    """When the last byte of any answer came (``time.monotonic``): the engine was alive then."""

    def stream(
        self, body: dict[str, Any], *, path: str = CHAT
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream a completion: the payload of each ``data:`` line, without the last [DONE].

        Leaving the context aborts the generation.

        Args:
            body: the request. ``stream`` must be true in it.
            path: ``CHAT`` or ``TEXT``: what kind of completion the body asks for.

        Raises:
            StreamBroken: while iterating: the engine stopped, was silent for too long, or reported
                an error after the answer had begun.
        """

    async def complete(self, body: dict[str, Any], *, path: str = CHAT) -> bytes:
        """Return a completion in one piece. Cancelling the call aborts the generation."""

    async def score(self, model: str, token_ids: list[int]) -> list[float | None]:
        """Return the natural log-probability of each token given those before it.

        The first has none. The list is as long as ``token_ids``.
        """

    async def ensure_adapter(self, name: str, path: str) -> float:
        """Load an adapter, unless it is loaded. Returns the milliseconds that it took.

        Args:
            name: the adapter's engine name, ``<slug>.<12 hexadecimal digits>``, never reused.
            path: its published folder, absolute, as the engine's process sees it.

        Raises:
            AdapterRefused: the folder is missing (code ``adapter_missing``), is not what its
                manifest says or will not load (``adapter_refused``), or the name is loaded from
                another folder (``name_in_use``).
        """

    async def drop_adapter(self, name: str) -> None:
        """Unload an adapter. Does nothing if it is not loaded.

        No request on this adapter may be open: the caller makes sure of that.
        """

    async def info(self) -> EngineInfo:
        """Return the engine's limits and settings."""

    async def health(self, *, timeout_seconds: float) -> None:
        """Return when the engine says that it is well.

        Raises:
            EngineUnavailable: it does not, or does not answer in time.
        """

    def break_streams(self, message: str) -> None:
        """End every open stream with ``StreamBroken``: a dying engine may leave them open."""

    async def close(self) -> None:
        """Break what is open and free the connections."""
