"""What the pages show in the browser tests: made-up companies and what happened there."""

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib import resources
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import sessions
from server.accounts.tokens import digest
from server.adapters import canary
from server.adapters import service as promotions
from server.audit import actors
from server.audit import service as audit
from server.auth import keys
from server.auth.schemas import KeyRequest
from server.conversations import budgets, retention, widgets
from server.conversations.schemas import WidgetPatch
from server.db.models import (
    Adapter,
    ApiKey,
    Article,
    ArticleChunk,
    ArticleVersion,
    Canary,
    CanaryCount,
    ConversationRow,
    CurationScan,
    DatasetVersion,
    Handoff,
    HandoffRule,
    Head,
    Import,
    Job,
    JobEvent,
    JobState,
    KnowledgeUpload,
    LiveConversation,
    LiveMessage,
    Membership,
    MessageLabel,
    Person,
    SignInLink,
    SourceFile,
    UsageDay,
    Visitor,
    WebhookDelivery,
    WebhookEndpoint,
    WorkerProcess,
    now,
)
from server.db.scope import of_tenant
from server.embeddings.encoders import FakeEncoder
from server.knowledge import service as knowledge
from server.knowledge.vectors import pack
from server.retrieval import receipts
from server.retrieval.schemas import Grounding
from server.settings import Limits
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch, TenantRequest
from server.webhooks.schemas import EVENT_TYPES
from server.webhooks.vault import Vault
from tests.browser.curated import SCAN, labels_of
from tests.browser.site import Site
from tests.server.adapters.fake_reports import make_report
from tests.server.heads.fake_manifests import make_manifest
from training.heads.config import Task
from training.references import Reference

LOAF, NORTHGATE = "loaf", "northgate"
# people and links that pages are about, at addresses that are known before
PERSON_ID, DISABLED_ID = "0" * 31 + "1", "0" * 31 + "2"
LINK, FIRST_LINK = "tt_link_" + "a" * 43, "tt_link_" + "b" * 43
BASE = "smollm2-135m-instruct"


TABLE = (resources.files("connectors.samples") / "northgate.csv").read_bytes()
REPORT = {
    "importer": "openai",
    "filename": "helpdesk-october.jsonl",
    "sha256": "1" * 64,
    "size_bytes": 120_000,
    "read": 260,
    "stored": 251,
    "known": 6,
    "repeated": 3,
    "turns": 1_114,
    "rejected": 14,
    "partially_rejected": 3,
    "reasons": {"empty_text": 12, "bad_json": 2, "tool_message": 3},
    "examples": [
        *(
            {"line": 17 * number, "reason": "empty_text", "detail": "message 2: content is empty"}
            for number in range(1, 11)
        ),
        {"line": 96, "reason": "bad_json", "detail": "Input data was truncated"},
        {
            "line": 141,
            "reason": "bad_json",
            "detail": "JSON is malformed: invalid escape (byte 48)",
        },
        {
            "line": 3,
            "reason": "tool_message",
            "detail": "message 4: a call of a tool",
            "part": True,
        },
        {"line": 44, "reason": "tool_message", "detail": "message 1: role 'tool'", "part": True},
        {"line": 45, "reason": "tool_message", "detail": "message 1: role 'tool'", "part": True},
    ],
    "roles": {"customer": 560, "agent": 554},
    "redacted": {"NAME": 212, "EMAIL": 96, "PHONE": 41, "IBAN": 4},
    "notes": {"encoding": "utf-8"},
}
UNCLEAR = (
    "cannot tell which column is: role; pass --map role=COLUMN, or --map question=COLUMN,"
    "answer=COLUMN for one exchange a row. The file has: No, Written, Body"
)
SCANNED = (
    "Nothing of 'scan.pdf' could be used: it holds images of text, and no text: run it through text "
    "recognition (OCR) first."
)
ARTICLES = {
    1: (
        "Delivery",
        (
            (
                "Where and when",
                "We deliver to Harrowby and villages within 8 miles, on Tuesdays and "
                "Fridays between 6 and 9 in the morning.",
            ),
            (
                "Late, missing or squashed",
                "You choose: a free loaf in your next box, or the money for "
                "that box back in 3 working days.\n\n- No photos are needed.\n- Write to [EMAIL_1].",
            ),
        ),
    ),
    2: (
        "Skip, pause or cancel",
        (("Skip a week", "Skip on My Basket until noon two days before."),),
    ),
}
GIVEN = {
    2: (
        Reference(
            kind="exchange",
            id="c41:3",
            title="Can you skip the delivery charge?",
            text="I am sorry, [NAME_1], the charge pays for the driver.",
            score=0.5521,
        ),
    ),
    3: (
        Reference(
            kind="exchange",
            id="c7:1",
            title="Where is my order [ORDER_1]?",
            text="It left the bakery at six and should be with you before noon. Warmly, the desk",
            score=0.9312,
        ),
        Reference(
            kind="article",
            id=f"{1:032x}@2#0",
            title="Delivery > Where and when",
            text="We deliver to Harrowby and villages within 8 miles, on Tuesdays and Fridays.",
            score=0.5834,
        ),
        Reference(
            kind="article",
            id=f"{99:032x}@1#0",
            title="Delivery in winter",
            text="In snow we come a day later.",
            score=0.4127,
        ),
    ),
}
OUT_OF_MEMORY = {"code": "out_of_memory", "message": "memory ran out at step 40"}


def talk_id(number: int) -> str:
    """The id of a conversation of ``LOAF``; 1 needs a person, 2 has a poor answer, 3 is verified."""
    return f"{number:032x}"


def answer_id(number: int) -> str:
    """The id of the answer in a conversation of ``LOAF``."""
    return f"b{number:031x}"


def run_id(number: int) -> str:
    """The id of a run of ``LOAF``; 5 goes on, 4 waits for a person, 3 failed, 2 is live."""
    return f"{number:032x}"


def import_id(number: int) -> str:
    """The id of an upload of ``LOAF``: 4 is being read, 3 waits for its columns, 2 failed, 1 was read."""
    return f"{number:032x}"


def article_id(number: int) -> str:
    """The id of an article of ``LOAF``; 1 has an older version, 2 is being embedded."""
    return f"{number:032x}"


def knowledge_id(number: int) -> str:
    """The id of an upload of articles of ``LOAF``: 1 was read, 2 failed, 3 is being embedded."""
    return f"{number:032x}"


def key_id(number: int) -> str:
    """The id of a key of ``LOAF``; 4 works, 3 takes the place of 2, 1 is revoked."""
    return f"{number:032x}"


def hook_id(number: int) -> str:
    """The id of a webhook of ``LOAF``; 1 is on and was sent much, 2 is off."""
    return f"{number:032x}"


def _conversation(number: int) -> dict[str, Any]:
    asked = f"Hello, my box number {number} is late. You can reach me at [EMAIL_1] or on [PHONE_1]."
    answered = "Oh dear, [NAME_1]! It is on its way and should be with you by six. Warmly, the desk"
    turns = [{"role": "customer", "text": asked}, {"role": "agent", "text": answered}]
    return {"id": str(number), "turns": turns}


def fill(site: Site) -> None:
    """Everything that the pages show."""
    site.write(seed)
    site.write(seed_knowledge)
    site.write(seed_people)
    site.write(seed_conversations)
    site.write(seed_heads)
    site.write(seed_keys)
    site.write(seed_usage)
    vault = site.vault
    site.write(lambda session: seed_widget(session, vault))
    site.write(seed_audit)
    site.write(lambda session: seed_webhooks(session, vault))
    blobs = BlobStore.open(site.settings.blobs)
    site.run(blobs.put_stream(_once(TABLE), max_bytes=len(TABLE)))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _count(
    session: AsyncSession, tried: Canary, of_canary: tuple[int, int], of_live: tuple[int, int]
) -> None:
    """What a canary and what is live answered: requests, and those that failed."""
    for is_canary, (requests, errors) in ((True, of_canary), (False, of_live)):
        session.add(
            CanaryCount(
                tenant_id=tried.tenant_id,
                revision=tried.revision,
                is_canary=is_canary,
                requests=requests,
                errors=errors,
                prompt_tokens=412 * requests,
                completion_tokens=(38 if is_canary else 51) * requests,
            )
        )


async def _history(session: AsyncSession, job: Job, *, steps: int) -> None:
    """What a trainer would have told of a run of 40 steps, as far as this one went."""
    began = job.created_at
    told: list[tuple[float, str, dict[str, Any]]] = [
        (0, "state", {"state": "queued"}),
        (12, "state", {"state": "validating"}),
        (50, "state", {"state": "running"}),
        (51, "stage", {"stage": "loading", "detail": ""}),
        (
            55,
            "estimate",
            {
                "seconds": 192.0,
                "memory_bytes": 2_684_354_560,
                "train_tokens": 26_103,
                "steps": 40,
                "basis": "a first batch of 640 tokens took 4.7 s here",
            },
        ),
    ]
    for number in range(1, steps + 1):
        at = 55 + number * 5.0
        step = {
            "at": began.timestamp() + at,
            "step": number,
            "steps": 40,
            "loss": 1.05 + 2.55 / (1 + 0.17 * (number - 1)) + 0.09 * ((number * 7) % 5 - 2) / 2,
            "tokens": 652 * number,
            "tokens_per_second": 118 - 9 / number + number % 3,
            "memory_bytes": 2_300_000_000 + 6_000_000 * number,
            "eta_seconds": 5.8 * (40 - number),
            "epoch": number / 20,
        }
        told.append((at, "step", step))
        if number % 10 == 0:
            loss = 1.1 + 12 / (number + 2) + (5 - int(job.id, 16)) * 0.08
            body = {"at": step["at"], "step": number, "loss": loss, "best": True}
            told += [(at, "validation", body), (at, "checkpoint", {"step": number})]
    if job.state in ("failed", "succeeded", "awaiting_approval"):
        if job.state != "failed":
            told.append((270, "state", {"state": "evaluating"}))
        told.append(
            (310, "state", {"state": job.state, **({"error": job.error} if job.error else {})})
        )
    last = [body for _, kind, body in told if kind == "step"][-1]
    job.progress, job.estimate = {**last, "examples": 208}, told[4][2]
    for seq, (seconds, kind, body) in enumerate(told, start=1):
        created_at = began + timedelta(seconds=seconds)
        session.add(
            JobEvent(
                tenant_id=job.tenant_id,
                job_id=job.id,
                seq=seq,
                kind=kind,
                body=body,
                created_at=created_at,
            )
        )


async def seed_knowledge(session: AsyncSession) -> None:
    """The help centre of ``LOAF``, one article of which is being embedded."""
    loaf = await tenants.get(session, LOAF)
    report: dict[str, Any] = {
        "format": "zip",
        "filename": "help-centre.zip",
        "articles": 2,
        "new": 1,
        "replaced": 1,
        "unchanged": 4,
        "sections": 9,
        "characters": 4_210,
        "chunks": 9,
        "skipped": 1,
        "skipped_parts": 3,
        "reasons": {"hidden": 3, "encrypted": 1},
        "examples": [
            {
                "place": "help/delivery.html, line 41",
                "reason": "hidden",
                "detail": "a hidden <div> with 12 words",
                "part": True,
            },
            {
                "place": "terms.pdf",
                "reason": "encrypted",
                "detail": "it is protected by a password; save it without one",
            },
        ],
        "redacted": {"EMAIL": 2, "PHONE": 1},
    }
    for number, state, name, error in (
        (1, "done", "help-centre.zip", None),
        (2, "failed", "scan.pdf", {"code": "no_text", "message": SCANNED}),
        (3, "running", "skip-pause-cancel.md", None),
    ):
        session.add(
            KnowledgeUpload(
                id=knowledge_id(number),
                tenant_id=loaf.id,
                filename=name,
                sha256=f"{number:064x}",
                size_bytes=48_000 * number,
                state=state,
                chunks=9 if number == 1 else 40 if number == 3 else 0,
                embedded=9 if number == 1 else 16 if number == 3 else 0,
                report=report if number == 1 else None,
                error=error,
                finished_at=None if number == 3 else now(),
                removed_at=None if number == 3 else now(),
            )
        )
    encoder = FakeEncoder()
    for number, name, versions in (
        (1, "https://help.lumen-loaf.example/delivery", (("replaced", 1), ("current", 2))),
        (2, "skip-pause-cancel.md", (("embedding", 1),)),
    ):
        title, sections = ARTICLES[number]
        session.add(Article(id=article_id(number), tenant_id=loaf.id, name=name))
        await session.flush()
        for state, version in versions:
            row = ArticleVersion(
                tenant_id=loaf.id,
                article_id=article_id(number),
                number=version,
                state=state,
                title=title,
                format="html" if number == 1 else "markdown",
                sha256=f"{number}{version}" * 32,
                source_sha256="0" * 64,
                sections=len(sections),
                chunks=len(sections),
                characters=600,
                text_bytes=600,
                replaced_at=now() if state == "replaced" else None,
            )
            session.add(row)
            await session.flush()
            for at, (heading, text) in enumerate(sections):
                [vector] = encoder.encode([f"{title}\n{heading}\n{text}"])
                session.add(
                    ArticleChunk(
                        tenant_id=loaf.id,
                        version_id=row.id,
                        ordinal=at,
                        headings=[heading],
                        text=text,
                        vector=pack(vector.tobytes()) if state == "current" else None,
                    )
                )
    await knowledge.count_revision(session, loaf.id)


async def seed(session: AsyncSession) -> None:
    """Two tenants: one at work, one that has nothing yet."""
    loaf = await tenants.create(session, TenantRequest(slug=LOAF, name="Lumen & Loaf"))
    await tenants.create(session, TenantRequest(slug=NORTHGATE, name="Northgate Parcel Logistics"))
    await session.flush()
    source = SourceFile(
        tenant_id=loaf.id,
        filename="helpdesk-october.jsonl",
        sha256="1" * 64,
        size_bytes=120_000,
        removed_at=now(),
    )
    table = SourceFile(
        tenant_id=loaf.id,
        filename="tickets-november.csv",
        sha256=hashlib.sha256(TABLE).hexdigest(),
        size_bytes=len(TABLE),
    )
    broken = SourceFile(
        tenant_id=loaf.id,
        filename="helpdesk-november.csv",
        sha256="2" * 64,
        size_bytes=9_000,
        removed_at=now(),
    )
    session.add_all([source, broken, table])
    await session.flush()
    done = Import(
        id=import_id(1),
        tenant_id=loaf.id,
        source_file_id=source.id,
        state="done",
        importer="openai",
        report=REPORT,
        created_at=now() - timedelta(days=11),
        finished_at=now() - timedelta(days=11),
    )
    failed = Import(
        id=import_id(2),
        importer="csv",
        tenant_id=loaf.id,
        source_file_id=broken.id,
        state="failed",
        finished_at=now() - timedelta(hours=3),
        error={"message": UNCLEAR},
    )
    draft = Import(
        id=import_id(3),
        tenant_id=loaf.id,
        source_file_id=table.id,
        state="draft",
        importer="csv",
    )
    reading = Import(
        id=import_id(4),
        tenant_id=loaf.id,
        source_file_id=source.id,
        state="running",
        importer="openai",
        options={"split": "test"},
    )
    session.add_all([done, failed, draft, reading])
    await session.flush()
    for number in range(40):
        session.add(
            ConversationRow(
                tenant_id=loaf.id,
                import_id=done.id,
                external_id=str(number),
                digest=f"{number:064x}",
                body=_conversation(number),
            )
        )
    await session.flush()
    names = sorted(await session.scalars(of_tenant(loaf.id).select(ConversationRow.id)))
    session.add(
        CurationScan(
            tenant_id=loaf.id,
            conversations=40,
            body=msgspec.to_builtins(SCAN),
            labels=labels_of(names),
        )
    )
    older = DatasetVersion(
        tenant_id=loaf.id,
        sha256="a71f" * 16,
        counts={"train": 160, "validation": 20, "test": 20},
        manifest={
            "system_prompt": "You are the desk of Lumen & Loaf.",
            "dropped": {"exact_duplicate": 3},
        },
        import_ids=[import_id(9)],
    )
    dataset = DatasetVersion(
        tenant_id=loaf.id,
        sha256="3" * 64,
        counts={"train": 208, "validation": 26, "test": 26},
        manifest={
            "system_prompt": "You are the customer desk of Lumen & Loaf, a bakery.",
            "dropped": {"exact_duplicate": 4, "near_duplicate": 11, "unanswered": 2},
        },
        import_ids=[done.id],
    )
    session.add_all([older, dataset])
    await session.flush()
    adapters = []
    for version, state in ((1, "ready"), (2, "ready"), (3, "candidate")):
        adapter = Adapter(
            tenant_id=loaf.id,
            version=version,
            engine_name=f"{LOAF}.{version:012x}",
            base_name=BASE,
            base_sha256="0" * 64,
            system_prompt="",
            state=state,
            dataset_id=dataset.id,
            report=None
            if version == 1
            else make_report(version=version, live=version == 3, max_perplexity=6.0),
            scores={
                "new": {
                    "perplexity": 7.2 - version * 0.6,
                    "token_f1": 0.2 + version / 10,
                    "replies": 26,
                }
            },
        )
        session.add(adapter)
        adapters.append(adapter)
    await session.flush()
    await promotions.promote(session, loaf, version=1, actor=f"job {run_id(1)}")
    before = await canary.start(
        session, loaf, version=2, percent=20, base=BASE, actor=f"person:{PERSON_ID}"
    )
    _count(session, before, (264, 2), (1_097, 31))
    await promotions.promote(session, loaf, version=2, actor=f"job {run_id(2)}")
    tried = await canary.start(
        session, loaf, version=3, percent=10, base=BASE, actor=f"person:{PERSON_ID}"
    )
    tried.since = now() - timedelta(days=9)
    _count(session, tried, (118, 1), (1_043, 12))
    runs: tuple[tuple[int, JobState, Adapter | None], ...] = (
        (10, "succeeded", adapters[0]),
        (7, "succeeded", adapters[1]),
        (2, "failed", None),
        (1, "awaiting_approval", adapters[2]),
        (0, "running", None),
    )
    for number, (days, state, made) in enumerate(runs, start=1):
        job = Job(
            id=run_id(number),
            tenant_id=loaf.id,
            state=state,
            stage="training" if state == "running" else state,
            base=BASE,
            recipe_name="cpu-small",
            created_at=now() - timedelta(days=days, minutes=3),
            dataset_id=dataset.id,
            gpu_seconds=184.0,
            objectives={"max_perplexity": 6.0},
            require_approval=state in ("awaiting_approval", "running"),
            error=OUT_OF_MEMORY if state == "failed" else None,
        )
        session.add(job)
        await session.flush()
        if made is not None:
            job.adapter_id, made.job_id = made.id, job.id
        await _history(session, job, steps=24 if state == "running" else 40)
    for days in range(6):
        session.add(
            UsageDay(
                tenant_id=loaf.id,
                model=LOAF,
                day=now().date() - timedelta(days=days),
                requests=(7, 12, 0, 31, 18, 9)[days],
                prompt_tokens=4000 + days,
                completion_tokens=900 * (days + 1),
                gpu_seconds=12.5,
            )
        )


async def seed_usage(session: AsyncSession) -> None:
    """A month of ``LOAF``'s use by several models and keys, limits, and a worker that is at work."""
    loaf = await tenants.get(session, LOAF)
    loaf.limits = Limits(requests_per_minute=600, tokens_per_day=50_000_000, concurrent_streams=32)
    asked = KeyRequest(label="shop", limits=Limits(requests_per_minute=60))
    _, shop = await keys.create(session, asked, tenant=loaf)
    for days in range(6, 30):
        for key_id, model, share in ((shop.id, f"{LOAF}@1", 5), ("0" * 32, BASE, 1)):
            count = share * (3 + days * 7 % 11) * (days % 7 > 1)
            session.add(
                UsageDay(
                    tenant_id=loaf.id,
                    key_id=key_id,
                    model=model,
                    day=now().date() - timedelta(days=days),
                    requests=count,
                    errors=count // 30,
                    refused=count // 8 if days == 9 else 0,
                    prompt_tokens=count * 620,
                    completion_tokens=count * 90,
                    gpu_seconds=count * 0.7,
                )
            )
    session.add_all(
        [
            WorkerProcess(
                name="bakery-1:/var/lib/tenantune",
                host="bakery-1",
                pid=4711,
                jobs_at_once=1,
                jobs=[run_id(5)],
                imports=[import_id(4)],
                seen_at=now(),
                created_at=now() - timedelta(hours=30),
            ),
            WorkerProcess(
                name="bakery-2:/var/lib/tenantune",
                host="bakery-2",
                pid=812,
                jobs_at_once=2,
                seen_at=now() - timedelta(hours=3),
                created_at=now() - timedelta(days=2),
            ),
        ]
    )


async def seed_people(session: AsyncSession) -> None:
    """People in each state, and two one-time links that can be used."""
    loaf = await tenants.get(session, LOAF)
    northgate = await tenants.get(session, NORTHGATE)
    fields = {"password_hash": "none", "created_at": now() - timedelta(days=40)}
    person = Person(id=PERSON_ID, email="tomasz@loaf.example", name="Tomasz Wrona", **fields)
    session.add_all(
        [
            person,
            Person(id=DISABLED_ID, email="former@loaf.example", disabled_at=now(), **fields),
            Person(email="someone.with.a.long.name@northgate-parcel-logistics.example"),
        ]
    )
    await session.flush()
    session.add_all(
        [
            Membership(tenant_id=loaf.id, person_id=PERSON_ID, role="reviewer"),
            Membership(tenant_id=northgate.id, person_id=PERSON_ID, role="admin"),
        ]
    )
    for agent in (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:153.0) Gecko/20100101 Firefox/153.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) Version/19.1 Safari/605.1.15",
    ):
        await sessions.begin(session, person, address="203.0.113.7", agent=agent)
    day = now() + timedelta(days=1)
    session.add_all(
        [
            SignInLink(sha256=digest(LINK), person_id=PERSON_ID, expires_at=day),
            SignInLink(sha256=digest(FIRST_LINK), expires_at=day),
        ]
    )


LABELS: dict[int, tuple[tuple[Task, str, float], ...]] = {
    2: (("annoyance", "annoyed", 0.87), ("intent", "skip_a_delivery", 0.91)),
    3: (("annoyance", "annoyed", 0.74), ("intent", "where_is_my_order", 0.78)),
}
"""What heads said of the first message of a conversation, by its number."""
INTENTS = ("starter", "skip_a_delivery", "where_is_my_order", "cancel", "thanks")


async def seed_heads(session: AsyncSession) -> None:
    """Heads of ``LOAF`` in each state."""
    loaf = await tenants.get(session, LOAF)
    annoyance, sha256 = ("annoyed", "calm"), "0" * 64
    attachments = ("damage", "receipt", "screenshot")
    reason = "heads.csv: at least 8 distinct texts of each label are needed: 'neutral' has 3"
    day = timedelta(days=1)
    heads: tuple[dict[str, Any], ...] = (
        {"task": "annoyance", "version": 1, "replaced_at": now() - 2 * day, "manifest": make_manifest("annoyance", annoyance, right=0.8)},
        {"task": "annoyance", "version": 2, "live": True, "live_since": now() - 2 * day, "manifest": make_manifest("annoyance", annoyance, right=0.98, live=True)},
        {"task": "annoyance", "version": 3, "state": "running", "progress": 0.4},
        {"task": "intent", "version": 1, "live": True, "live_since": now() - day, "manifest": make_manifest("intent", INTENTS, right=0.75)},
        {"task": "sentiment", "version": 1, "state": "failed", "error": {"code": "bad_input", "message": reason}},
        {"task": "image", "version": 1, "manifest": make_manifest("image", attachments, right=0.5),
         "left_out": {"counts": {"animated": 1, "too_many_pixels": 2}, "files": [
             {"place": "attachments/receipt/spin.gif", "reason": "animated", "detail": "it moves; save one picture of it"}]}},
    )  # fmt: skip
    session.add(HandoffRule(tenant_id=loaf.id, task="annoyance", label="annoyed", at_least=0.8))
    session.add(HandoffRule(tenant_id=loaf.id, task="annoyance", label="furious", at_least=0.6))
    of_all: tuple[tuple[Task, tuple[str, ...]], ...] = (
        ("annoyance", annoyance),
        ("image", attachments),
    )
    for task, labels in of_all:
        shared = make_manifest(task, labels, right=0.85)
        session.add(
            Head(
                task=task,
                version=2,
                state="ready",
                texts=900,
                sha256=sha256,
                manifest=shared,
                live=True,
            )
        )
    for number, fields in enumerate(heads):
        state = fields.get("state", "ready")
        session.add(
            Head(
                tenant_id=loaf.id,
                state=state,
                filename="annoyance-november-from-the-help-desk.csv"
                if number == 1
                else "heads.csv",
                texts=96,
                sha256=sha256 if state == "ready" else None,
                created_at=now() - (8 - number) * day / 2,
                **{name: value for name, value in fields.items() if name != "state"},
            )
        )


async def seed_conversations(session: AsyncSession) -> None:
    """Visitors of ``LOAF`` in each state."""
    loaf = await tenants.get(session, LOAF)
    texts = (
        (
            "My starter smells of acetone and my loaf stays flat. What am I doing wrong?",
            "It is hungry: feed it twice a day for two days, with as much flour as starter.",
        ),
        ("Can I skip a week?", "Please contact support."),
        ("Where is my order LL-2041?", "It left the bakery this morning and comes before noon."),
        ("هل يمكنني تخطي أسبوع؟", "بالطبع! افتح سلتي ثم اضغط «تخطي هذا الأسبوع»."),
        ("x" * 180, "I can help with bread, orders and deliveries."),
    )
    people: tuple[dict[str, Any], ...] = (
        {"said_name": "Kim Vervoort", "said_email": "kim@mail.example"},
        {},
        {"subject": "customer-77", "name": "Ines Okafor", "email": "ines@mail.example"},
        {},
        {"said_name": "A name that is long enough to be cut somewhere in the list of talks"},
    )
    for number in range(1, 36):
        question, reply = texts[(number - 1) % 5]
        began = now() - timedelta(hours=7 * number - 6, minutes=3)
        first = number <= len(texts)
        visitor = Visitor(tenant_id=loaf.id, **(people[number - 1] if first else {}))
        session.add(visitor)
        await session.flush()
        talk = LiveConversation(
            id=talk_id(number),
            tenant_id=loaf.id,
            visitor_id=visitor.id,
            state="handed_over" if number == 1 else "open",
            topic=question,
            message_count=2,
            thumbs_down=int(number == 2),
            annoyed_messages=int(number in {2, 3}),
            created_at=began,
            last_at=began + timedelta(minutes=1),
        )
        session.add(talk)
        await session.flush()
        about = {"tenant_id": loaf.id, "conversation_id": talk.id, "created_at": began}
        asked = LiveMessage(id=f"a{number:031x}", seq=1, role="visitor", text=question, **about)
        session.add(asked)
        await session.flush()
        calm = (("annoyance", "calm", 0.93), ("intent", INTENTS[number % 5], 0.81))
        for task, label, probability in LABELS.get(number, calm):
            session.add(
                MessageLabel(
                    tenant_id=loaf.id,
                    conversation_id=talk.id,
                    message_id=asked.id,
                    task=task,
                    label=label,
                    probability=probability,
                    head_version=2,
                    head_sha256="0" * 64,
                    day=began.date(),
                )
            )
        version = 3 if number > len(texts) and number % 4 == 0 else 2
        opinion: dict[str, Any] = {"vote": "up"} if number == 3 or number > 12 else {}
        if number > 12 and number % 5 == 0:
            opinion = {"vote": "down"}
        if number == 2:
            opinion = {
                "vote": "down",
                "vote_reasons": ["wrong", "incomplete"],
                "vote_text": "I asked you, not them.",
                "correction": "Yes: open your basket and press Skip this week before Tuesday noon.",
                "corrected_by": f"person:{PERSON_ID}",
            }
        answer = LiveMessage(
            id=answer_id(number),
            seq=2,
            role="assistant",
            text=reply,
            reply_to=asked.id,
            model=f"{LOAF}@{version}",
            adapter_version=version,
            first_token_ms=180,
            total_ms=1_240 + number,
            prompt_tokens=412,
            completion_tokens=38,
            **{**about, **opinion},
        )
        session.add(answer)
        if number in {2, 3}:
            await receipts.keep(
                session,
                loaf.id,
                answer.id,
                model=LOAF,
                version=version,
                dataset="5" * 64,
                grounding=Grounding(references=GIVEN[number], supported=number == 3),
            )
        if number == 1:
            person = LiveMessage(
                seq=3, role="person", text="Send me a photo.", author=f"person:{PERSON_ID}", **about
            )
            session.add(person)
            talk.message_count = 3
            session.add(
                Handoff(
                    tenant_id=loaf.id,
                    conversation_id=talk.id,
                    number=12,
                    email="kim@mail.example",
                    note="The starter was a gift.\nPlease help before Sunday.",
                    wants_copy=True,
                    expected="Usually within 2 hours",
                    state="open",
                    created_at=began + timedelta(seconds=50),
                )
            )


async def seed_widget(session: AsyncSession, vault: Vault) -> None:
    """The widget of ``LOAF``, on one site, and another that was refused; a visitor has used a budget up."""
    await widgets.enable(session, LOAF, vault=vault)
    await widgets.update(
        session,
        LOAF,
        WidgetPatch(
            greeting="Hello friend! What can I do for you?",
            suggestions=("Can I skip a week?", "Where is my order?", "How do I feed my starter?"),
            accent="#e8a33d",
            handoff_expected="Usually within 2 hours",
            offer_when_annoyed=True,
        ),
    )
    await widgets.add_origin(session, LOAF, "https://lumen-loaf.example")
    site = await widgets.get(session, LOAF)
    await retention.note_refused(session, site, "https://staging.lumen-loaf.example")
    budget = budgets.budget(site.budgets, "visitor_messages_per_minute", "someone")
    for _ in range(budget.limit):
        await budgets.spend(session, site.tenant.id, [budget])


async def seed_audit(session: AsyncSession) -> None:
    """What people, a key and the command line did, beside all that the others have recorded."""
    loaf = await tenants.get(session, LOAF)
    mara = actors.person("f" * 32, name="Mara Lindqvist", email="mara@loaf.example")
    with actors.acting(mara, request_id="req_1", address="203.0.113.7"):
        request = KeyRequest(scopes=("chat",), label="The shop's own server")
        _, key = await keys.create(session, request, tenant=loaf)
        patch = TenantPatch(name="Lumen & Loaf", system_prompt="You are the desk of Lumen & Loaf.")
        await tenants.update(session, LOAF, patch)
    with actors.acting(actors.COMMAND_LINE):
        # recorded alone: other tests go by the limits that apply
        limits = {"requests_per_minute": 120, "tokens_per_day": 2_000_000}
        changed = audit.changes({"limits": "the installation's"}, {"limits": limits})
        audit.record(
            session,
            "tenant.limits_changed",
            tenant_id=loaf.id,
            subject=tenants.subject(loaf),
            details={"changes": changed},
        )
    robot = actors.Actor("operator_key", "e" * 32, "provisioning")
    with actors.acting(robot, request_id="req_2", address="2001:db8::71"):
        await keys.revoke(session, key.id, tenant=loaf)


async def seed_keys(session: AsyncSession) -> None:
    """Keys of ``LOAF`` in each state, and one of the operators."""
    loaf = await tenants.get(session, LOAF)
    day = timedelta(days=1)
    made: tuple[dict[str, Any], ...] = (
        {"label": "Old agency", "scopes": ["chat"], "revoked_at": now() - 2 * day},
        {"label": "Nightly upload", "scopes": ["train"], "expires_at": now() + day / 2},
        {"label": "Nightly upload", "scopes": ["train"], "replaces_id": key_id(2)},
        {
            "label": "Help page",
            "scopes": ["chat"],
            "limits": Limits(requests_per_minute=60, tokens_per_day=500_000),
            "last_used_at": now() - day / 8,
        },
        {"label": "", "scopes": ["chat", "admin"], "expires_at": now() + 3 * day, "actor": None},
    )
    for number, fields in enumerate(made, start=1):
        session.add(
            ApiKey(
                **{
                    "id": key_id(number),
                    "tenant_id": loaf.id,
                    "prefix": f"tt_k3yN{number:04}",
                    "sha256": f"{number:064x}",
                    "actor": f"person:{PERSON_ID}",
                    "created_at": now() - (9 - number) * day,
                    **fields,
                }
            )
        )
    await keys.create(session, KeyRequest(label="Deployment"), tenant=None, actor="command line")


async def seed_webhooks(session: AsyncSession, vault: Vault) -> None:
    """Two webhooks of ``LOAF``: one that was sent events with every result, one that is off."""
    loaf = await tenants.get(session, LOAF)
    secret = vault.seal("whsec_" + "a" * 32)
    for number, url in enumerate(
        (
            "https://hooks.lumen-loaf.example/tenantune/a-path-that-is-rather-long/v1",
            "https://crm.lumen-loaf.example/events",
        ),
        start=1,
    ):
        session.add(
            WebhookEndpoint(
                id=hook_id(number),
                tenant_id=loaf.id,
                url=url,
                secret=secret,
                secret_hint="aaaa",
                events=list(EVENT_TYPES) if number == 1 else ["conversation.handoff.created"],
                enabled=number == 1,
            )
        )
    await session.flush()
    sent: tuple[dict[str, Any], ...] = (
        {"state": "delivered", "attempts": 1, "delivered_at": now(), "response_status": 204},
        {
            "state": "failed",
            "attempts": 8,
            "error": "HTTP 500",
            "response_status": 500,
            "response_text": "<html><head><title>500 Internal Server Error</title></head><body>",
        },
        {"state": "failed", "attempts": 1, "error": "The host's name has no address."},
        {
            "state": "delivered",
            "attempts": 2,
            "delivered_at": now(),
            "response_status": 200,
            "response_text": '{"ok": true}',
        },
        {
            "state": "pending",
            "attempts": 3,
            "error": "HTTP 503",
            "due_at": now() + timedelta(hours=5),
            "response_status": 503,
            "response_text": "Back at nine.",
        },
    )
    for number, fields in enumerate(sent):
        kind = ("webhook.test", *EVENT_TYPES)[number]
        about = {"tenant_id": loaf.id, "endpoint_id": hook_id(1), "due_at": now()}
        created_at = now() - timedelta(hours=30 - 6 * number)
        event = {"type": kind, "data": {}}
        session.add(
            WebhookDelivery(**{**about, "event": event, "created_at": created_at, **fields})
        )
        await session.flush()
