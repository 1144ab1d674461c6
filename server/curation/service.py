"""Curation: what is doubtful or wrong in a tenant's conversations, and what people decide about it."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.conversation import Conversation
from server.audit import service as audit
from server.audit.actors import circumstances
from server.curation.applying import Decided, Decisions
from server.curation.encoding import ScanEncoder
from server.curation.scanning import ScanRequest, StoredConversation, scan, text_key
from server.curation.schemas import (
    ConversationLabels,
    CurationView,
    DecisionRequest,
    DecisionView,
    Rules,
    Scan,
)
from server.db.models import (
    ConversationRow,
    CurationChoice,
    CurationScan,
    RedactionDecision,
    Tenant,
)
from server.db.scope import of_tenant
from server.db.session import Database
from server.embeddings.service import EmbeddingService
from server.errors import Invalid, NotFound
from server.scratch import scratch
from server.settings import Settings
from server.tenants import service as tenants
from server.transcripts.redaction import redaction_rules

MAX_CONVERSATIONS = 5_000
"""Conversations that a scan looks through: the newest. They take a quarter of a minute, and up to
``encoding.MAX_SECONDS`` more for the questions' vectors."""


async def scan_now(
    database: Database, slug: str, *, settings: Settings, embeddings: EmbeddingService
) -> Scan:
    """Look through a tenant's newest conversations, and keep what is found in place of the last scan.

    Where the encoder is not there in time, questions are compared by their wording.

    Raises:
        NotFound: no such tenant.
        Invalid: the process that looks did not survive it (``scan_ended``).
    """
    with scratch(settings, "curation") as folder:
        spool = folder / "conversations.jsonl"
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            newest = (
                of_tenant(tenant.id)
                .select(ConversationRow.id, ConversationRow.body)
                .order_by(ConversationRow.id.desc())
                .limit(MAX_CONVERSATIONS)
            )
            rows = (await session.execute(newest)).all()
        with spool.open("wb") as file:
            for name, body in reversed(rows):
                stored = StoredConversation(name, msgspec.convert(body, Conversation))
                file.write(msgspec.json.encode(stored) + b"\n")
        looked = await scan(
            ScanRequest(
                source=str(spool),
                redaction=redaction_rules(tenant, settings),
            ),
            ScanEncoder(embeddings, tenant.id).embed,
        )
    async with database.transaction() as session:
        tenant = await tenants.get(session, slug)
        await session.execute(of_tenant(tenant.id).delete(CurationScan))
        session.add(
            CurationScan(
                tenant_id=tenant.id,
                conversations=looked.scan.conversations,
                body=msgspec.to_builtins(looked.scan),
                labels=msgspec.to_builtins(looked.labels),
            )
        )
    return looked.scan


async def overview(session: AsyncSession, tenant: Tenant) -> CurationView:
    """The rules, and the last scan without the doubts that have been decided since."""
    scope = of_tenant(tenant.id)
    row = await session.scalar(scope.select(CurationScan).order_by(CurationScan.id.desc()).limit(1))
    count = await session.scalar(scope.select(func.count(ConversationRow.id))) or 0
    found = msgspec.convert(row.body, Scan) if row else None
    if found is not None:
        decided = set(
            await session.execute(scope.select(RedactionDecision.rule, RedactionDecision.text))
        )
        left = [one for one in found.doubts if (one.rule, text_key(one.text)) not in decided]
        found = msgspec.structs.replace(found, doubts=left)
    return CurationView(
        rules=rules_of(tenant),
        conversations=count,
        scanned_at=row.created_at if row else None,
        scan=found,
    )


async def read_labels(session: AsyncSession, tenant: Tenant) -> dict[str, ConversationLabels]:
    """What the last scan says of each conversation, by its id, the newest first."""
    query = of_tenant(tenant.id).select(CurationScan.labels)
    found = await session.scalar(query.order_by(CurationScan.id.desc()).limit(1)) or {}
    return msgspec.convert(dict(sorted(found.items(), reverse=True)), dict[str, ConversationLabels])


def rules_of(tenant: Tenant) -> Rules:
    """What the tenant decided about each flag."""
    return msgspec.convert(tenant.curation_rules, Rules)


def set_rules(session: AsyncSession, tenant: Tenant, rules: Rules) -> None:
    """Replace the rules; they apply to dataset versions that are made from now on."""
    before, after = msgspec.to_builtins(rules_of(tenant)), msgspec.to_builtins(rules)
    if before == after:
        return
    tenant.curation_rules = after
    audit.record(
        session,
        "transcripts.rules_changed",
        tenant_id=tenant.id,
        subject=tenants.subject(tenant),
        details={"changes": audit.changes(before, after)},
    )


async def decide(session: AsyncSession, tenant: Tenant, request: DecisionRequest) -> None:
    """Remember a decision about a doubtful text, in place of an earlier one about the same.

    Raises:
        Invalid: of ``edit``, ``masked`` is no part of the text.
    """
    masked = " ".join(request.masked.split())
    if request.decision == "edit" and (
        not masked or masked.casefold() not in request.text.casefold()
    ):
        raise Invalid(
            f"Give the part of '{request.text}' that is to be replaced, as it is written there.",
            code="not_a_part",
        )
    key = text_key(request.text)
    query = of_tenant(tenant.id).select(RedactionDecision)
    row = await session.scalar(
        query.where(RedactionDecision.rule == request.rule, RedactionDecision.text == key)
    )
    if row is None:
        row = RedactionDecision(tenant_id=tenant.id, rule=request.rule, text=key)
        session.add(row)
    row.decision = request.decision
    row.entity_type = request.entity_type
    row.masked = masked if request.decision == "edit" else ""
    row.actor = circumstances().actor.reference
    await session.flush()
    audit.record(
        session,
        "transcripts.doubt_decided",
        tenant_id=tenant.id,
        subject=tenants.subject(tenant),
        details={"rule": request.rule, "decision": request.decision},
    )


async def decisions(session: AsyncSession, tenant: Tenant) -> list[DecisionView]:
    """What was decided about doubtful texts, newest first."""
    query = of_tenant(tenant.id).select(RedactionDecision)
    rows = await session.scalars(query.order_by(RedactionDecision.updated_at.desc()))
    return [
        DecisionView(
            rule=row.rule,
            text=row.text,
            entity_type=row.entity_type,
            decision=row.decision,
            masked=row.masked,
            actor=row.actor,
            updated_at=row.updated_at,
        )
        for row in rows
    ]


async def choose(
    session: AsyncSession, tenant: Tenant, conversation_id: str, *, keep: bool
) -> None:
    """Decide whether one conversation is learnt from, whatever the rules say.

    Raises:
        NotFound: the tenant has no such conversation.
    """
    scope = of_tenant(tenant.id)
    if await scope.get(session, ConversationRow, conversation_id) is None:
        raise NotFound(
            f"There is no conversation '{conversation_id}'.", code="conversation_not_found"
        )
    row = await session.scalar(
        scope.select(CurationChoice).where(CurationChoice.conversation_id == conversation_id)
    )
    if row is None:
        row = CurationChoice(tenant_id=tenant.id, conversation_id=conversation_id)
        session.add(row)
    row.keep = keep
    row.actor = circumstances().actor.reference
    await session.flush()
    audit.record(
        session,
        "transcripts.conversation_chosen",
        tenant_id=tenant.id,
        subject=tenants.subject(tenant),
        details={"conversation": conversation_id, "kept": keep},
    )


async def load_decisions(session: AsyncSession, tenant: Tenant) -> Decisions:
    """All that was decided, for ``applying.Curator``."""
    scope = of_tenant(tenant.id)
    doubts = {
        (row.rule, row.text): Decided(row.decision, row.masked, row.entity_type)
        for row in await session.scalars(scope.select(RedactionDecision))
    }
    rows = await session.execute(scope.select(CurationChoice.conversation_id, CurationChoice.keep))
    return Decisions(doubts, {name: keep for name, keep in rows}, rules_of(tenant))  # noqa: C416


async def read_conversations(
    session: AsyncSession, tenant: Tenant, ids: Sequence[str]
) -> dict[str, Conversation]:
    """These conversations by id; those that are gone are absent."""
    query = of_tenant(tenant.id).select(ConversationRow.id, ConversationRow.body)
    rows = await session.execute(query.where(ConversationRow.id.in_(ids)))
    return {name: msgspec.convert(body, Conversation) for name, body in rows}
