"""Curation: what is doubtful or wrong in the conversations, and what is learnt from.

It works without a script. With one, keys answer the question that is shown.
"""

from typing import Any, Literal, NamedTuple

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from connectors.conversation import Conversation
from server.curation import service
from server.curation.schemas import RULES, DecisionRequest, Flagged, Rules, Scan
from server.db.models import Tenant
from server.db.session import Database
from server.embeddings.service import EmbeddingService
from server.errors import Invalid
from server.settings import Settings
from server.tenants import service as tenants
from server.web.console.forms import read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import signed_in
from training.data.curation.flags import FLAG_TEXTS, FLAGS, Flag

SHOWN = 20  # conversations of a flag or a group on one page
_REVIEWER = [signed_in("reviewer")]
_ADMIN = [signed_in("admin")]
RULE_TEXTS = {
    "keep": "Learn from them",
    "leave_out": "Leave them out",
    "ask": "Leave out until a person keeps it",
}
FLAG_NAMES: dict[Flag, str] = {
    "no_reply": "No reply",
    "one_sided": "One-sided",
    "cut_off": "Cut off",
    "bot_only": "Only a bot",
    "auto_reply": "Automatic messages",
    "secret": "Secret in a reply",
}
DONE = {
    "scan": "The conversations were looked through.",
    "decided": "Decided. It holds for the next dataset version.",
    "rules": "The rules are saved. They hold for the next dataset version.",
    "kept": "The conversation is learnt from in the next dataset version.",
    "left": "The conversation is left out of the next dataset version.",
}


class Shown(NamedTuple):
    """Conversations that were asked for: of a flag, of a group, or one."""

    title: str
    total: int
    rows: list[tuple[str, Conversation, str]]


class CurationController(Controller):
    """Look, decide, and say what becomes of what was found."""

    include_in_schema = False
    path = "/console/t/{slug:str}/data/curation"
    guards = (signed_in("viewer"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        flag: FromQuery[str] = "",
        group: FromQuery[int] = 0,
        conversation: FromQuery[str] = "",
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """What was found; with a flag, a group or a conversation, its texts too."""
        async with database.reading() as session:
            view = await service.overview(session, tenant)
            asked = _asked(view.scan, flag=flag, group=group, conversation=conversation)
            shown = None
            if asked is not None:
                title, found = asked
                names = [each.conversation_id for each in found[:SHOWN]]
                texts = await service.read_conversations(session, tenant, names)
                rows = [
                    (each.conversation_id, texts[each.conversation_id], each.why)
                    for each in found[:SHOWN]
                    if each.conversation_id in texts
                ]
                shown = Shown(title, len(found), rows)
        return await page(
            request,
            "data/curation.html",
            view=view,
            flags=FLAGS,
            flag_names=FLAG_NAMES,
            flag_texts=FLAG_TEXTS,
            rules=msgspec.to_builtins(view.rules),
            rule_texts=RULE_TEXTS,
            shown=shown,
            most=service.MAX_CONVERSATIONS,
            done=DONE.get(done, ""),
        )

    @post("/scan", guards=_REVIEWER)
    async def look(
        self,
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        embeddings: NamedDependency[EmbeddingService],
    ) -> Response[Any]:
        """Look through the conversations now."""
        await service.scan_now(database, tenant.slug, settings=settings, embeddings=embeddings)
        return _back(tenant, "scan")

    @post("/decide", guards=_REVIEWER)
    async def decide(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Remember a decision, and go on to the next doubt."""
        form = await read_form(request)
        form.pop("csrf_token", None)
        fields = {name: form.get(name, "") for name in ("rule", "text", "decision", "masked")}
        fields["entity_type"] = form.get("entity_type", "NAME")
        try:
            wanted = msgspec.convert(fields, DecisionRequest)
        except msgspec.ValidationError as exc:
            raise Invalid("Choose whether the text is replaced, stays, or a part of it.") from exc
        async with database.transaction() as session:
            await service.decide(session, await tenants.get(session, tenant.slug), wanted)
        return _back(tenant, "decided")

    @post("/rules", guards=_ADMIN)
    async def change_rules(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Save what becomes of conversations with each flag."""
        form = await read_form(request)
        wanted = {flag: form[flag] for flag in FLAGS if form.get(flag) in RULES}
        async with database.transaction() as session:
            row = await tenants.get(session, tenant.slug)
            before = msgspec.to_builtins(service.rules_of(row))
            service.set_rules(session, row, msgspec.convert({**before, **wanted}, Rules))
        return _back(tenant, "rules")

    @post("/conversations/{conversation_id:str}", guards=_REVIEWER)
    async def choose(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        conversation_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Keep one conversation, or leave it out, whatever the rules say."""
        keep = (await read_form(request)).get("keep") == "yes"
        async with database.transaction() as session:
            await service.choose(
                session, await tenants.get(session, tenant.slug), conversation_id, keep=keep
            )
        return _back(tenant, "kept" if keep else "left")


def _asked(
    scan: Scan | None, *, flag: str, group: int, conversation: str
) -> tuple[str, list[Flagged]] | None:
    """What is to be shown, and of which conversations; None where nothing was asked for."""
    if conversation:
        return "The conversation", [Flagged(conversation, None, "")]
    if scan is None:
        return None
    if flag in FLAGS:
        return FLAG_NAMES[flag], scan.flags.get(flag, [])
    if 0 < group <= len(scan.groups):
        names = scan.groups[group - 1]
        return "Nearly the same question", [Flagged(name, None, "") for name in names]
    return None


def _back(
    tenant: Tenant, done: Literal["scan", "decided", "rules", "kept", "left"]
) -> Response[Any]:
    return see_other(f"/console/t/{tenant.slug}/data/curation?done={done}")
