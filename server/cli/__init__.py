"""The ``tenantune`` command. Commands do by hand what the API does, through the same services."""

import rich_click as click

from server.cli.adapters import adapters, evaluate
from server.cli.audit import audit
from server.cli.bases import bases
from server.cli.console import RootGroup
from server.cli.demo.command import demo
from server.cli.doctor import doctor
from server.cli.jobs import jobs, train
from server.cli.people import people
from server.cli.tenants import keys, tenants
from server.cli.transcripts import transcripts
from server.cli.up import up
from server.cli.usage import usage
from server.cli.webhooks import webhooks
from server.cli.widget import widget
from server.settings import describe


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tenantune")
def main() -> None:
    """Tune a chat assistant per tenant on its own transcripts, prove it, and serve them all.

    Start with `tenantune up`. Settings are environment variables: see `tenantune settings`.
    """


@main.command("settings")
def list_settings() -> None:
    """Every environment variable, its default and what it does."""
    for variable, default, text in describe():
        click.echo(f"{variable}={default}\n    {text}")


for part in (
    up,
    demo,
    doctor,
    tenants,
    keys,
    people,
    usage,
    audit,
    webhooks,
    widget,
    transcripts,
    train,
    jobs,
    adapters,
    evaluate,
    bases,
):
    main.add_command(part)
