"""``tenantune curation``."""

from typing import Any

import msgspec
import rich_click as click

from server.cli.console import (
    EXIT_USAGE,
    App,
    command,
    fail,
    json_option,
    print_json,
    print_message,
    print_table,
    tenant_option,
)
from server.cli.encoder import own_encoder
from server.cli.options import convert_options
from server.curation import service
from server.curation.schemas import RULES, DecisionRequest, Rules
from server.tenants import service as tenants
from training.data.curation.flags import FLAG_TEXTS, FLAGS

SHOWN = 30  # doubts and contradictions of a table; --json has all


@click.group()
def curation() -> None:
    """What is doubtful or wrong in the conversations, and what is learnt from."""


@curation.command("scan")
@tenant_option
@json_option
@command
async def look(app: App, tenant: str, *, as_json: bool) -> None:
    """Look through the conversations: doubtful personal data, flags, contradictions."""
    async with own_encoder(app) as embeddings:
        await service.scan_now(app.database, tenant, settings=app.settings, embeddings=embeddings)
    await _show(app, tenant, as_json=as_json)


@curation.command("show")
@tenant_option
@json_option
@command
async def show(app: App, tenant: str, *, as_json: bool) -> None:
    """What the last scan found, without what has been decided since."""
    await _show(app, tenant, as_json=as_json)


@curation.command("decide")
@click.argument("text")
@click.argument("decision", type=click.Choice(["approve", "reject", "edit"]))
@click.option("--rule", required=True, help="By which it was found, as `show` says.")
@click.option("--masked", default="", metavar="PART", help="Of edit: what of it is replaced.")
@click.option("--kind", default="NAME", show_default=True, help="What it is: NAME, ADDRESS.")
@tenant_option
@command
async def decide(
    app: App, text: str, decision: str, rule: str, masked: str, kind: str, tenant: str
) -> None:
    """Replace a doubtful text from now on (approve), leave it (reject), or replace a part (edit)."""
    fields = {"text": text, "decision": decision, "rule": rule, "masked": masked}
    request = convert_options(DecisionRequest, {**fields, "entity_type": kind})
    async with app.transaction() as session:
        await service.decide(session, await tenants.get(session, tenant), request)
    print_message("decided: ", (decision, "bold"), "; it holds for the next dataset version")


@curation.command("rules")
@click.option(
    "--set", "items", multiple=True, metavar="FLAG=RULE", help=f"RULE: {', '.join(RULES)}."
)
@tenant_option
@json_option
@command
async def change_rules(app: App, items: tuple[str, ...], tenant: str, *, as_json: bool) -> None:
    """What becomes of flagged conversations in the next dataset version."""
    wanted = dict(item.partition("=")[::2] for item in items)
    for flag, rule in wanted.items():
        if flag not in FLAGS or rule not in RULES:
            fail(
                f"'{flag}={rule}': give one of {', '.join(FLAGS)} and one of {', '.join(RULES)}",
                code=EXIT_USAGE,
            )
    async with app.transaction() as session:
        row = await tenants.get(session, tenant)
        before: dict[str, Any] = msgspec.to_builtins(service.rules_of(row))
        rules = msgspec.convert({**before, **wanted}, Rules)
        service.set_rules(session, row, rules)
    if as_json:
        print_json(rules)
        return
    after = msgspec.to_builtins(rules)
    rows = [(flag, after[flag], FLAG_TEXTS[flag]) for flag in FLAGS]
    print_table("Rules", ("flag", "rule", "what it means"), rows)


async def _show(app: App, slug: str, *, as_json: bool) -> None:
    async with app.database.reading() as session:
        view = await service.overview(session, await tenants.get(session, slug))
    if as_json:
        print_json(view)
        return
    if view.scan is None:
        print_message("nothing looked through yet: run `tenantune curation scan`")
        return
    doubts = [(one.text, one.rule, str(one.count)) for one in view.scan.doubts[:SHOWN]]
    print_table("Doubtful", ("text", "rule", "times"), doubts)
    rules = msgspec.to_builtins(view.rules)
    flags = [(flag, str(len(view.scan.flags.get(flag, []))), rules[flag]) for flag in FLAGS]
    print_table("Flags", ("flag", "conversations", "rule"), flags)
    different = [
        (one.question[:60], " / ".join(", ".join(each.facts) for each in one.statements))
        for one in view.scan.contradictions[:SHOWN]
    ]
    print_table("Contradictions, newest first", ("question", "replies say"), different)
