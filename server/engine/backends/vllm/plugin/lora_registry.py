"""Which adapters the engine's process has loaded, by name.

Two things end a vLLM engine for every tenant: two ids for one name in a batch (its request sets
compare names), and a folder that was deleted when the engine reads it again. So a name keeps its id
for the life of the process, even if dropped, and no adapter is pinned or replaced in place.
"""

import asyncio
import time
import weakref
from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from server.engine.backends.vllm.plugin.resolver import AdapterResolver, Missing, Refused


class NameInUse(Exception):
    """The name is loaded from another folder."""


class WeakLocks:
    """A lock per name, kept while a task holds it or waits for it. vLLM's own is never removed."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __getitem__(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock


class LoraRegistry:
    """Loads and drops adapters in vLLM's list of names (``OpenAIServingModels``) and its worker.

    Both change together, under the name's lock, which vLLM's resolver also takes.
    """

    def __init__(self, engine: Any, models: Any, resolver: AdapterResolver) -> None:  # noqa: ANN401
        self._engine = engine
        self._models = models
        self._resolver = resolver
        self._ids: dict[str, int] = {}
        models.lora_resolver_lock = WeakLocks()

    @property
    def names(self) -> list[str]:
        """Loaded adapters, sorted."""
        return sorted(self._models.lora_requests)

    async def ensure(self, name: str, folder: Path) -> float:
        """Load the adapter, unless it is loaded. Returns the seconds that it took.

        Raises:
            Missing: there is no such folder.
            NameInUse: the name is loaded from another folder.
            Refused: the folder must not be loaded, or vLLM would not load it.
        """
        started = time.perf_counter()
        async with self._models.lora_resolver_lock[name]:
            loaded = self._models.lora_requests.get(name)
            if loaded is not None and Path(loaded.lora_path) != folder:
                raise NameInUse(f"adapter {name!r} is loaded from {loaded.lora_path}")
            if loaded is None:
                await self._resolver.inspect(name, folder)
                loaded = LoRARequest(
                    lora_name=name, lora_int_id=self._id(name), lora_path=str(folder)
                )
            # Also when the name is known: the worker may have evicted it since.
            await self._load(loaded)
            self._models.lora_requests[name] = loaded
            self._resolver.barred.discard(name)
        return time.perf_counter() - started

    async def drop(self, name: str) -> bool:
        """Forget the name and free the worker's copy; False if it was not loaded.

        No request of this adapter may be in flight, for which the worker would read the folder
        again: the caller makes sure of that.
        """
        async with self._models.lora_resolver_lock[name]:
            loaded = self._models.lora_requests.pop(name, None)
            if loaded is None:
                return False
            self._ids[name] = loaded.lora_int_id
            self._resolver.barred.add(name)
            await self._engine.remove_lora(loaded.lora_int_id)
        return True

    def _id(self, name: str) -> int:
        number = self._ids.get(name)
        if number is None:
            number = self._ids[name] = self._models.lora_id_counter.inc(1)
        return number

    async def _load(self, request: LoRARequest) -> None:
        try:
            await self._engine.add_lora(request)
        except EngineDeadError:
            raise
        except Exception as exc:
            if not await asyncio.to_thread(Path(request.lora_path).is_dir):
                raise Missing(f"{request.lora_path} is gone") from exc
            raise Refused(f"vLLM would not load {request.lora_name!r}: {exc}") from exc
