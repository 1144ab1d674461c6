"""The web process: assembles the features into one Litestar application."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog
from litestar import Controller, Litestar
from litestar.di import Provide

from server.accounts.oidc import Issuer
from server.accounts.passwords import Passwords
from server.accounts.signing_in import SigningIn
from server.adapters.catalog import ModelCatalog
from server.api.acting import ActingMiddleware
from server.api.admin.audit import AllAuditController, AuditController
from server.api.admin.curation import CurationController
from server.api.admin.heads import HeadController, SharedHeadController
from server.api.admin.jobs import AdapterImportController, JobController, ScoringController
from server.api.admin.knowledge import KnowledgeController
from server.api.admin.tenants import KeyController, TenantController
from server.api.admin.transcripts import TranscriptController
from server.api.admin.usage import AllUsageController, UsageController
from server.api.admin.webhooks import WebhookController
from server.api.body import StrictRequest
from server.api.cors import config_of, vary_by_origin
from server.api.guards import provide_principal
from server.api.head import Application
from server.api.health import HealthController
from server.api.hooks import add_rate_limits, count_answers
from server.api.openai.chat.controller import ChatController
from server.api.openai.completions.controller import CompletionController
from server.api.openai.embeddings.controller import EmbeddingController
from server.api.openai.files.controller import FileController
from server.api.openai.fine_tuning.controller import FineTuningController
from server.api.openai.models.controller import ModelController
from server.api.openai.responses.controller import ResponseController
from server.api.openai.uploads.controller import UploadController
from server.api.problems import add_headers
from server.api.receipts import ReceiptController
from server.api.reference.controller import ReferenceController
from server.auth.keyring import Keyring
from server.chat.accounting import Accounting, Admission
from server.chat.images import ImageTriage
from server.chat.prompt import PolicyFiles
from server.chat.service import ChatService
from server.cleanup import Cleaner
from server.conversations.answering import Answering
from server.db.session import Database
from server.db.write_behind import WriteBehind
from server.embeddings.service import EmbeddingService, build_embeddings
from server.engine.service import EngineService
from server.insights.labelling import Labelling
from server.jobs.curve import CurveReader
from server.jobs.feed import JobFeed
from server.jobs.parity import worker_token
from server.knowledge.search import KnowledgeSearch
from server.limits.fair_scheduler import FairScheduler
from server.limits.limiter import RateLimiter
from server.metrics import Metrics
from server.responses import service as responses
from server.retrieval.indexes import IndexCache, has_index
from server.retrieval.service import RetrievalService
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.usage.ledger import UsageLedger
from server.web.console.errors import exception_handlers
from server.web.console.pages.account import AccountController
from server.web.console.pages.ask import AskController
from server.web.console.pages.audit import AllAuditController as AllAuditPageController
from server.web.console.pages.audit import AuditController as AuditPageController
from server.web.console.pages.conversations import ConversationsController
from server.web.console.pages.curation import CurationController as ConsoleCurationController
from server.web.console.pages.data import DataController
from server.web.console.pages.engine import EngineController
from server.web.console.pages.heads import HeadsController as HeadsPageController
from server.web.console.pages.home import HomeController, TenantHomeController
from server.web.console.pages.keys import KeysController, OperatorKeysController
from server.web.console.pages.knowledge import KnowledgeController as KnowledgePageController
from server.web.console.pages.people import PeopleController
from server.web.console.pages.release import ReleaseController
from server.web.console.pages.release_changes import ReleaseChangesController
from server.web.console.pages.sign_in import (
    LinkController,
    SignInController,
    SignOutController,
)
from server.web.console.pages.single_sign_on import IssuerController
from server.web.console.pages.tenants import NewTenantController
from server.web.console.pages.training import TrainingController
from server.web.console.pages.usage import AllUsageController as AllUsagePageController
from server.web.console.pages.usage import TenantUsageController
from server.web.console.pages.vote import VoteController
from server.web.console.pages.webhooks import WebhooksController
from server.web.console.pages.widget import WidgetController as WidgetPageController
from server.web.console.session import (
    SignInRequired,
    ask_to_sign_in,
    provide_tenant,
    provide_viewer,
)
from server.web.static import StaticController
from server.web.widget.controller import WidgetController, WidgetDocuments
from server.web.widget.refusals import Refusals
from server.webhooks.dispatcher import WebhookDispatcher
from server.webhooks.vault import Vault

log = structlog.get_logger(__name__)

OPENAI: tuple[type[Controller], ...] = (  # /v1
    ChatController,
    CompletionController,
    ResponseController,
    EmbeddingController,
    ModelController,
    FileController,
    UploadController,
    FineTuningController,
    ReceiptController,
)
ADMIN: tuple[type[Controller], ...] = (  # /admin, and /internal for the worker
    TenantController,
    KeyController,
    TranscriptController,
    KnowledgeController,
    JobController,
    ScoringController,
    AdapterImportController,
    CurationController,
    HeadController,
    SharedHeadController,
    WebhookController,
    UsageController,
    AllUsageController,
    AuditController,
    AllAuditController,
)
CONSOLE: tuple[type[Controller], ...] = (  # /console
    HomeController,
    TenantHomeController,
    NewTenantController,
    SignInController,
    IssuerController,
    SignOutController,
    LinkController,
    AccountController,
    PeopleController,
    DataController,
    KnowledgePageController,
    TrainingController,
    ConversationsController,
    WidgetPageController,
    KeysController,
    OperatorKeysController,
    WebhooksController,
    ReleaseController,
    ReleaseChangesController,
    HeadsPageController,
    AskController,
    VoteController,
    ConsoleCurationController,
    AuditPageController,
    AllAuditPageController,
    TenantUsageController,
    AllUsagePageController,
    EngineController,
)
OPEN: tuple[type[Controller], ...] = (  # /health, /metrics, /openapi.json, /docs, /static
    HealthController,
    ReferenceController,
    StaticController,
)
WIDGET: tuple[type[Controller], ...] = (  # /widget.js, /widget
    WidgetDocuments,
    WidgetController,
)
MIDDLEWARE = (ActingMiddleware(),)


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What handlers may ask for, by the names of their parameters."""

    settings: Settings
    database: Database
    blobs: BlobStore
    keyring: Keyring
    engine: EngineService | None
    chat: ChatService
    models: ModelCatalog
    embeddings: EmbeddingService
    knowledge: KnowledgeSearch
    ledger: UsageLedger
    limiter: RateLimiter
    fair_queue: FairScheduler
    metrics: Metrics
    vault: Vault
    signing_in: SigningIn
    issuer: Issuer | None
    job_feed: JobFeed
    curve_reader: CurveReader
    answering: Answering
    refusals: Refusals


def create_app(
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
    lets open answers end for ``settings.drain_seconds``.

    Args:
        settings: all configuration; nothing else reads the environment.
        engine: started and stopped with the application. Without one everything but answering
            works.
        database: made from the settings where there is none; closed on stop in either case.
        blobs: likewise.
        embeddings: likewise; run with the application.

    Example:
        app = create_app(Settings(home=Path("/var/lib/tenantune")))
        uvicorn.run(app)
    """
    shared = _build_shared(
        settings,
        engine=engine,
        database=database or Database(settings.database),
        blobs=blobs or BlobStore.open(settings.blobs),
        embeddings=embeddings or build_embeddings(settings),
    )
    webhooks = WebhookDispatcher(
        shared.database,
        vault=shared.vault,
        private=settings.webhook_private,
        on_attempt=shared.metrics.count_webhook,
    )
    labelling = Labelling(shared.database, shared.embeddings, settings)
    cleaner = Cleaner(shared.database, shared.blobs, audit_keep_days=settings.audit_keep_days)

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        app.state.keyring = shared.keyring
        app.state.settings = settings
        app.state.database = shared.database
        app.state.job_feed = shared.job_feed
        await asyncio.to_thread(shared.chat.prepare)
        await asyncio.to_thread(worker_token, settings)
        await shared.database.migrate()
        await shared.vault.open(shared.database)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(shared.database.dispose)
            stack.callback(shared.chat.close)
            stack.callback(shared.keyring.close)
            stack.callback(shared.job_feed.close)
            stack.callback(shared.knowledge.close)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            for running in (
                shared.keyring.run(),
                shared.ledger.run(),
                shared.chat.write_behind.run(),
                webhooks.run(),
                cleaner.run(),
                shared.embeddings.run(),
                labelling.run(),
                responses.delete_expired_forever(shared.database),
            ):
                stack.callback(tasks.create_task(running).cancel)
            if engine is not None and await asyncio.to_thread(has_index, settings.adapters):
                shared.embeddings.hold()
            if engine is not None:
                await engine.start()
                stack.push_async_callback(engine.stop, grace_seconds=settings.drain_seconds)
            yield

    return Application(
        route_handlers=[*OPENAI, *ADMIN, *CONSOLE, *WIDGET, *OPEN],
        dependencies={
            "principal": Provide(provide_principal, sync_to_thread=False),
            "viewer": Provide(provide_viewer, sync_to_thread=False),
            "tenant": Provide(provide_tenant, sync_to_thread=False),
            **{name: _always(value) for name, value in vars(shared).items()},
        },
        exception_handlers={**exception_handlers, SignInRequired: ask_to_sign_in},
        before_send=[
            add_headers,
            add_rate_limits(shared.limiter),
            count_answers(shared.metrics),
            *vary_by_origin(settings.cors_origins),
        ],
        cors_config=config_of(settings.cors_origins),
        lifespan=[lifespan],
        middleware=MIDDLEWARE,
        request_class=StrictRequest,
        request_max_body_size=settings.max_body_bytes,
        openapi_config=None,  # server/api/reference makes the document, with the types that validate
        logging_config=None,  # ours is set up by the process, once; Litestar's starts a thread
    )


def _build_shared(
    settings: Settings,
    *,
    engine: EngineService | None,
    database: Database,
    blobs: BlobStore,
    embeddings: EmbeddingService,
) -> _Shared:
    metrics = Metrics(engine)
    limiter = RateLimiter(database, default=settings.limits)
    ledger = UsageLedger(database, limiter=limiter)
    fair_queue = _queue(settings, engine, metrics)
    knowledge = KnowledgeSearch(database)
    chat = ChatService(
        engine=engine,
        models=ModelCatalog(database, base=settings.base, adapters=settings.adapters),
        prompts=PolicyFiles(settings.home, serving=settings.bases / settings.base / "serving"),
        admission=Admission(limiter, fair_queue),
        accounting=Accounting(ledger, metrics, base=settings.base),
        write_behind=WriteBehind(database),
        images=ImageTriage(database, embeddings, ledger, limiter, settings),
        retrieval=RetrievalService(embeddings, IndexCache(), knowledge),
    )
    return _Shared(
        settings=settings,
        database=database,
        blobs=blobs,
        keyring=Keyring(database),
        engine=engine,
        chat=chat,
        models=chat.models,
        embeddings=embeddings,
        knowledge=knowledge,
        ledger=ledger,
        limiter=limiter,
        fair_queue=fair_queue,
        metrics=metrics,
        vault=Vault(settings),
        signing_in=SigningIn(database, Passwords()),
        issuer=Issuer(settings) if settings.oidc_issuer else None,
        job_feed=JobFeed(database),
        curve_reader=CurveReader(),
        answering=Answering(chat, base=settings.base),
        refusals=Refusals(database),
    )


def _always(value: object) -> Provide:
    """A dependency that is the same for every request."""
    return Provide(lambda: value, sync_to_thread=False)


def _queue(settings: Settings, engine: EngineService | None, metrics: Metrics) -> FairScheduler:
    """The queue in front of the engine."""
    queue = FairScheduler(
        max_num_seqs=lambda: engine.max_num_seqs if engine is not None else 1,
        per_tenant=settings.queue_per_tenant,
        total=settings.queue_total,
        wait_seconds=settings.queue_seconds,
        waited=metrics.queue_wait.observe,
    )
    metrics.queue_waiting.set_function(lambda: queue.waiting)
    return queue
