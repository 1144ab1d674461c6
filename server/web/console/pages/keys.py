"""API keys: a tenant's for its admins, and the installation's own for operators, by the same pages.

A key is shown once, on the page that answers the form; only its hash is kept. Each change has a page of
its own that says what happens.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.actors import actor_names
from server.accounts.schemas import Viewer
from server.auth import keys, listing
from server.auth.listing import Key
from server.auth.schemas import RotateRequest
from server.db.models import ApiKey, Tenant
from server.db.session import Database
from server.errors import Conflict, NotFound
from server.settings import Settings
from server.web.console.downloads import csv_of_all
from server.web.console.forms import read_form, see_other
from server.web.console.navigation import address_of_page
from server.web.console.pages.keys_form import (
    AS_BEFORE,
    EMPTY,
    LIMITS,
    KeyForm,
    expiry_choices,
    read_expiry,
    read_key_form,
    scope_choices,
)
from server.web.console.rendering import page, utc
from server.web.console.session import own_origin, signed_in

OVERLAPS = {
    "0": "Not at all: the old one is known to others",
    "3600": "An hour",
    "86400": "A day",
    "604800": "A week",
    "2592000": "30 days",
}
DEFAULT_OVERLAP = "86400"


class Snippets(NamedTuple):
    """A first request with a key: for a shell, and in Python."""

    curl: str
    python: str


class _KeyPages(Controller):
    """What both kinds of keys have; where the path has no tenant they are the operators'."""

    include_in_schema = False

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        after: FromQuery[str | None] = None,
        show: FromQuery[str] = "",
        done: FromQuery[str] = "",
        key: FromQuery[str] = "",
    ) -> Response[str]:
        """The keys, newest first; those that ended only with ``show=all``."""
        tenant, base = _where(request)
        every = show == "all"
        async with database.reading() as session:
            found = await listing.list_keys(
                session, tenant, working=not every, limit=listing.PAGE + 1, after=after
            )
            names = await actor_names(session, [row.actor for row in found])
            any_key = found or await listing.list_keys(session, tenant, limit=1)
            toast = None
            if done in ("revoked", "restored"):
                try:
                    toast = await listing.get_key(session, key, tenant)
                except NotFound:
                    toast = None
        rows = found[: listing.PAGE]
        return await page(
            request,
            "keys/list.html",
            rows=rows,
            names=names,
            base=base,
            every=every,
            is_empty=not any_key,
            first_page=after is None,
            newer=f"{base}{'?show=all' if every else ''}" if after is not None else None,
            older=f"{base}?{'show=all&' if every else ''}after={rows[-1].id}"
            if len(found) > len(rows)
            else None,
            changed=toast,
            can_restore=toast is not None
            and toast.revoked_at is not None
            and keys.is_restorable(toast.revoked_at),
            widget_page=address_of_page("Widget", tenant) if tenant else "",
        )

    @get("/new")
    async def new(self, request: Request[Any, Any, Any]) -> Response[str]:
        """The form for another key."""
        return await _form_page(request, EMPTY)

    @post()
    async def create(
        self,
        request: Request[Any, Any, Any],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Make a key and show it, this once; or show the form again with what is wrong."""
        tenant, _ = _where(request)
        asked, form = read_key_form(await read_form(request), is_operators=tenant is None)
        if asked is None:
            return await _form_page(request, form)
        async with database.transaction() as session:
            raw, row = await keys.create(session, asked, tenant=tenant, actor=viewer.actor)
        return await _made_page(request, database, settings, raw, row)

    @get("/keys.csv")
    async def csv(
        self, request: Request[Any, Any, Any], database: NamedDependency[Database]
    ) -> Stream:
        """Every key, those that ended too, a line each."""
        tenant, _ = _where(request)

        async def read(
            session: AsyncSession, limit: int, last: tuple[Key, str] | None
        ) -> list[tuple[Key, str]]:
            after = last[0].id if last else None
            found = await listing.list_keys(session, tenant, limit=limit, after=after)
            names = await actor_names(session, [key.actor for key in found])
            return [(key, names[key.actor]) for key in found]

        name = tenant.slug if tenant else "operator"
        return await csv_of_all(database, read, _to_csv, f"{name}-keys.csv")

    @get("/{key_id:str}/rotate")
    async def ask_to_rotate(
        self,
        request: Request[Any, Any, Any],
        key_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask for how long the old key is to work, before there is a new one."""
        return await _rotate_page(request, database, key_id)

    @post("/{key_id:str}/rotate")
    async def rotate(
        self,
        request: Request[Any, Any, Any],
        key_id: FromPath[str],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """Replace a key and show the new one, this once."""
        tenant, _ = _where(request)
        form = await read_form(request)
        errors: dict[str, str] = {}
        overlap = form.get("overlap", DEFAULT_OVERLAP)
        if overlap not in OVERLAPS:
            errors["overlap"] = "Choose how long the old one works."
        expires_at: Any = msgspec.UNSET
        if form.get("expires", AS_BEFORE) != AS_BEFORE:
            try:
                expires_at = read_expiry(form)
            except ValueError as exc:
                errors["day"] = str(exc)
        if errors:
            return await _rotate_page(request, database, key_id, KeyForm(form, errors))
        asked = RotateRequest(overlap_seconds=int(overlap), expires_at=expires_at)
        try:
            async with database.transaction() as session:
                raw, row = await keys.rotate(
                    session, key_id, asked, tenant=tenant, actor=viewer.actor
                )
        except Conflict as exc:
            return await _rotate_page(request, database, key_id, KeyForm(form, {"": exc.message}))
        return await _made_page(request, database, settings, raw, row)

    @get("/{key_id:str}/revoke")
    async def ask_to_revoke(
        self,
        request: Request[Any, Any, Any],
        key_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Say what stops working, and ask once more."""
        tenant, base = _where(request)
        async with database.reading() as session:
            key = await listing.get_key(session, key_id, tenant)
        return await page(
            request,
            "keys/revoke.html",
            key=key,
            base=base,
            minutes=int(keys.RESTORABLE.total_seconds() // 60),
        )

    @post("/{key_id:str}/revoke")
    async def revoke(
        self,
        request: Request[Any, Any, Any],
        key_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Make a key useless from now on."""
        tenant, base = _where(request)
        async with database.transaction() as session:
            await keys.revoke(session, key_id, tenant=tenant)
        return see_other(f"{base}?done=revoked&key={key_id}")

    @post("/{key_id:str}/restore")
    async def restore(
        self,
        request: Request[Any, Any, Any],
        key_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Take back that a key was revoked, shortly after."""
        tenant, base = _where(request)
        async with database.transaction() as session:
            await keys.restore(session, key_id, tenant=tenant)
        return see_other(f"{base}?done=restored&key={key_id}")


class KeysController(_KeyPages):
    """A tenant's keys."""

    path = "/console/t/{slug:str}/keys"
    guards = (signed_in("admin"),)


class OperatorKeysController(_KeyPages):
    """The installation's keys, which may do everything for every tenant."""

    path = "/console/keys"
    guards = (signed_in("operator"),)


def _to_csv(keys: Sequence[tuple[Key, str]]) -> bytes:
    return listing.to_csv([key for key, _ in keys], {key.actor: name for key, name in keys})


def _where(request: Request[Any, Any, Any]) -> tuple[Tenant | None, str]:
    """Whose keys these are, None for the operators', and where their pages are."""
    tenant: Tenant | None = request.state.get("tenant")
    return tenant, f"/console/t/{tenant.slug}/keys" if tenant else "/console/keys"


async def _form_page(request: Request[Any, Any, Any], form: KeyForm) -> Response[str]:
    """The form; with errors it is an answer of 422."""
    _, base = _where(request)
    return await page(
        request,
        "keys/new.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK,
        form=form,
        base=base,
        scopes=scope_choices(),
        expiries=expiry_choices(),
        limits=LIMITS,
        limits_open=any(form.values.get(name) for name in LIMITS),
    )


async def _rotate_page(
    request: Request[Any, Any, Any],
    database: Database,
    key_id: str,
    form: KeyForm | None = None,
) -> Response[str]:
    """The question; with errors it is an answer of 422, where the key cannot be rotated of 409."""
    tenant, base = _where(request)
    async with database.reading() as session:
        key = await listing.get_key(session, key_id, tenant)
    errors = form.errors if form else {}
    status = HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK
    expires = key.expires_at
    return await page(
        request,
        "keys/rotate.html",
        status=HTTPStatus.CONFLICT if "" in errors else status,
        key=key,
        base=base,
        values=form.values if form else {},
        errors=errors,
        overlaps=[{"value": value, "name": name} for value, name in OVERLAPS.items()],
        overlap=DEFAULT_OVERLAP,
        expiries=expiry_choices(as_before=f"As the old one: {utc(expires)} UTC" if expires else ""),
    )


async def _made_page(
    request: Request[Any, Any, Any], database: Database, settings: Settings, raw: str, row: ApiKey
) -> Response[str]:
    """A new key, this once, with a first request that can be tried at once."""
    tenant, base = _where(request)
    async with database.reading() as session:
        made = await listing.get_key(session, row.id, tenant)
        old = None
        if row.replaces_id:
            old = await listing.get_key(session, row.replaces_id, tenant)
    url = settings.public_url or own_origin(request)
    return await page(
        request,
        "keys/made.html",
        status=HTTPStatus.CREATED,
        secret=raw,
        key=made,
        old=old,
        base=base,
        snippets=_snippets(url.rstrip("/"), raw, row, tenant),
    )


def _snippets(url: str, raw: str, row: ApiKey, tenant: Tenant | None) -> Snippets:
    """A request that this key may make: an answer, or a list of what it may see."""
    if tenant is not None and ("chat" in row.scopes or "admin" in row.scopes):
        body = f'{{"model": "{tenant.slug}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        return Snippets(
            f"curl {url}/v1/chat/completions \\\n"
            f"  -H 'Authorization: Bearer {raw}' \\\n"
            f"  -H 'Content-Type: application/json' \\\n"
            f"  -d '{body}'",
            f"from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{url}/v1", api_key="{raw}")\n'
            f"answer = client.chat.completions.create(\n"
            f'    model="{tenant.slug}",\n'
            f'    messages=[{{"role": "user", "content": "Hello"}}],\n'
            f")\n"
            f"print(answer.choices[0].message.content)",
        )
    if tenant is not None:
        return Snippets(
            f"curl {url}/v1/fine_tuning/jobs \\\n  -H 'Authorization: Bearer {raw}'",
            f"from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{url}/v1", api_key="{raw}")\n'
            f"for job in client.fine_tuning.jobs.list():\n"
            f"    print(job.id, job.status)",
        )
    return Snippets(
        f"curl {url}/admin/tenants \\\n  -H 'Authorization: Bearer {raw}'",
        f"import json\nfrom urllib.request import Request, urlopen\n\n"
        f'request = Request("{url}/admin/tenants", headers={{"Authorization": "Bearer {raw}"}})\n'
        f"for tenant in json.load(urlopen(request)):\n"
        f'    print(tenant["slug"], tenant["name"])',
    )
