"""What was used as people look at it: days without gaps, models and keys by their names, on both databases."""

from datetime import date, timedelta

from server.auth import keys
from server.auth.schemas import KeyRequest
from server.db.models import Job, Person, UsageDay, now
from server.usage import overview
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage

LAST = date(2026, 3, 3)
FIRST = LAST - timedelta(days=6)


async def test_days_have_no_gaps_and_models_and_keys_have_names(database, make_tenant):
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    async with database.transaction() as session:
        person = Person(email="ana@example.com", name="Ana")
        session.add(person)
        _, key = await keys.create(session, KeyRequest(label="shop"), tenant=acme)
        _, theirs = await keys.create(session, KeyRequest(label="secret name"), tenant=zoo)
        await session.flush()
        for number, (key_id, model, day) in enumerate(
            [
                (key.id, "acme@2", LAST),
                (person.id, "acme@2", FIRST),
                (theirs.id, "base", LAST),  # as if it were another tenant's
                ("", "base", LAST),
                (key.id, "base", FIRST - timedelta(days=1)),
            ]
        ):
            session.add(
                UsageDay(
                    tenant_id=acme.id,
                    key_id=key_id,
                    model=model,
                    day=day,
                    requests=2,
                    refused=1,
                    prompt_tokens=100 - number,
                    completion_tokens=10,
                    gpu_seconds=0.5,
                )
            )
        session.add(UsageDay(tenant_id=zoo.id, key_id="", model="base", day=LAST, requests=50))
        session.add(
            Job(
                tenant_id=acme.id,
                base="base",
                recipe_name="r",
                gpu_seconds=60.0,
                state="succeeded",
                finished_at=now().replace(2026, 3, 2),
            )
        )
        await session.flush()
        seen = await overview.of_one(session, acme, first=FIRST, last=LAST)
        everyone = await overview.of_all(session, first=FIRST, last=LAST)
    assert [each.day for each in seen.days] == [FIRST + timedelta(days=n) for n in range(7)]
    assert [each.use.requests for each in seen.days] == [2, 0, 0, 0, 0, 0, 6]
    assert seen.days[5].use == overview.Use(trainer_seconds=60.0)
    assert (seen.total.requests, seen.total.refused, seen.total.engine_seconds) == (8, 4, 2.0)
    assert seen.total.trainer_seconds == 60.0
    assert [(each.name, each.version, each.use.tokens) for each in seen.models] == [
        ("acme@2", 2, 219),
        ("base", None, 215),
        ("Training on base", None, 0),
    ]
    assert [(each.name, each.kind) for each in seen.keys] == [
        (f"shop, {key.prefix}…", "key"),
        ("Ana, in the console", "person"),
        ("A key that is gone", "gone"),
        ("Without a key", "other"),
        ("Training", "other"),
    ]
    assert {slug: use.requests for slug, use in everyone.items()} == {"acme": 8, "zoo": 50}


async def test_what_a_limit_refuses_is_no_request(database, make_tenant):
    tenant = await make_tenant("acme")
    ledger = UsageLedger(database)
    usage = Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    ledger.add(usage, tenant_id=tenant.id, key_id="k", model="m")
    ledger.refuse(tenant_id=tenant.id, key_id="k", model="m")
    await ledger.flush()
    ledger.refuse(tenant_id=tenant.id, key_id="k", model="m")
    await ledger.flush()
    today = now().date()
    async with database.reading() as session:
        seen = await overview.of_one(session, tenant, first=today, last=today)
    assert (seen.total.requests, seen.total.refused, seen.total.tokens) == (1, 2, 4)
