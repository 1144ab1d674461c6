"""Metrics for Prometheus. No label names a tenant, a key or a text."""

from collections.abc import Iterator
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from server.engine.adapter_cache import AdapterCache
from server.engine.process.supervisor import EngineStatus, State
from server.webhooks.dispatcher import AttemptResult

_FIRST_TOKEN_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_WAIT_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class EngineStats(Protocol):
    """The part of the engine service that is measured."""

    @property
    def status(self) -> EngineStatus:
        """What the engine is doing now."""

    @property
    def requests(self) -> int:
        """Requests in flight, those that wait included."""

    @property
    def adapters(self) -> AdapterCache:
        """Which adapters are loaded, in flight and waiting."""


class Metrics:
    """One app's metrics, in a registry of their own so that a test may build a second app."""

    def __init__(self, engine: EngineStats | None) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tenantune_http_requests",
            "HTTP answers.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.chats = Counter(
            "tenantune_chats",
            "Chat completions that ended, by how.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "tenantune_chat_first_token_seconds",
            "From the request's arrival to the first chunk of a streamed answer.",
            ["model"],
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.tokens = Counter(
            "tenantune_tokens", "Tokens of chat completions.", ["kind"], registry=self.registry
        )
        self.in_flight = Gauge(
            "tenantune_chats_in_flight",
            "Chat completions under way, by how they are answered.",
            ["mode"],
            registry=self.registry,
        )
        self.queue_waiting = Gauge(
            "tenantune_queue_waiting",
            "Requests that wait for a place at the engine.",
            registry=self.registry,
        )
        self.queue_wait = Histogram(
            "tenantune_queue_wait_seconds",
            "How long requests waited for a place at the engine.",
            buckets=_WAIT_BUCKETS,
            registry=self.registry,
        )
        self._webhooks = Counter(
            "tenantune_webhooks",
            "Attempts to send an event to a webhook, by what came of them: delivered, failed (to be "
            "tried again), given_up (the last one, or none since the webhook is disabled).",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in get_args(AttemptResult):  # a series that begins at 0 shows its first failure
            self._webhooks.labels(outcome)
        if engine is not None:
            self.registry.register(_EngineCollector(engine))

    def count_answer(self, method: str, route: str, *, status: int) -> None:
        """Count an HTTP answer. ``route`` is the path's template, so that there are few of them."""
        self._requests.labels(method, route, status).inc()

    def count_webhook(self, outcome: AttemptResult) -> None:
        """Count what came of an attempt to send an event."""
        self._webhooks.labels(outcome).inc()

    def render(self) -> tuple[bytes, str]:
        """Return the text to serve, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _EngineCollector(Collector):
    """Reads the engine service's figures at each scrape."""

    def __init__(self, engine: EngineStats) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        status = self._engine.status
        states = GaugeMetricFamily(
            "tenantune_engine_state", "1 for the state that the engine is in.", labels=["state"]
        )
        for state in get_args(State):
            states.add_metric([state], float(state == status.state))
        yield states
        yield CounterMetricFamily(
            "tenantune_engine_restarts", "Lives of the engine after its first.", status.restarts
        )
        yield GaugeMetricFamily(
            "tenantune_engine_requests", "Requests at the engine.", self._engine.requests
        )
        adapters = self._engine.adapters
        yield GaugeMetricFamily(
            "tenantune_adapters_loaded", "Adapters that the engine holds.", len(adapters.loaded)
        )
        yield GaugeMetricFamily(
            "tenantune_adapters_in_flight",
            "Adapters with a request at the engine.",
            len(adapters.in_flight),
        )
        yield GaugeMetricFamily(
            "tenantune_adapter_requests_waiting",
            "Requests that wait for a place for their adapter.",
            adapters.waiting,
        )
