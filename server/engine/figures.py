"""What an engine says of its own work, from its metrics (vLLM's names, in Prometheus' text format)."""

from time import monotonic
from typing import Protocol

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from server.errors import ServerError

TIMEOUT_SECONDS = 2.0  # a page waits for it
KEPT_SECONDS = 1.0  # several readers share a look
_KV_CACHE = "vllm:kv_cache_usage_perc"
_GENERATED = "vllm:generation_tokens_total"
_PROMPT = "vllm:prompt_tokens_total"
_NAMES = (_KV_CACHE, _GENERATED, _PROMPT)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's figures; None where it does not say, or where there was no look before this one.

    ``kv_cache``: the share of the key-value cache that is used, from 0 to 1. The two rates are tokens a
    second since the look before.
    """

    kv_cache: float | None = None
    generated_per_second: float | None = None
    prompt_per_second: float | None = None


class MetricsSource(Protocol):
    """The part of ``EngineClient`` that is asked."""

    async def metrics(self, *, timeout_seconds: float) -> str:
        """Return the engine's metrics as text."""


class EngineFigures:
    """Reads an engine's figures, and remembers the last counts to make rates of them."""

    def __init__(self, engine: MetricsSource) -> None:
        self._engine = engine
        self._counts: dict[str, float] = {}
        self._looked_at = 0.0
        self._last = Figures()

    async def read(self) -> Figures:
        """The figures now. An engine that does not answer, or says something else, has none."""
        at = monotonic()
        if self._counts and at - self._looked_at < KEPT_SECONDS:
            return self._last
        try:
            counts = _parse(await self._engine.metrics(timeout_seconds=TIMEOUT_SECONDS))
        except (ServerError, ValueError):
            self._counts, self._last = {}, Figures()
            return self._last
        seconds = at - self._looked_at

        def rate(name: str) -> float | None:
            if name not in counts or name not in self._counts:
                return None
            # a new engine begins at 0
            return max(0.0, counts[name] - self._counts[name]) / seconds

        self._last = Figures(
            kv_cache=counts.get(_KV_CACHE),
            generated_per_second=rate(_GENERATED),
            prompt_per_second=rate(_PROMPT),
        )
        self._counts, self._looked_at = counts, at
        return self._last


def _parse(text: str) -> dict[str, float]:
    """The sum of each of ``_NAMES`` over its labels; of the cache the fullest part."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == _KV_CACHE:
                found[_KV_CACHE] = max(found.get(_KV_CACHE, 0.0), sample.value)
            elif sample.name in _NAMES:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
