"""Curation: what is doubtful or wrong in the conversations, and what is learnt from.

It works without a script. With one, keys answer the question that is shown.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.conversation import Conversation
from server.curation import service
from server.curation.schemas import (
    RULES,
    ConversationLabels,
    DecisionRequest,
    Flagged,
    Rules,
    Scan,
)
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
from training.data.curation.languages import UNKNOWN

ALL = "all"  # languages
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
    "toxic": "Insult in a reply",
}
DONE = {
    "scan": "The conversations were looked through.",
    "decided": "Decided. It holds for the next dataset version.",
    "rules": "The rules are saved. They hold for the next dataset version.",
    "kept": "The conversation is learnt from in the next dataset version.",
    "left": "The conversation is left out of the next dataset version.",
}


class Asked(NamedTuple):
    """Which conversations are to be shown. ``query``: what asks for them, for links."""

    title: str
    query: str
    found: list[Flagged]


class Row(NamedTuple):
    """A conversation that is shown: why, in words, and its languages, where it was looked through.

    ``turn``: the message that shows why, where one does.
    """

    id: str
    conversation: Conversation
    why: str
    turn: int | None
    labels: ConversationLabels | None


class Shown(NamedTuple):
    """A part of the conversations that were asked for.

    ``languages``: links to those in one language, where there are several; ``language``: the one that was
    asked for. ``start``: how many come before ``rows``, of ``total``.
    """

    title: str
    query: str
    languages: list[dict[str, str | bool]]
    language: str
    start: int
    total: int
    rows: list[Row]


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
        topic: FromQuery[int] = 0,
        conversation: FromQuery[str] = "",
        language: FromQuery[str] = "",
        start: FromQuery[Annotated[int, Meta(ge=0)]] = 0,
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """What was found; with a flag, a group, a topic, a language or a conversation, its texts too."""
        shown = None
        async with database.reading() as session:
            view = await service.overview(session, tenant)
            if flag or group or topic or conversation or language:
                labels = await service.read_labels(session, tenant)
                asked = _asked(
                    view.scan,
                    labels,
                    flag=flag,
                    group=group,
                    topic=topic,
                    conversation=conversation,
                )
                shown = await _show(
                    session, tenant, asked, labels, language=language or ALL, start=start
                )
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
            size=SHOWN,
            language_name=language_name,
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
    scan: Scan | None,
    labels: Mapping[str, ConversationLabels],
    *,
    flag: str,
    group: int,
    topic: int,
    conversation: str,
) -> Asked:
    """Which conversations are to be shown; all where only a language was asked for."""
    if conversation:
        return Asked("The conversation", "", [Flagged(conversation, None, "")])
    if flag in FLAGS:
        return Asked(FLAG_NAMES[flag], f"flag={flag}", scan.flags.get(flag, []) if scan else [])
    if scan and 0 < group <= len(scan.groups):
        names = scan.groups[group - 1]
        found = [Flagged(name, None, "") for name in names]
        return Asked("Nearly the same question", f"group={group}", found)
    if scan and 0 < topic <= len(scan.topics):
        words = ", ".join(scan.topics[topic - 1].words) or scan.topics[topic - 1].example
        about = [Flagged(name, None, "") for name, each in labels.items() if each.topic == topic]
        return Asked(f"About {words}", f"topic={topic}", about)
    return Asked("Conversations", "", [Flagged(name, None, "") for name in labels])


async def _show(
    session: AsyncSession,
    tenant: Tenant,
    asked: Asked,
    labels: Mapping[str, ConversationLabels],
    *,
    language: str,
    start: int,
) -> Shown:
    of = {name: each.language for name, each in labels.items()}
    counts = Counter(of.get(each.conversation_id, UNKNOWN) for each in asked.found)
    found = [
        each for each in asked.found if language in {ALL, of.get(each.conversation_id, UNKNOWN)}
    ]
    part = found[start : start + SHOWN]
    texts = await service.read_conversations(
        session, tenant, [each.conversation_id for each in part]
    )
    rows = [
        Row(name, texts[name], each.why, each.turn, labels.get(name))
        for each in part
        if (name := each.conversation_id) in texts
    ]
    return Shown(
        asked.title,
        asked.query,
        _language_links(asked, counts, language),
        language,
        start,
        len(found),
        rows,
    )


def _language_links(
    asked: Asked, counts: Counter[str], language: str
) -> list[dict[str, str | bool]]:
    """To all, and to those in each language; none where there is only one."""
    if sum(code != UNKNOWN for code in counts) < 2:  # noqa: PLR2004
        return []
    names = {
        ALL: "All",
        **{code: f"{language_name(code)} {n:,}" for code, n in counts.most_common()},
    }
    return [
        {
            "name": name,
            "href": f"?{asked.query}&language={code}".replace("?&", "?"),
            "current": code == language,
        }
        for code, name in names.items()
    ]


def language_name(code: str) -> str:
    """The code, or "unknown"."""
    return "unknown" if code == UNKNOWN else code


def _back(
    tenant: Tenant, done: Literal["scan", "decided", "rules", "kept", "left"]
) -> Response[Any]:
    return see_other(f"/console/t/{tenant.slug}/data/curation?done={done}")
