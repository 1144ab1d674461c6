"""Whether the server is alive, whether it can answer, and its metrics.

Health is open to all, since nothing there is a secret. Metrics show how much is asked of all tenants
together, so they are for the operator and for the server's own network.
"""

import asyncio
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from litestar import Controller, Response, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from server.api.guards import needs
from server.db.session import Database
from server.engine.service import EngineService
from server.metrics import Metrics
from server.settings import Settings
from server.storage.blobs import BlobStore

DATABASE_SECONDS = 2.0
MIN_FREE_BYTES = 1 << 20  # enough for some of the database's transactions


_NEAR = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "::1/128",
        # private: RFC 1918, RFC 4193
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        # of one link: RFC 3927, RFC 4291
        "169.254.0.0/16",
        "fe80::/10",
    )
)
_operator = needs("operator")


async def operator_or_near(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A guard: lets in whatever comes from the own network, and the operator from anywhere.

    The address is the connection's. Behind a proxy on this machine it is the one that the proxy
    names in ``x-forwarded-for``, which uvicorn believes from loopback only.
    """
    if connection.client is None or not is_near(connection.client.host):
        await _operator(connection, handler)


operator_or_near.scope = "operator"  # type: ignore[attr-defined] # for the OpenAPI document
operator_or_near.open_nearby = True  # type: ignore[attr-defined]


def is_near(address: str) -> bool:
    """Whether an IP address is this machine's own, or of a private network; no other text is."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in _NEAR)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must be well; ``reason`` is for people."""

    ok: bool
    state: str
    reason: str | None = None


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are answered now, and if not, why."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class HealthController(Controller):
    """``/health`` and ``/metrics``."""

    @get("/health/live")
    async def live(self) -> dict[str, str]:
        """The process answers; nothing else is asked."""
        return {"status": "alive"}

    @get(
        "/health/ready",
        responses={503: ResponseSpec(Readiness, description="Not now; says why.")},
    )
    async def ready(
        self,
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Readiness]:
        """200 when chats are answered and what is sent can be kept, else 503 with the reasons."""
        written = {
            "the data folder": settings.home,
            "the database": database.folder,
            "uploads": blobs.folder,
        }
        checks = {
            "database": await _database(database),
            "disk": await asyncio.to_thread(_disk, written),
            "engine": _engine(engine),
        }
        ready = all(check.ok for check in checks.values())
        headers = {"cache-control": "no-store"}
        if not ready:
            headers["retry-after"] = "2"
        return Response(
            Readiness(status="ready" if ready else "not_ready", checks=checks),
            status_code=200 if ready else 503,
            headers=headers,
        )

    @get("/metrics", guards=[operator_or_near], opt={"responses": {"text/plain": str}})
    async def metrics(self, metrics: NamedDependency[Metrics]) -> Response[bytes]:
        """Figures for Prometheus. From a loopback or private address no key is needed."""
        content, content_type = metrics.render()
        # as a header: to a media type of text Litestar would add a second charset
        return Response(content, headers={"content-type": content_type})


async def _database(database: Database) -> Check:
    try:
        async with asyncio.timeout(DATABASE_SECONDS), database.reading() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError, TimeoutError) as exc:
        return Check(ok=False, state="unavailable", reason=type(exc).__name__)
    return Check(ok=True, state="available")


def _disk(written: Mapping[str, Path | None]) -> Check:
    """Whether there is space wherever this server writes.

    Args:
        written: folders by what is kept there; None where it is not on a local disk.
    """
    for what, folder in written.items():
        if folder is None:
            continue
        there = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            found = os.statvfs(there)
        except OSError as exc:
            return Check(ok=False, state="unavailable", reason=f"{what}: {exc.strerror}")
        if found.f_bavail * found.f_frsize < MIN_FREE_BYTES:
            return Check(ok=False, state="full", reason=f"no room is left for {what}")
        if found.f_files and not found.f_favail:  # 0 of 0 where files are not counted
            return Check(ok=False, state="full", reason=f"no more files fit for {what}")
    return Check(ok=True, state="available")


def _engine(engine: EngineService | None) -> Check:
    if engine is None:
        return Check(ok=False, state="absent", reason="this server runs no engine")
    if engine.draining:
        return Check(ok=False, state="stopping", reason="open answers finish, new ones are refused")
    status = engine.status
    return Check(ok=status.state == "ready", state=status.state, reason=status.detail or None)
