"""What the pages show in the browser tests: made-up companies and what happened there."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import (
    Adapter,
    ConversationRow,
    DatasetVersion,
    Import,
    Job,
    SourceFile,
    UsageDay,
    now,
)
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest

LOAF, NORTHGATE = "loaf", "northgate"
BASE = "smollm2-135m-instruct"


async def seed(session: AsyncSession) -> None:
    """Two tenants: one at work, one that has nothing yet."""
    loaf = await tenants.create(session, TenantRequest(slug=LOAF, name="Lumen & Loaf"))
    await tenants.create(session, TenantRequest(slug=NORTHGATE, name="Northgate Parcel Logistics"))
    await session.flush()
    source = SourceFile(
        tenant_id=loaf.id, filename="helpdesk-october.jsonl", sha256="1" * 64, size_bytes=120_000
    )
    broken = SourceFile(
        tenant_id=loaf.id, filename="helpdesk-november.csv", sha256="2" * 64, size_bytes=9_000
    )
    session.add_all([source, broken])
    await session.flush()
    done = Import(tenant_id=loaf.id, source_file_id=source.id, state="done", finished_at=now())
    failed = Import(
        tenant_id=loaf.id,
        source_file_id=broken.id,
        state="failed",
        finished_at=now() - timedelta(hours=3),
        error={"message": "no column holds the text of messages; name one with text=COLUMN"},
    )
    session.add_all([done, failed])
    await session.flush()
    for number in range(40):
        session.add(
            ConversationRow(
                tenant_id=loaf.id,
                import_id=done.id,
                external_id=str(number),
                digest=f"{number:064x}",
                body={"turns": []},
            )
        )
    dataset = DatasetVersion(
        tenant_id=loaf.id, sha256="3" * 64, counts={"train": 208, "validation": 26, "test": 26}
    )
    session.add(dataset)
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
    loaf.live_adapter_id = adapters[1].id
    for days, state, adapter in (
        (10, "succeeded", adapters[0]),
        (7, "succeeded", adapters[1]),
        (2, "failed", None),
        (1, "awaiting_approval", adapters[2]),
        (0, "running", None),
    ):
        session.add(
            Job(
                tenant_id=loaf.id,
                state=state,
                stage=state,
                base=BASE,
                recipe_name="cpu-small",
                created_at=now() - timedelta(days=days, hours=2),
                dataset_id=dataset.id,
                adapter_id=adapter.id if adapter else None,
                gpu_seconds=184.0,
                progress={"step": 24, "max_steps": 40} if state == "running" else {},
            )
        )
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
