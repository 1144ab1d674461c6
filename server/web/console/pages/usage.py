"""What tenants use, and their limits: of one tenant for its people, of all for operators.

Limits are the operator's to change, here as in the API: they keep a tenant from taking what others need.
"""

from datetime import date, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from server.auth import keys
from server.db.models import Tenant, now
from server.db.session import Database
from server.limits.limiter import RateLimiter
from server.settings import Settings
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch
from server.usage import overview
from server.usage.ledger import UsageLedger
from server.usage.overview import Use
from server.usage.report import to_csv, usage_of
from server.web.console.downloads import csv_file
from server.web.console.figures import duration, number
from server.web.console.forms import read_form, see_other
from server.web.console.pages.usage_form import LimitsForm, read_limits_form, stored_form
from server.web.console.pages.usage_view import (
    DAYS,
    DEFAULT_DAYS,
    MEASURES,
    Meter,
    day_links,
    draw,
    in_words,
    limit_rows,
    measure_links,
    meters,
    nearest,
    sentence,
    unlimited,
)
from server.web.console.rendering import page
from server.web.console.session import signed_in

TENANTS_MOST = 50
ALL_PATH = "/console/usage"
DONE = {"limits": "The limits are changed. They hold from the next request on."}


class TenantUse(NamedTuple):
    """A tenant in the list of all."""

    slug: str
    name: str
    use: Use
    nearest: Meter | None


class TenantUsageController(Controller):
    """What a tenant used, how near its limits are, and what they are."""

    include_in_schema = False
    path = "/console/t/{slug:str}/usage"
    guards = (signed_in("viewer"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        limiter: NamedDependency[RateLimiter],
        settings: NamedDependency[Settings],
        days: FromQuery[str | None] = None,
        measure: FromQuery[str] = "tokens",
    ) -> Response[str]:
        """The days, the models, the keys, the limits."""
        chosen = _days(days)
        measure = measure if measure in MEASURES else "tokens"
        await ledger.try_flush()
        first, last = _first_and_last(chosen)
        async with database.reading() as session:
            seen = await overview.of_one(session, tenant, first=first, last=last)
            found = await keys.list_for(session, tenant)
        near = (await limiter.now({tenant.id: tenant.limits}))[tenant.id]
        moment = now()
        return await page(
            request,
            "usage/tenant.html",
            seen=seen,
            plot=draw(seen, measure),
            said=sentence(seen, measure),
            measure=MEASURES[measure],
            measures=measure_links(measure, chosen),
            days=chosen,
            day_choice=day_links(chosen, f"&measure={measure}"),
            meters=meters(near),
            unlimited=unlimited(settings.limits if tenant.limits is None else tenant.limits),
            limited_keys=[
                (key.label or f"{key.prefix}…", in_words(key.limits))
                for key in found
                if key.limits is not None
                and key.revoked_at is None
                and (key.expires_at is None or key.expires_at > moment)
            ],
            number=number,
            duration=duration,
            done=DONE.get(request.query_params.get("done", ""), ""),
        )

    @get("/usage.csv")
    async def csv(
        self,
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        days: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """The same days by day, model and key, as the API has them."""
        await ledger.try_flush()
        first, last = _first_and_last(_days(days))
        async with database.reading() as session:
            rows = await usage_of(session, tenant.id, first=first, last=last)
        return csv_file(to_csv(rows).encode(), f"{tenant.slug}-usage.csv")

    @get("/limits", guards=[signed_in("operator")])
    async def edit(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """The form of the limits."""
        return await _form_page(request, settings, stored_form(tenant.limits, settings.limits))

    @post("/limits", guards=[signed_in("operator")])
    async def save(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Change the limits, or show the form again with what is wrong."""
        limits, form = read_limits_form(await read_form(request))
        if form.errors:
            return await _form_page(request, settings, form)
        async with database.transaction() as session:
            await tenants.update(session, tenant.slug, TenantPatch(limits=limits))
        return see_other(f"/console/t/{tenant.slug}/usage?done=limits")


class AllUsageController(Controller):
    """What every tenant used, side by side."""

    include_in_schema = False
    path = ALL_PATH
    guards = (signed_in("operator"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        limiter: NamedDependency[RateLimiter],
        settings: NamedDependency[Settings],
        days: FromQuery[str | None] = None,
        after: FromQuery[str | None] = None,
    ) -> Response[str]:
        """Tenants by name; ``after`` is the slug of the last one on the page before."""
        chosen = _days(days)
        await ledger.try_flush()
        first, last = _first_and_last(chosen)
        async with database.reading() as session:
            uses = await overview.of_all(session, first=first, last=last)
            found = await tenants.list_for(session, None, limit=TENANTS_MOST + 1, after=after)
        shown = found[:TENANTS_MOST]
        near = await limiter.now({tenant.id: tenant.limits for tenant in shown})
        return await page(
            request,
            "usage/all.html",
            rows=[
                TenantUse(
                    tenant.slug,
                    tenant.name,
                    uses.get(tenant.slug, Use()),
                    nearest(near[tenant.id]),
                )
                for tenant in shown
            ],
            total=overview.add_up(uses.values()),
            first=first,
            days=chosen,
            day_choice=day_links(chosen),
            next_slug=shown[-1].slug if len(found) > len(shown) else None,
            is_first_page=after is None,
            limits=in_words(settings.limits),
            number=number,
            duration=duration,
        )

    @get("/usage.csv")
    async def csv(
        self,
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        days: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """The same days by tenant, day and model."""
        await ledger.try_flush()
        first, last = _first_and_last(_days(days))
        async with database.reading() as session:
            rows = await usage_of(session, None, by=["day", "model"], first=first, last=last)
        return csv_file(to_csv(rows).encode(), "usage.csv")


async def _form_page(
    request: Request[Any, Any, Any], settings: Settings, form: LimitsForm
) -> Response[str]:
    """The form; with errors it is an answer of 422."""
    return await page(
        request,
        "usage/limits.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK,
        form=form,
        defaults=limit_rows(settings.limits),
        default_words=in_words(settings.limits),
    )


def _days(text: str | None) -> int:
    """How many days are looked at; what is no choice is the usual one."""
    return next((days for days in DAYS if str(days) == text), DEFAULT_DAYS)


def _first_and_last(days: int) -> tuple[date, date]:
    today = now().date()
    return today - timedelta(days=days - 1), today
