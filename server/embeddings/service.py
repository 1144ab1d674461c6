"""The encoder as the rest of the server sees it: its process runs only while it is used."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import structlog

from server.embeddings.client import RETRY_AFTER_SECONDS, EncoderClient
from server.embeddings.schemas import ClassifyRequest, Embedded, EmbedRequest, Label
from server.engine.process.command import ChildCommand, socket_path
from server.engine.process.supervisor import EngineStatus, StatusFeed, Supervisor, Timing
from server.errors import TooMany, Unavailable
from server.settings import Settings

log = structlog.get_logger(__name__)

MAX_OPEN = 128
MAX_OPEN_OF_A_TENANT = 32
IDLE_SECONDS = 600.0
BACKGROUND_IDLE_SECONDS = 60.0
"""Loading it again takes some seconds, for which nobody waits at a screen."""
BACKGROUND_NICENESS = 10  # as trainers and readers of uploads
TIMING = Timing(ready=180.0, stable=30.0, term=2.0)


class EmbeddingService:
    """One encoder process for all tenants, started at the first request. Use on one event loop.

    ``run()`` must be running.

    Args:
        command: makes the command that starts the process; called at the first request.
        run: the process's folder: socket, log, pid file. It is this service's alone.
        timing: how patient the supervision is.
        start_seconds: how long a request waits for the process to start.
        idle_seconds: how long the process is kept without a request.
    """

    def __init__(
        self,
        command: Callable[[], ChildCommand],
        *,
        run: Path,
        timing: Timing = TIMING,
        start_seconds: float = 60.0,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._make_command = command
        self._run = run
        self._timing = timing
        self._start_seconds = start_seconds
        self._idle_seconds = idle_seconds
        self._feed = StatusFeed(EngineStatus())
        self._open: Counter[str] = Counter()
        self._wanted = asyncio.Event()  # a request came since the process was last ended
        self._activity = asyncio.Event()  # a request came or ended
        self._held = False

    @property
    def status(self) -> EngineStatus:
        """What the process is doing now."""
        return self._feed.status

    async def embed(
        self, texts: list[str], *, tenant: str, dimensions: int, truncate: bool = False
    ) -> Embedded:
        """Return the vectors of texts. Cancelling cancels the request.

        With ``truncate``, only the beginning of a long text is read.

        Raises:
            Invalid: a text is longer than the model reads (``context_length_exceeded``).
            TooMany: the tenant has too many requests open.
            Unavailable: the process is not there yet, or stopped meanwhile.
        """
        with self._request(tenant):
            await self._ready()
            request = EmbedRequest(
                tenant=tenant, texts=texts, dimensions=dimensions, truncate=truncate
            )
            return await self._client.embed(request)

    def hold(self) -> None:
        """Start the process, and keep it without requests too: answers wait for it."""
        self._held = True
        self._wanted.set()
        self._activity.set()

    async def classify(self, texts: list[str], *, tenant: str, head: Path) -> list[Label]:
        """Return what the head in a folder says of texts. Cancelling cancels the request.

        Raises:
            Conflict: the head is not there, or not as it was written.
            TooMany: the tenant has too many requests open.
            Unavailable: the process is not there yet, or stopped meanwhile.
        """
        return await self._classify(ClassifyRequest(tenant=tenant, texts=texts, folder=str(head)))

    async def classify_images(self, images: list[bytes], *, tenant: str, head: Path) -> list[Label]:
        """Return what the head in a folder says of images (files), which are unpacked in the process.

        Raises as ``classify``, and ImageRefused where an image cannot be read.
        """
        return await self._classify(ClassifyRequest(tenant=tenant, images=images, folder=str(head)))

    async def _classify(self, request: ClassifyRequest) -> list[Label]:
        with self._request(request.tenant):
            await self._ready()
            return await self._client.classify(request)

    async def run(self) -> None:
        """Run the process while it is used, until cancelled. Nothing of it remains then."""
        await self._wanted.wait()
        try:
            while True:
                await self._wanted.wait()
                self._feed.show(state="starting", detail="starting the process")
                async with asyncio.TaskGroup() as group:
                    life = group.create_task(self._supervisor().supervise())
                    await self._idle()
                    # in one step with the decision: a request that comes now waits for a new life
                    self._wanted.clear()
                    self._feed.show(state="stopped", detail="not used", pid=None)
                    life.cancel()
                log.info("encoder ended, unused", idle_seconds=self._idle_seconds)
        finally:
            await self._client.close()

    @cached_property
    def _command(self) -> ChildCommand:
        return self._make_command()  # makes the socket's folder: not before the first request

    @cached_property
    def _client(self) -> EncoderClient:
        return EncoderClient(self._command.uds)

    def _supervisor(self) -> Supervisor:
        return Supervisor(
            self._command,
            _Hooks(self._client),
            run=self._run,
            feed=self._feed,
            timing=self._timing,
            name="encoder",
        )

    async def _idle(self) -> None:
        """Return when there was no request for ``idle_seconds``."""
        while True:
            self._activity.clear()
            if self._open or self._held:
                await self._activity.wait()
                continue
            try:
                async with asyncio.timeout(self._idle_seconds):
                    await self._activity.wait()
            except TimeoutError:
                if not self._open:
                    return

    async def _ready(self) -> None:
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._start_seconds):
                async for status in self._feed.watch():
                    if status.state == "ready":
                        return
                    if status.state == "failed":
                        break
        status = self.status
        log.warning("encoder is not ready", state=status.state, detail=status.detail)
        raise Unavailable(
            "The embedding model is starting. Try again in a moment.",
            retry_after_seconds=max(RETRY_AFTER_SECONDS, status.retry_after_seconds),
        )

    @contextmanager
    def _request(self, tenant: str) -> Iterator[None]:
        if self._open[tenant] >= MAX_OPEN_OF_A_TENANT:
            raise TooMany(
                f"You have {MAX_OPEN_OF_A_TENANT} embedding requests under way: wait for one of "
                "them, or send more texts in each.",
                retry_after_seconds=1.0,
            )
        if self._open.total() >= MAX_OPEN:
            raise Unavailable("Too many embedding requests are under way.", retry_after_seconds=2.0)
        self._open[tenant] += 1
        self._activity.set()
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
            self._activity.set()


class _Hooks:
    """The encoder's health. There is nothing to prepare: its socket appears when it is ready."""

    def __init__(self, client: EncoderClient) -> None:
        self.health = client.health

    async def prepare(self) -> None:
        """Nothing."""

    def ended(self, reason: str) -> None:
        """Nothing: the client's requests notice it themselves."""


def build_embeddings(
    settings: Settings, *, run: str | Path = "embeddings", in_background: bool = False
) -> EmbeddingService:
    """Make the service that the settings ask for: with the fake engine, the fake encoder.

    Args:
        settings: the installation's.
        run: the process's folder, within that of running processes; each process of ours that has an
            encoder has its own.
        in_background: let others have the processor first, and end the process soon when it is unused.
    """
    folder = settings.run / run
    kind = "fake" if settings.engine == "fake" else "sentence"
    options = {"nice": BACKGROUND_NICENESS} if in_background else {}
    return EmbeddingService(
        lambda: encoder_command(folder, kind, **options),
        run=folder,
        idle_seconds=BACKGROUND_IDLE_SECONDS if in_background else IDLE_SECONDS,
    )


def encoder_command(run: Path, kind: str, **options: float) -> ChildCommand:
    """Return how to start the process with a socket in ``run``; ``options`` as its ``main``."""
    uds = socket_path(run)
    threads = min(4, max(1, (os.cpu_count() or 1) // 4))  # chats need the others
    argv = [sys.executable, "-m", "server.embeddings", "--uds", str(uds), "--encoder", kind]
    argv += ["--threads", str(threads)]
    for name, value in options.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    env = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    return ChildCommand(argv=argv, env=env, uds=uds)
