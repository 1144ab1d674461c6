"""Requests that create something have their effect once, however often a client repeats them.

**With the header ``Idempotency-Key``** (1 to 255 printable characters; each API key has its own
keys): the same request within 24 hours gets the stored answer again, with the header
``idempotent-replayed: true``; another request under the same key is a 409
``idempotency_key_reused``. A request that failed leaves no record, so that repeating it tries again.

**Without it**, where a second object would cost money (files, fine-tuning jobs), a repetition is
recognised by its content: the same API key, method, path and body (of a form: its fields and its
file, not its boundary).

- ``x-stainless-retry-count: 1`` or more (OpenAI's clients, trying again): it repeats a request that
  was answered within the last 10 minutes.
- no such header (curl --retry): it repeats one that was answered within the last 60 seconds.
- ``x-stainless-retry-count: 0``: a first try, so a new request, unless a repetition of it overtook
  it and did its work after it arrived.

An object that has been deleted meanwhile is made again.
"""

import datetime
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from server import idempotency
from server.api.guards import provide_principal
from server.db.models import now
from server.db.session import Database
from server.errors import Conflict, Invalid
from server.tenants import service as tenants

T = TypeVar("T")
KEY_LENGTH = 255
KEEP = datetime.timedelta(hours=24)
# of what is done once, for the OpenAPI document
KEY_PARAMETER = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "description": "The same request under the same key within 24 hours is given the same answer.",
    "schema": {"type": "string", "maxLength": KEY_LENGTH, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
RETRY_WINDOW = datetime.timedelta(minutes=10)  # both official clients give up long before
PLAIN_WINDOW = datetime.timedelta(seconds=60)


def digest_of(*parts: bytes | str) -> str:
    """A hash that is equal for the same parts in the same order only."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()


async def once(
    request: Request[Any, Any, Any],
    database: Database,
    work: Callable[[AsyncSession], Awaitable[T]],
    *,
    digest: str,
    began: datetime.datetime | None = None,
    guess: bool = False,
    exists: Callable[[AsyncSession, str], Awaitable[bool]] | None = None,
) -> Response[T]:
    """Do a request's work in one transaction with the record of it, or give its answer again.

    Args:
        request: the caller's, authenticated, with a tenant.
        database: where ``work`` and its record are committed.
        work: makes the object in the session that it is given and returns OpenAI's object for it
            (anything that msgspec encodes). Not called for a repetition. Slow things (reading the
            body, storing bytes) come before; what must follow the commit comes after.
        digest: of everything that the request asks for; method and path are added here.
        began: when the request arrived, where something slow came before this.
        guess: also recognise repetitions without a key (see above).
        exists: whether the object of an id still exists; asked before a guessed repetition gets
            the stored answer.

    Raises:
        Conflict: the idempotency key was used for another request.
        InProgress: the same request is still running.
        NotFound: the tenant is gone.
        Invalid: the idempotency key is not well-formed.
        Exception: what ``work`` raises; nothing is committed then.
    """
    principal = provide_principal(request)
    tenant_id = principal.require_tenant()
    began = began or now()
    key = _key(request)
    retries = _retries(request)
    digest = digest_of(request.method, request.url.path, digest)
    if key is None and not guess:
        async with database.transaction() as session:
            await tenants.get_by_id(session, tenant_id)  # it may have gone while the body came
            return _answer(msgspec.json.encode(await work(session)))
    name = f"guessed:{principal.key_id}:{digest}"
    if key is not None:
        name = f"key:{principal.key_id}:{key}"
    async with database.transaction() as session:
        row = await idempotency.claim(session, tenant_id, name=name, request_sha256=digest)
        if row.request_sha256 != digest:
            raise Conflict(
                f"The Idempotency-Key '{key}' was used for another request.",
                code="idempotency_key_reused",
            )
        if row.answer is not None and (
            key is not None or await _is_same(session, row.answer, retries, began, exists)
        ):
            return _answer(row.answer["body"].encode(), replayed=True)
        body = msgspec.json.encode(await work(session))
        idempotency.record(
            row,
            status=200,
            body=body,
            keep=RETRY_WINDOW if key is None else KEEP,
            was_repeat=bool(retries),
        )
        return _answer(body)


async def _is_same(
    session: AsyncSession,
    answer: dict[str, Any],
    retries: int | None,
    began: datetime.datetime,
    exists: Callable[[AsyncSession, str], Awaitable[bool]] | None,
) -> bool:
    """Whether a request without a key, equal to one that was answered, is a repetition of it."""
    at = datetime.datetime.fromtimestamp(answer["at"], datetime.UTC)
    match retries:
        case None:
            same = now() - at <= PLAIN_WINDOW
        case 0:
            same = answer["was_repeat"] and at >= began
        case _:
            same = now() - at <= RETRY_WINDOW
    if same and exists is not None:
        same = await exists(session, msgspec.json.decode(answer["body"])["id"])
    return same


def _key(request: Request[Any, Any, Any]) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not (1 <= len(key) <= KEY_LENGTH and key.isascii() and key.isprintable()):
        raise Invalid(
            f"The header Idempotency-Key must be 1 to {KEY_LENGTH} printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key


def _retries(request: Request[Any, Any, Any]) -> int | None:
    """How often an OpenAI client has tried before; None for a client that does not say."""
    text = request.headers.get("x-stainless-retry-count", "")
    return int(text) if text.isdecimal() and text.isascii() else None


def _answer(body: bytes, *, replayed: bool = False) -> Response[Any]:
    headers = {"idempotent-replayed": "true"} if replayed else {}
    return Response(body, status_code=200, media_type="application/json", headers=headers)
