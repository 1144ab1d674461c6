"""Asks the server, from a worker, for the engine's log-probabilities.

Only the server decides which adapters the engine loads, so a worker never talks to the engine
itself. It authenticates with a token from the data folder (same machine), or from the setting.
"""

import asyncio
import secrets

import aiohttp
import msgspec
import structlog

from server.errors import AdapterRefused, Unavailable
from server.jobs.schemas import ScoreRequest, ScoreResponse
from server.settings import Settings
from training.filesystem import read_or_create

log = structlog.get_logger(__name__)

RETRY_SECONDS = 3.0
ONE_CALL_SECONDS = 600.0  # 2,000 tokens on a slow processor, its first call included


def worker_token(settings: Settings) -> str:
    """The token between workers and this installation's servers; created on first use."""
    if settings.worker_token:
        return settings.worker_token
    path = settings.run / "worker.token"
    return read_or_create(path, lambda: secrets.token_urlsafe(32).encode()).decode()


async def score_when_ready(
    settings: Settings, *, tenant: str, adapter_name: str, sequences: list[list[int]]
) -> ScoreResponse:
    """Log-probabilities of each token of each sequence under an adapter, from the engine.

    Waits while the server or the engine does not answer.

    Raises:
        AdapterRefused: the engine will not load the adapter.
    """
    request = ScoreRequest(
        tenant=tenant,
        adapter_name=adapter_name,
        sequences=sequences,
    )
    timeout = aiohttp.ClientTimeout(total=ONE_CALL_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        while True:
            try:
                return await _score(client, settings, request)
            except (Unavailable, aiohttp.ClientError, TimeoutError) as exc:
                log.info("waiting for the engine", reason=str(exc) or type(exc).__name__)
                await asyncio.sleep(RETRY_SECONDS)


async def _score(
    client: aiohttp.ClientSession, settings: Settings, request: ScoreRequest
) -> ScoreResponse:
    async with client.post(
        f"{settings.own_url}/internal/score",
        data=msgspec.json.encode(request),
        headers={
            "Authorization": f"Bearer {worker_token(settings)}",
            "Content-Type": "application/json",
        },
    ) as response:
        body = await response.read()
        if response.status < 300:  # noqa: PLR2004 - any success
            return msgspec.json.decode(body, type=ScoreResponse)
        detail = body.decode(errors="replace")[:500]
        if response.status in {404, 429} or response.status >= 500:  # noqa: PLR2004
            raise Unavailable(f"the server answered {response.status}: {detail}")
        raise AdapterRefused(f"the engine refused the adapter: {detail}")
