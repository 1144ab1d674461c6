"""The page "Set up a company": a new tenant, the first of the four steps to an assistant. For operators."""

import re
import unicodedata
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency

from server.db.session import Database
from server.errors import Conflict
from server.settings import Settings
from server.tenants import service
from server.tenants.schemas import SLUG_PATTERN, TenantRequest
from server.web.console.forms import read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import signed_in

PATH = "/console/tenants/new"
MAX_NAME, MAX_SLUG, MAX_PROMPT = 200, 40, 20_000  # characters, as in TenantRequest


class NewTenantController(Controller):
    """Adds a tenant."""

    include_in_schema = False
    path = PATH
    guards = [signed_in("operator")]  # noqa: RUF012 - Litestar's own

    @get()
    async def ask(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """The form."""
        return await _form_page(request, {}, {})

    @post()
    async def create(
        self,
        request: Request[Any, Any, Any],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Add it and go to its home, or show the form again with what is wrong."""
        form = {name: value.strip() for name, value in (await read_form(request)).items()}
        name, prompt = form.get("name", ""), form.get("system_prompt", "")
        slug = form.get("slug", "") or slug_of(name)
        if errors := _errors(name, slug, prompt):
            return await _form_page(request, form, errors)
        asked = msgspec.convert(
            {"slug": slug, "name": name, "system_prompt": prompt}, type=TenantRequest
        )
        try:
            async with database.transaction() as session:
                await service.create(session, asked, reserved={settings.base})
        except Conflict:
            taken = {"slug": f"'{slug}' is taken: choose another short name."}
            return await _form_page(request, {**form, "slug": slug}, taken, HTTPStatus.CONFLICT)
        return see_other(f"/console/t/{slug}")


def slug_of(name: str) -> str:
    """A short name for addresses, made of a company's: ``Lumen & Loaf`` is ``lumen-loaf``.

    Empty, or too short to be taken, where the name has too few Latin letters.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG].rstrip("-")


def _errors(name: str, slug: str, prompt: str) -> dict[str, str]:
    errors = {}
    if not name:
        errors["name"] = "Say what the company is called."
    elif len(name) > MAX_NAME:
        errors["name"] = f"Use {MAX_NAME} characters at most."
    elif not re.fullmatch(SLUG_PATTERN, slug) or len(slug) > MAX_SLUG:
        errors["slug"] = (
            f"Use 2 to {MAX_SLUG} lower-case letters and digits, with single dashes between them."
        )
    if len(prompt) > MAX_PROMPT:
        errors["system_prompt"] = f"Use {MAX_PROMPT:,} characters at most."
    return errors


async def _form_page(
    request: Request[Any, Any, Any],
    form: dict[str, str],
    errors: dict[str, str],
    status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY,
) -> Response[Any]:
    """The form; with errors it is an answer of ``status``."""
    return await page(
        request,
        "home/new.html",
        status=status if errors else HTTPStatus.OK,
        form=form,
        errors=errors,
        path=PATH,
        most={"name": MAX_NAME, "slug": MAX_SLUG, "system_prompt": MAX_PROMPT},
    )
