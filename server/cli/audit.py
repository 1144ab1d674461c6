"""``tenantune audit``."""

import sys
from datetime import datetime
from typing import get_args

import rich_click as click

from server.audit import service
from server.audit.actions import Group
from server.audit.schemas import Filter
from server.cli.console import EXIT_USAGE, App, command, fail, json_option, print_json, print_table
from server.cli.usage import DAY
from server.tenants import service as tenants


@click.command()
@click.option("--tenant", metavar="SLUG", help="Whose; the whole installation's when absent.")
@click.option("--by", default="", help="A part of the name of who did it, or the whole id.")
@click.option("--group", type=click.Choice(get_args(Group)), help="Only such actions.")
@click.option("--first", type=DAY, metavar="DAY", help="From this UTC day, as 2026-01-31.")
@click.option("--last", type=DAY, metavar="DAY", help="To this UTC day.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--csv", "as_csv", is_flag=True, help="All that matches as CSV, safe to open.")
@json_option
@command
async def audit(
    app: App,
    tenant: str | None,
    by: str,
    group: Group | None,
    first: datetime | None,
    last: datetime | None,
    limit: int,
    *,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Who did what, newest first."""
    if as_csv and as_json:
        fail("give either --csv or --json", code=EXIT_USAGE)
    matching = Filter(
        by=by,
        group=group,
        first=first.date() if first else None,
        last=last.date() if last else None,
    )
    async with app.database.reading() as session:
        tenant_id = (await tenants.get(session, tenant)).id if tenant else None
        if as_csv:
            found = await service.export(session, tenant_id, for_operator=True, matching=matching)
        else:
            found = await service.list_entries(
                session, tenant_id, for_operator=True, matching=matching, limit=limit
            )
    if as_csv:
        sys.stdout.write(service.to_csv(found).decode())
    elif as_json:
        print_json(found)
    else:
        rows = [(f"{v.created_at:%Y-%m-%d %H:%M}", v.tenant, v.text, v.address) for v in found]
        print_table("Audit log", ("when (UTC)", "tenant", "what", "from"), rows)
