"""Usage: shares of the engine's time add up, rows are grouped, and CSV is safe to open."""

import asyncio
import csv
import io
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from server.db.models import Job, UsageDay
from server.errors import Invalid
from server.usage import report
from server.usage.engine_time import EngineTime
from server.usage.ledger import UsageLedger
from server.usage.report import to_csv, usage_of
from server.usage.schemas import Usage, UsageView

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)
COUNTS: dict[str, Any] = {
    "requests": 1,
    "errors": 0,
    "refused": 3,
    "prompt_tokens": 10,
    "cached_tokens": 5,
    "completion_tokens": 2,
    "gpu_seconds": 0.5,
}


class Clock:
    """The time, which a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_request_alone_gets_all_of_its_time_and_two_share():
    clock = Clock()
    busy = EngineTime(clock)
    clock.now += 50  # idle
    first = busy.enter()
    clock.now += 4
    second = busy.enter()
    clock.now += 6
    assert busy.leave(first) == 7.0
    clock.now += 1
    assert busy.leave(second) == 4.0
    clock.now += 100
    third = busy.enter()
    assert busy.leave(third) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_shares_add_up_to_the_time_that_the_engine_was_busy(seed):
    chance = random.Random(seed)
    clock, busy_seconds = Clock(), 0.0
    open_requests: list[float] = []
    shares: list[float] = []
    busy = EngineTime(clock)
    for _ in range(500):
        if open_requests and chance.random() < 0.5:
            entered = open_requests.pop(chance.randrange(len(open_requests)))
            shares.append(busy.leave(entered))
        else:
            open_requests.append(busy.enter())
        step = chance.expovariate(1.0)
        clock.now += step
        busy_seconds += step if open_requests else 0.0
    shares += [busy.leave(entered) for entered in open_requests]
    assert min(shares) >= 0
    assert sum(shares) == pytest.approx(busy_seconds)


@pytest_asyncio.fixture
async def used(database, make_tenant) -> None:
    """Two tenants, two days, two keys, two models, and two jobs."""
    acme, other = await make_tenant("acme"), await make_tenant("other")
    async with database.transaction() as session:
        for tenant in (acme, other):
            for day in (MONDAY, TUESDAY):
                for key_id in ("k1", "k2"):
                    for model in ("base", "acme@1"):
                        session.add(
                            UsageDay(
                                tenant_id=tenant.id, day=day, key_id=key_id, model=model, **COUNTS
                            )
                        )
        ended = {
            "just before midnight": datetime(2026, 3, 2, 23, 59, 59, 999_999, UTC),
            "unfinished": None,
        }
        for finished_at in ended.values():
            session.add(
                Job(
                    tenant_id=acme.id,
                    base="base",
                    recipe_name="r",
                    gpu_seconds=60.0,
                    finished_at=finished_at,
                    state="succeeded" if finished_at else "running",
                )
            )


async def fetch(client: Any, path: str, headers: dict[str, str]) -> Any:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_rows_are_by_day_model_and_key_unless_asked_otherwise(client, operator, used):
    address = "/admin/tenants/acme/usage"
    rows = await fetch(client, address, operator)
    assert len(rows) == 9
    assert [row["day"] for row in rows] == ["2026-03-03"] * 4 + ["2026-03-02"] * 5
    assert {row["tenant"] for row in rows} == {"acme"}
    [training] = [row for row in rows if row["model"] == "training:base"]
    assert (training["day"], training["key_id"]) == ("2026-03-02", "")
    assert (training["gpu_seconds"], training["requests"]) == (60.0, 0)
    by_model = await fetch(client, f"{address}?group_by=model", operator)
    assert [(row["day"], row["key_id"], row["model"], row["requests"]) for row in by_model] == [
        (None, None, "acme@1", 4),
        (None, None, "base", 4),
        (None, None, "training:base", 0),
    ]
    assert by_model[0]["gpu_seconds"] == 2.0
    assert by_model[0]["prompt_tokens"] == 40
    assert by_model[0]["refused"] == 12
    by_two = await fetch(client, f"{address}?group_by=day&group_by=key&first=2026-03-03", operator)
    assert [(row["day"], row["key_id"], row["requests"]) for row in by_two] == [
        ("2026-03-03", "k1", 2),
        ("2026-03-03", "k2", 2),
    ]
    monday = await fetch(client, f"{address}?group_by=day&last=2026-03-02", operator)
    assert [(row["requests"], row["gpu_seconds"]) for row in monday] == [(4, 62.0)]
    far = await fetch(client, f"{address}?group_by=day&last=9999-12-31", operator)
    assert len(far) == 2


async def test_the_operator_sees_all_tenants_and_a_tenant_only_itself(
    client, operator, used, make_key
):
    rows = await fetch(client, "/admin/usage?group_by=day", operator)
    assert [(row["tenant"], row["day"], row["requests"]) for row in rows] == [
        ("acme", "2026-03-03", 4),
        ("other", "2026-03-03", 4),
        ("acme", "2026-03-02", 4),
        ("other", "2026-03-02", 4),
    ]
    admin = await make_key("acme", "admin")
    assert (await client.get("/admin/usage", headers=admin)).status_code == 403
    assert (await client.get("/admin/usage")).status_code == 401
    rows = await fetch(client, "/admin/tenants/acme/usage", admin)
    assert {row["tenant"] for row in rows} == {"acme"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "query", ["group_by=hour", "group_by=", "format=xml", "first=yesterday", "last=2026-13-01"]
)
async def test_a_question_that_makes_no_sense_is_refused(client, operator, used, query):
    for path in ("/admin/usage", "/admin/tenants/acme/usage"):
        answer = await client.get(f"{path}?{query}", headers=operator)
        assert answer.status_code == 400
        assert answer.json()["param"] == query.partition("=")[0]


async def test_csv_has_a_header_and_the_same_rows(client, operator, used):
    for path in ("/admin/usage", "/admin/tenants/acme/usage"):
        rows = await fetch(client, path, operator)
        answer = await client.get(f"{path}?format=csv", headers=operator)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
        assert "usage.csv" in answer.headers["content-disposition"]
        read = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [list(row.values()) for row in read] == [
            ["" if value is None else str(value) for value in row.values()] for row in rows
        ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_begins_like_a_formula(start):
    model = start + 'HYPERLINK("http://example.com","x"),\r\n=1+1'
    row = UsageView(tenant="acme", day=MONDAY, model=model, key_id=start, **COUNTS)
    text = to_csv([row])
    [header, cells] = csv.reader(io.StringIO(text, newline=""))
    assert header[:4] == ["tenant", "day", "model", "key_id"]
    assert cells[2:4] == ["'" + model, "'" + start]
    assert '""http://example.com""' in text
    assert text.endswith("0.5\r\n")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_no_cell_that_is_downloaded_begins_like_a_formula(
    client, operator, database, make_tenant
):
    tenant = await make_tenant("acme")
    async with database.transaction() as session:
        session.add(UsageDay(tenant_id=tenant.id, day=MONDAY, key_id="@k", model="=1+1", **COUNTS))
    for path in ("/admin/usage", "/admin/tenants/acme/usage"):
        answer = await client.get(f"{path}?format=csv", headers=operator)
        assert answer.text.splitlines()[1].startswith("acme,2026-03-02,'=1+1,'@k,")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_rows_are_bounded(database, used, monkeypatch):
    monkeypatch.setattr(report, "MAX_ROWS", 8)
    async with database.reading() as session:
        with pytest.raises(Invalid):
            await usage_of(session, None)
        assert len(await usage_of(session, None, by=["model"])) == 5


async def test_seconds_are_added_up_in_memory_and_in_the_database(database, make_tenant):
    tenant = await make_tenant("acme")
    ledger = UsageLedger(database)
    usage = Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    for flush in (False, True, True):
        ledger.add(usage, tenant_id=tenant.id, key_id="k", model="m", gpu_seconds=0.25)
        if flush:
            await ledger.flush()
    async with database.reading() as session:
        [row] = await usage_of(session, tenant.id)
    assert (row.requests, row.gpu_seconds, row.prompt_tokens) == (3, 0.75, 9)
    assert row.day is not None
    assert abs(row.day - datetime.now(UTC).date()) <= timedelta(days=1)


async def test_a_reader_waits_for_counts_that_another_is_writing(
    database, make_tenant, monkeypatch
):
    tenant = await make_tenant("acme")
    ledger = UsageLedger(database)
    writing, may_write = asyncio.Event(), asyncio.Event()
    write = ledger._write

    async def slowly(pending: Any) -> None:
        if not writing.is_set():
            writing.set()
            await may_write.wait()
        await write(pending)

    async def requests() -> int:
        await ledger.flush()
        async with database.reading() as session:
            return sum(row.requests for row in await usage_of(session, tenant.id))

    monkeypatch.setattr(ledger, "_write", slowly)
    usage = Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    ledger.add(usage, tenant_id=tenant.id, key_id="k", model="m")
    async with asyncio.TaskGroup() as group:
        group.create_task(ledger.flush())
        await writing.wait()
        ledger.add(usage, tenant_id=tenant.id, key_id="k", model="m")
        reading = group.create_task(requests())
        await asyncio.sleep(0.05)
        assert not reading.done()
        may_write.set()
    assert reading.result() == 2
