"""``tenantune settings``: what may be configured."""

import rich_click as click

from server.settings import describe


@click.command("settings")
def list_settings() -> None:
    """Every environment variable, its default and what it does."""
    for variable, default, text in describe():
        click.echo(f"{variable}={default}\n    {text}")
