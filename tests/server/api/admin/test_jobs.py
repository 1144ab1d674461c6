"""Jobs over HTTP: rows that a worker picks up."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from httpx2 import AsyncClient

from server.cli.jobs import _print_result
from server.db.models import Job
from server.db.session import Database
from server.errors import Invalid
from server.jobs import service, states
from server.jobs.parity import worker_token
from server.jobs.schemas import JobRequest
from server.settings import Settings

Make = Callable[..., Awaitable[Any]]
JOBS = "/admin/tenants/acme/jobs"


async def test_a_job_is_queued_with_its_recipe_and_objectives(
    client: AsyncClient, operator: dict[str, str], make_tenant: Make, make_upload: Make
) -> None:
    await make_tenant()
    await make_upload()
    body = {"recipe": "cpu-demo", "objectives": {"max_perplexity": 3.0}, "seed": 5}
    made = await client.post(JOBS, json=body, headers=operator)
    assert made.status_code == 201, made.text
    job = made.json()
    assert (job["state"], job["recipe"], job["seed"]) == ("queued", "cpu-demo", 5)
    assert job["objectives"]["max_perplexity"] == 3.0
    assert job["objectives"]["max_parity_nats"] == 0.05
    assert (await client.get(JOBS, headers=operator)).json() == [job]
    events = (await client.get(f"{JOBS}/{job['id']}/events", headers=operator)).json()
    assert [(e["seq"], e["kind"], e["body"]) for e in events] == [(1, "state", {"state": "queued"})]


@pytest.mark.parametrize("recipe", ["nonsense", "../../etc/passwd", "/tmp/recipe.toml"])
async def test_an_unknown_recipe_is_refused_by_name(
    client: AsyncClient, operator: dict[str, str], make_tenant: Make, recipe: str
) -> None:
    await make_tenant()
    refused = await client.post(JOBS, json={"recipe": recipe}, headers=operator)
    assert refused.status_code == 400
    assert "cpu-small" in refused.json()["detail"]


@pytest.mark.parametrize("suffix", ["x:y", "../..", "\u00e9\n[x]", "ok\n", "x" * 65])
async def test_a_suffix_that_no_name_can_hold_is_refused(
    client: AsyncClient,
    operator: dict[str, str],
    *,
    make_tenant: Make,
    make_upload: Make,
    suffix: str,
) -> None:
    await make_tenant()
    await make_upload()
    refused = await client.post(JOBS, json={"suffix": suffix}, headers=operator)
    assert refused.status_code == 400
    assert "suffix" in refused.text
    made = await client.post(JOBS, json={"suffix": "Ok_1-x"}, headers=operator)
    assert made.json()["suffix"] == "Ok_1-x"


async def test_the_command_lines_suffix_is_held_to_the_same(
    make_tenant: Make, database: Database, settings: Settings
) -> None:
    tenant = await make_tenant()
    async with database.transaction() as session:
        with pytest.raises(Invalid, match="suffix"):
            await service.create_job(
                session, tenant, request=JobRequest(suffix="x:y"), settings=settings
            )


async def test_a_tenant_without_transcripts_is_told_to_upload_some(
    client: AsyncClient, operator: dict[str, str], make_tenant: Make, make_upload: Make
) -> None:
    await make_tenant()
    await make_upload(state="failed")
    refused = await client.post(JOBS, json={}, headers=operator)
    assert refused.status_code == 409
    assert refused.json()["code"] == "no_transcripts"
    assert "upload" in refused.json()["detail"]
    assert (await client.get(JOBS, headers=operator)).json() == []


async def test_a_misspelt_objective_is_refused(
    client: AsyncClient, operator: dict[str, str], make_tenant: Make
) -> None:
    await make_tenant()
    body = {"objectives": {"max_perplexty": 3.0}}
    refused = await client.post(JOBS, json=body, headers=operator)
    assert refused.status_code == 400
    assert "max_perplexty" in refused.text


async def test_another_tenants_job_answers_like_one_that_never_existed(
    client: AsyncClient,
    operator: dict[str, str],
    *,
    make_tenant: Make,
    make_upload: Make,
    make_key: Make,
) -> None:
    await make_tenant("acme")
    await make_upload()
    await make_tenant("other")
    job = (await client.post(JOBS, json={}, headers=operator)).json()
    key = await make_key("other", "train")
    stranger = await client.get(f"/admin/tenants/other/jobs/{job['id']}", headers=key)
    missing = await client.get(f"/admin/tenants/other/jobs/{'0' * 32}", headers=key)
    assert stranger.status_code == missing.status_code == 404
    assert stranger.json()["detail"].replace(job["id"], "") == missing.json()["detail"].replace(
        "0" * 32, ""
    )
    assert (await client.get(JOBS, headers=key)).status_code == 404


async def test_a_chat_key_starts_no_job(
    client: AsyncClient, make_tenant: Make, make_key: Make
) -> None:
    await make_tenant()
    refused = await client.post(JOBS, json={}, headers=await make_key("acme", "chat"))
    assert refused.status_code == 403


async def test_a_finished_job_cannot_be_cancelled(
    client: AsyncClient,
    operator: dict[str, str],
    *,
    make_tenant: Make,
    make_upload: Make,
    database: Database,
) -> None:
    await make_tenant()
    await make_upload()
    job = (await client.post(JOBS, json={}, headers=operator)).json()
    cancelled = await client.post(f"{JOBS}/{job['id']}/cancel", headers=operator)
    assert cancelled.status_code == 200
    async with database.transaction() as session:
        row = await session.get_one(Job, job["id"])
        assert row.cancel_requested
        assert row.state == "cancelled", "no worker had started it"
        assert not await states.set_state(session, row, "succeeded"), "an end is an end"
    again = await client.post(f"{JOBS}/{job['id']}/cancel", headers=operator)
    assert again.status_code == 409


async def test_only_a_job_that_awaits_approval_takes_a_decision_and_only_one(
    client: AsyncClient,
    operator: dict[str, str],
    *,
    make_tenant: Make,
    make_upload: Make,
    database: Database,
) -> None:
    await make_tenant()
    await make_upload()
    job = (await client.post(JOBS, json={"require_approval": True}, headers=operator)).json()
    path = f"{JOBS}/{job['id']}/decision"
    early = await client.post(path, json={"decision": "approved"}, headers=operator)
    assert early.status_code == 409
    async with database.transaction() as session:
        row = await session.get_one(Job, job["id"])
        await states.set_state(session, row, "awaiting_approval")
    first = await client.post(path, json={"decision": "approved"}, headers=operator)
    second = await client.post(path, json={"decision": "rejected"}, headers=operator)
    assert (first.status_code, second.status_code) == (200, 409)


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        (None, 0, "is live"),  # of a job from before there were outcomes
        ({"gates": "better", "summary": "passed all 3 gates", "promoted": True}, 0, "is live"),
        (
            {"gates": "cannot_tell", "summary": "s", "reason": "left 1 of 3 gates open: too few"},
            1,
            "`tenantune adapters promote 4 --tenant acme` makes it live\n",
        ),
        ({"gates": "worse", "summary": "s", "reason": "failed 1 of 3 gates"}, 1, "with --force"),
        (
            {"gates": "cannot_tell", "summary": "left 1 of 5 gates open"},
            1,
            "` makes it live, and `",
        ),
    ],
)
async def test_the_command_line_tells_a_job_that_went_live_from_one_that_did_not(
    make_tenant: Make,
    database: Database,
    *,
    capsys: pytest.CaptureFixture[str],
    outcome: dict[str, object] | None,
    code: int,
    says: str,
) -> None:
    tenant = await make_tenant()
    async with database.transaction() as session:
        job = Job(tenant_id=tenant.id, base="b", recipe_name="r", state="succeeded")
        job.outcome = outcome
        if outcome and not {"reason", "promoted"} & outcome.keys():
            job.state = "awaiting_approval"
        session.add(job)
        await session.flush()
        view = msgspec.structs.replace(
            await service.view(session, job, tenant.slug), adapter="acme@4"
        )
    left = 0
    try:
        _print_result(view, as_json=False)
    except SystemExit as exc:
        left = int(str(exc.code))
    printed = capsys.readouterr().err
    assert left == code
    assert says in printed
    assert "acme@4" in printed
    if outcome and "reason" in outcome:
        assert str(outcome["reason"]) in printed
        assert "it answers as 'acme@4'" in printed


async def test_events_are_numbered_without_gaps_and_read_from_where_one_left_off(
    client: AsyncClient,
    operator: dict[str, str],
    *,
    make_tenant: Make,
    make_upload: Make,
    database: Database,
) -> None:
    await make_tenant()
    await make_upload()
    job = (await client.post(JOBS, json={}, headers=operator)).json()
    for number in range(5):
        async with database.transaction() as session:
            row = await session.get_one(Job, job["id"])
            await states.add_event(session, row, kind="step", body={"step": number})
    path = f"{JOBS}/{job['id']}/events"
    events = (await client.get(path, params={"after": 3}, headers=operator)).json()
    assert [(e["seq"], e["body"]["step"]) for e in events] == [(4, 2), (5, 3), (6, 4)]


async def test_scoring_is_for_this_installations_workers_alone(
    client: AsyncClient, operator: dict[str, str], settings: Settings
) -> None:
    asked = msgspec.json.encode({"tenant": "acme", "adapter_name": "a", "sequences": []})
    path = "/internal/score"
    assert (await client.post(path, content=asked)).status_code == 401
    assert (await client.post(path, content=asked, headers=operator)).status_code == 401
    token = {"authorization": f"Bearer {worker_token(settings)}"}
    for name in ("../../etc", "/etc", "acme.0123456789ab"):
        body: dict[str, Any] = {"tenant": "acme", "adapter_name": name, "sequences": []}
        refused = await client.post(path, json=body, headers=token)
        assert refused.status_code == 400, refused.text
    path_of_token = settings.run / "worker.token"
    assert path_of_token.stat().st_mode & 0o077 == 0
