"""The web process: assembles the features into one Litestar application."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from server.api.admin.jobs import AdapterImportController, JobController, ScoringController
from server.api.admin.tenants import KeyController, TenantController
from server.api.admin.transcripts import TranscriptController
from server.api.admin.usage import AllUsageController, UsageController
from server.api.admin.webhooks import WebhookController
from server.api.body import StrictRequest
from server.api.cors import config_of, vary_by_origin
from server.api.guards import provide_principal
from server.api.head import Application
from server.api.health import HealthController
from server.api.openai.chat.controller import ChatController
from server.api.openai.completions.controller import CompletionController
from server.api.openai.embeddings.controller import EmbeddingController
from server.api.openai.files.controller import FileController
from server.api.openai.fine_tuning.controller import FineTuningController
from server.api.openai.models.controller import ModelController
from server.api.openai.responses import service as responses
from server.api.openai.responses.controller import ResponseController
from server.api.openai.uploads.controller import UploadController
from server.api.problems import add_headers, exception_handlers
from server.api.reference.controller import ReferenceController
from server.auth.keyring import Keyring
from server.chat.service import ChatService
from server.cleanup import Cleaner
from server.db.session import Database
from server.db.write_behind import WriteBehind
from server.embeddings.service import EmbeddingService, build_embeddings
from server.engine.service import EngineService
from server.jobs.parity import worker_token
from server.limits.fair_scheduler import FairScheduler
from server.limits.limiter import RateLimiter
from server.metrics import Metrics
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.usage.ledger import UsageLedger
from server.webhooks.dispatcher import WebhookDispatcher
from server.webhooks.vault import Vault

log = structlog.get_logger(__name__)

controllers: list[ControllerRouterHandler] = [
    TenantController,
    KeyController,
    WebhookController,
    TranscriptController,
    AdapterImportController,
    JobController,
    ScoringController,
    ChatController,
    CompletionController,
    ResponseController,
    EmbeddingController,
    ModelController,
    FineTuningController,
    FileController,
    UploadController,
    UsageController,
    AllUsageController,
    HealthController,
    ReferenceController,
]


def create_app(  # noqa: C901 - a function for each dependency
    settings: Settings,
    *,
    engine: EngineService | None = None,
    database: Database | None = None,
    blobs: BlobStore | None = None,
    embeddings: EmbeddingService | None = None,
) -> Litestar:
    """Build the application; nothing is opened before it starts.

    On start it makes the installation's secrets, migrates the database, makes the key of webhooks'
    secrets where there is none, and starts the engine, which goes on in the background; on stop it
    lets open answers end for ``settings.drain_seconds``. Without an engine everything but
    answering works.
    """
    database = database or Database(settings.database)
    blobs = blobs or BlobStore.open(settings.blobs)
    embeddings = embeddings or build_embeddings(settings)
    keyring = Keyring(database)
    metrics = Metrics(engine)
    vault = Vault(settings)
    webhooks = WebhookDispatcher(
        database, vault=vault, private=settings.webhook_private, tell=metrics.count_webhook
    )
    limiter = RateLimiter(database, default=settings.limits)
    ledger = UsageLedger(database, limiter=limiter)
    sweeper = Cleaner(database, blobs)
    rows = WriteBehind(database)
    chat = ChatService(
        engine=engine,
        database=database,
        ledger=ledger,
        metrics=metrics,
        limiter=limiter,
        queue=_line(settings, engine, metrics),
        base=settings.base,
        home=settings.home,
        adapters=settings.adapters,
        serving=settings.bases / settings.base / "serving",
        rows=rows,
    )

    def provide_settings() -> Settings:
        return settings

    def provide_database() -> Database:
        return database

    def provide_blobs() -> BlobStore:
        return blobs

    def provide_keyring() -> Keyring:
        return keyring

    def provide_engine() -> EngineService | None:
        return engine

    def provide_chat() -> ChatService:
        return chat

    def provide_embeddings() -> EmbeddingService:
        return embeddings

    def provide_ledger() -> UsageLedger:
        return ledger

    def provide_limiter() -> RateLimiter:
        return limiter

    def provide_metrics() -> Metrics:
        return metrics

    def provide_vault() -> Vault:
        return vault

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        app.state.keyring = keyring
        app.state.settings = settings
        await asyncio.to_thread(chat.prepare)
        await asyncio.to_thread(worker_token, settings)
        await database.migrate()
        await vault.open(database)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(database.dispose)
            stack.callback(chat.close)
            stack.callback(keyring.close)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            for running in (
                keyring.run(),
                ledger.run(),
                rows.run(),
                webhooks.run(),
                sweeper.run(),
                embeddings.run(),
                responses.delete_expired_forever(database),
            ):
                stack.callback(tasks.create_task(running).cancel)
            if engine is not None:
                await engine.start()
                stack.push_async_callback(engine.stop, grace_seconds=settings.drain_seconds)
            yield

    return Application(
        route_handlers=controllers,
        dependencies={
            "settings": Provide(provide_settings, sync_to_thread=False),
            "database": Provide(provide_database, sync_to_thread=False),
            "blobs": Provide(provide_blobs, sync_to_thread=False),
            "keyring": Provide(provide_keyring, sync_to_thread=False),
            "engine": Provide(provide_engine, sync_to_thread=False),
            "chat": Provide(provide_chat, sync_to_thread=False),
            "embeddings": Provide(provide_embeddings, sync_to_thread=False),
            "ledger": Provide(provide_ledger, sync_to_thread=False),
            "limiter": Provide(provide_limiter, sync_to_thread=False),
            "metrics": Provide(provide_metrics, sync_to_thread=False),
            "vault": Provide(provide_vault, sync_to_thread=False),
            "principal": Provide(provide_principal, sync_to_thread=False),
        },
        exception_handlers=exception_handlers,
        before_send=[
            add_headers,
            limiter.add_headers,
            metrics.count_answer,
            *vary_by_origin(settings.cors_origins),
        ],
        cors_config=config_of(settings.cors_origins),
        lifespan=[lifespan],
        request_class=StrictRequest,
        request_max_body_size=settings.max_body_bytes,
        openapi_config=None,  # server/api/reference makes the document, with the types that validate
        logging_config=None,  # ours is set up by the process, once; Litestar's starts a thread
    )


def _line(settings: Settings, engine: EngineService | None, metrics: Metrics) -> FairScheduler:
    """Where requests wait for a place at the engine."""
    queue = FairScheduler(
        sequences=lambda: engine.max_num_seqs if engine is not None else 1,
        per_tenant=settings.queue_per_tenant,
        total=settings.queue_total,
        wait_seconds=settings.queue_seconds,
        waited=metrics.queue_wait.observe,
    )
    metrics.queue_waiting.set_function(lambda: queue.waiting)
    return queue
