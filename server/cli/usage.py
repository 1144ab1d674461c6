"""``tenantune usage``."""

import sys
from datetime import datetime

import rich_click as click

from server.cli.console import EXIT_USAGE, App, command, fail, json_option, print_json, print_table
from server.tenants import service as tenants
from server.usage.report import COLUMNS, DIMENSIONS, Dimension, to_csv, usage_of

DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--tenant", metavar="SLUG", help="Whose; every tenant's when absent.")
@click.option("--first", type=DAY, metavar="DAY", help="From this UTC day, as 2026-01-31.")
@click.option("--last", type=DAY, metavar="DAY", help="To this UTC day.")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(DIMENSIONS),
    help="What to tell apart, once or several times; all three when absent.",
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV on standard output, safe to open.")
@json_option
@command
async def usage(
    app: App,
    tenant: str | None,
    first: datetime | None,
    last: datetime | None,
    by: tuple[Dimension, ...],
    *,
    as_csv: bool,
    as_json: bool,
) -> None:
    """What tenants used: requests, tokens, and seconds of the engine and of training."""
    if as_csv and as_json:
        fail("give either --csv or --json", code=EXIT_USAGE)
    async with app.database.reading() as session:
        tenant_id = (await tenants.get(session, tenant)).id if tenant else None
        rows = await usage_of(
            session,
            tenant_id,
            by=by or DIMENSIONS,
            first=first.date() if first else None,
            last=last.date() if last else None,
        )
    if as_json:
        print_json(rows)
    elif as_csv:
        sys.stdout.write(to_csv(rows))
    else:
        cells = [[getattr(row, column) for column in COLUMNS] for row in rows]
        print_table("Usage", [column.replace("_", " ") for column in COLUMNS], cells)
