"""Runs as pages list and compare them, their gates, and what a new one would need; on both databases."""

import csv
import io

import pytest

from server.db.models import ConversationRow, Import, Job, SourceFile, Tenant
from server.errors import Invalid, NotFound
from server.jobs import runs
from server.jobs.declared_gates import decided_gates, declared_gates
from server.jobs.estimates import Prospect, estimate_run
from server.settings import Settings
from tests.server.jobs.fake_runs import estimate, make_run, make_version, step, validation
from training.config import recipe_names


async def listed(database, tenant: Tenant, **how) -> list[runs.Run]:
    async with database.reading() as session:
        fresh = await session.get_one(Tenant, tenant.id)
        return await runs.list_runs(session, fresh, **how)


async def test_runs_are_listed_newest_first_with_a_word_and_their_figures(
    database, make_tenant
) -> None:
    tenant = await make_tenant()
    first = await make_run(database, tenant, state="succeeded", actor="person:1")
    await make_version(database, tenant, first, version=1, live=True)
    second = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, second, version=2, state="failed_gates")
    third = await make_run(database, tenant)
    found = await listed(database, tenant)
    assert [(run.id, run.name, run.state.word) for run in found] == [
        (third.id, "", "Training"),
        (second.id, "acme@2", "Gate failed"),
        (first.id, "acme@1", "Live"),
    ]
    assert (found[2].perplexity, found[2].token_f1, found[2].conversations) == (5.9, 0.41, 260)
    assert (found[2].actor, found[0].actor) == ("person:1", None)
    assert (found[0].perplexity, found[0].token_f1) == (None, None)


async def test_runs_are_paged_by_the_last_one(database, make_tenant) -> None:
    tenant = await make_tenant()
    made = [(await make_run(database, tenant, state="queued")).id for _ in range(3)]
    first = await listed(database, tenant, limit=2)
    assert [run.id for run in first] == made[:0:-1]
    rest = await listed(database, tenant, limit=2, after=first[-1].id)
    assert [run.id for run in rest] == [made[0]]


async def test_another_tenants_runs_are_not_listed_nor_compared(database, make_tenant) -> None:
    tenant, other = await make_tenant(), await make_tenant("other")
    theirs = await make_run(database, other)
    mine = await make_run(database, tenant)
    assert [run.id for run in await listed(database, tenant)] == [mine.id]
    async with database.reading() as session:
        with pytest.raises(NotFound):
            await runs.compare(session, tenant, [mine.id, theirs.id])


@pytest.mark.parametrize(
    ("state", "how", "word"),
    [
        ("queued", {}, "Queued"),
        ("running", {"stopping": "cancel"}, "Cancelling"),
        ("running", {"stopping": "pause"}, "Pausing"),
        ("failed", {"stopping": "cancel"}, "Failed"),
        ("awaiting_approval", {"adapter": "ready"}, "Needs approval"),
        ("succeeded", {"adapter": "ready"}, "Ready"),
        ("succeeded", {"adapter": "ready", "decision": "rejected"}, "Rejected"),
        ("succeeded", {"adapter": "ready", "decision": "rejected", "live": True}, "Live"),
        ("succeeded", {"adapter": "candidate"}, "Undecided"),
        ("succeeded", {"adapter": "unsafe"}, "Unsafe"),
        ("succeeded", {}, "Deleted"),
    ],
)
def test_each_state_has_a_word(state, how, word: str) -> None:
    found = runs.run_state(state, **{"adapter": None, "live": False, **how})
    assert found.word == word
    assert found.going == (state in {"queued", "running", "awaiting_approval"})


async def test_two_to_four_runs_are_compared_in_the_order_asked_for(database, make_tenant) -> None:
    tenant = await make_tenant()
    made = [await make_run(database, tenant) for _ in range(5)]
    await step(database, made[1], 1)
    ids = [job.id for job in made]
    async with database.reading() as session:
        found = await runs.compare(session, tenant, [ids[2], ids[1]])
        assert [each.run.id for each in found] == [ids[2], ids[1]]
        assert [len(each.curve.points) for each in found] == [0, 1]
        for wrong in ([], ids[:1], ids, [ids[0], ids[0]]):
            with pytest.raises(Invalid, match="2 to 4 runs"):
                await runs.compare(session, tenant, wrong)


async def test_the_csv_of_runs_holds_no_formula(database, make_tenant) -> None:
    tenant = await make_tenant()
    job = await make_run(database, tenant, state="succeeded", recipe_name="=1+1")
    await make_version(database, tenant, job, version=1)
    rows = list(csv.reader(io.StringIO(runs.to_csv(await listed(database, tenant)).decode())))
    assert rows[0] == list(runs.CSV_COLUMNS)
    assert rows[1][:6] == ["acme@1", "Ready", "'=1+1", "5.9000", "0.4100", "260"]


def job_with(**fields) -> Job:
    return Job(**{"base": "tiny-base", "objectives": {}, "method": None, **fields})


async def test_gates_are_named_before_the_run_by_what_was_declared(database, make_tenant) -> None:
    names = [gate.name for gate in declared_gates(job_with(), live=None)]
    assert names == ["perplexity_ratio", "similarity_gain", "parity"]
    tenant = await make_tenant()
    job = await make_run(database, tenant, state="succeeded")
    live = await make_version(database, tenant, job, version=1)
    declared = job_with(objectives={"max_perplexity": 6.0, "min_exact": 0.25})
    gates = declared_gates(declared, live=live)
    assert [gate.name for gate in gates] == [
        "perplexity_ratio",
        "live_perplexity_ratio",
        "similarity_gain",
        "parity",
        "perplexity",
        "exact",
    ]
    assert {gate.state for gate in gates} == {"later"}
    assert gates[4].title == "Perplexity at most 6"
    assert gates[4].evidence == "on held-out conversations; live: 5.90 on its own"
    assert gates[0].evidence == "at most 0.80 of its, on held-out conversations"
    assert gates[5].title == "25% of replies word for word"
    # what is live was made of another base: nothing compares the two
    elsewhere = declared_gates(job_with(base="another"), live=live)
    assert "live_perplexity_ratio" not in [gate.name for gate in elsewhere]
    objectives = {"min_lookup_f1_gain": -0.05, "max_invented_gain": 0.05}
    told = declared_gates(job_with(objectives=objectives), live=None)[2:4]
    assert [(gate.name, gate.evidence) for gate in told] == [
        ("lookup_f1_gain", "words shared with the agents' replies (token F1), -0.05 at least"),
        ("invented_gain", "share of replies with a fact that nobody has said, +0.05 at most"),
    ]
    pairs = declared_gates(job_with(method={"type": "dpo"}), live=None)
    assert pairs[0].name == "preference_accuracy"


def test_gates_have_their_evidence_after_the_run() -> None:
    gate = {"name": "parity", "value": 0.01, "bound": 0.05, "passed": True, "why": "by 0.01 nats"}
    worse = {"name": "perplexity_ratio", "value": 0.9, "bound": 0.8, "why": "ratio 0.9"}
    verdict = {
        "passed": False,
        "gates": [
            {**gate, "result": "better"},
            {**worse, "passed": False, "result": "worse"},
            {**worse, "name": "exact", "passed": False, "result": "cannot_tell"},
        ],
    }
    found = decided_gates({"verdict": verdict})
    assert [(g.name, g.state) for g in found] == [
        ("parity", "passed"),
        ("perplexity_ratio", "failed"),
        ("exact", "open"),
    ]
    assert (found[0].title, found[0].evidence) == ("Served as trained", "by 0.01 nats")


async def conversations(database, tenant: Tenant, count: int, *, letters: int = 400) -> None:
    async with database.transaction() as session:
        source = SourceFile(tenant_id=tenant.id, filename="a", sha256=tenant.id * 2, size_bytes=1)
        session.add(source)
        await session.flush()
        made = Import(tenant_id=tenant.id, source_file_id=source.id, state="done")
        session.add(made)
        await session.flush()
        for number in range(count):
            turns = [{"role": "customer", "text": "a" * (letters // 2)}] * 2
            session.add(
                ConversationRow(
                    tenant_id=tenant.id,
                    import_id=made.id,
                    external_id=str(number),
                    digest=f"{number:064}",
                    body={"id": str(number), "turns": turns},
                )
            )


async def prospect(database, tenant: Tenant, settings: Settings) -> Prospect:
    async with database.reading() as session:
        return await estimate_run(session, tenant, settings=settings)


async def test_a_tenant_without_conversations_is_told_how_many_are_missing(
    database, make_tenant, make_upload, settings
) -> None:
    tenant = await make_tenant()
    found = await prospect(database, tenant, settings)
    assert (found.conversations, found.missing, found.can_start) == (0, 10, False)
    await make_upload()
    found = await prospect(database, tenant, settings)
    assert (found.missing, found.unread, found.can_start) == (10, 1, True)


async def test_before_any_run_the_estimate_has_tokens_and_memory_but_no_time(
    database, make_tenant, settings
) -> None:
    tenant = await make_tenant()
    await conversations(database, tenant, 20)
    found = await prospect(database, tenant, settings)
    first = found.recipes[0]  # what a run gets that names none
    assert (first.recipe, first.impossible) == ("cpu-small", "")
    assert sorted(each.recipe for each in found.recipes) == recipe_names()
    small = found.of("cpu-small")
    assert small is not None
    # 20 conversations of 400 letters, 0.8 of them trained on, twice
    assert (small.tokens, small.seconds, small.memory_bytes) == (3200, None, 5_000_000_000)
    assert "nothing was trained here yet" in found.basis
    assert small.summary.startswith("Two CPU cores")


async def test_the_estimate_rests_on_the_tenants_own_last_run(
    database, make_tenant, settings
) -> None:
    tenant = await make_tenant()
    await conversations(database, tenant, 26)
    job = await make_run(
        database, tenant, state="running", gpu_seconds=40.0, progress={"examples": 208}
    )
    await estimate(database, job)
    await step(database, job, 2, tokens_per_second=100.0, tokens=2080, epoch=0.5)
    found = await prospect(database, tenant, settings)
    assert found.basis == "estimated from this tenant's last run"
    small = found.of("cpu-small")
    assert small is not None
    # 20 tokens a conversation, 208 of 260 trained on, two epochs; and 40 - 20.8 s beside the steps
    assert small.tokens == 832
    assert small.seconds == pytest.approx(8.32 + 19.2)
    assert small.memory_bytes == 2_684_354_560


async def test_the_speed_of_another_tenants_run_is_used_where_there_is_none_of_ones_own(
    database, make_tenant, settings
) -> None:
    job = await make_run(database, await make_tenant("other"), gpu_seconds=30.0)
    await step(database, job, 1, tokens_per_second=100.0, tokens=1000)
    elsewhere = await make_run(database, await make_tenant("third"), base="another")
    await step(database, elsewhere, 1, tokens_per_second=9999.0)
    tenant = await make_tenant()
    await conversations(database, tenant, 20)
    found = await prospect(database, tenant, settings)
    small = found.of("cpu-small")
    assert small is not None
    assert small.seconds == pytest.approx(32.0 + 20.0)
    assert found.basis.startswith("estimated from the last run here")


async def test_a_validation_alone_shows_no_speed(database, make_tenant, settings) -> None:
    tenant = await make_tenant()
    await validation(database, await make_run(database, tenant), 1, loss=1.0)
    assert "nothing was trained" in (await prospect(database, tenant, settings)).basis
