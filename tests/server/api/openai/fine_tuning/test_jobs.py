"""``/v1/fine_tuning`` over HTTP: jobs, lists of them, events."""

import asyncio
from typing import Any

import pytest
from httpx2 import AsyncClient

from server.db.models import Job, JobState
from server.jobs import states
from tests.server.api.openai.fine_tuning.tuning import JOBS, Make, Tuning, row_id, tuning
from tests.server.api.openai.published import conforms

__all__ = ["tuning"]


async def test_a_job_is_made_from_a_file_and_seen_on_both_sides(tuning: Tuning) -> None:
    numbers = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 0.5}
    job = await tuning.job(
        suffix="Support_1",
        seed=5,
        metadata={"team": "care"},
        method={"type": "supervised", "supervised": {"hyperparameters": numbers}},
    )
    conforms(job, "FineTuningJob")
    assert (job["status"], job["model"], job["seed"]) == ("queued", "tiny-base", 5)
    assert job["training_file"] == tuning.file
    assert job["hyperparameters"] == numbers
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    assert job["metadata"] == {"team": "care"}
    empty = ("error", "fine_tuned_model", "finished_at", "trained_tokens", "estimated_finish")
    assert [job[name] for name in (*empty, "validation_file", "integrations")] == [None] * 7
    assert await tuning.get(job) == job
    listed = (await tuning.client.get(JOBS, headers=tuning.key)).json()
    conforms(listed, "ListPaginatedFineTuningJobsResponse")
    assert listed["data"] == [job]
    path = f"/admin/tenants/acme/jobs/{row_id(job)}"
    admin = (await tuning.client.get(path, headers=tuning.key)).json()
    assert (admin["state"], admin["suffix"]) == ("queued", "Support_1")
    assert admin["training_file"] == tuning.file


async def test_a_model_of_ones_own_is_what_a_job_begins_with(
    tuning: Tuning, make_tenant: Make, make_key: Make
) -> None:
    await make_tenant("other")
    first = await tuning.job(model="acme")
    assert first["model"] == "tiny-base", "nothing is live: the name means the base"
    adapter = await tuning.adapter(first)
    again = await tuning.job(model="acme@1")
    assert again["model"].startswith("ft:tiny-base:acme::")
    assert (await tuning.row(again)).start_adapter_id == adapter.id
    stranger = await make_key("other", "train")
    for model in ("gpt-4o-mini", "acme@1", again["model"]):
        missing = await tuning.ask(model=model, headers=stranger)
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"


async def test_a_repeated_creation_makes_one_job(tuning: Tuning) -> None:
    first = await tuning.ask(headers={"x-stainless-retry-count": "0"})
    again = await tuning.ask(headers={"x-stainless-retry-count": "1"})
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    keyed = {"idempotency-key": "one"}
    third = await tuning.job(headers=keyed)
    assert await tuning.job(headers=keyed) == third
    assert len((await tuning.client.get(JOBS, headers=tuning.key)).json()["data"]) == 2


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_job_that_ended_badly_is_made_anew_unless_a_key_asks_for_it(
    tuning: Tuning, end: JobState
) -> None:
    keyed = {"idempotency-key": "one"}
    kept = await tuning.job(headers=keyed)
    first = await tuning.job()
    assert (await tuning.ask()).json() == first
    for job in (kept, first):
        if end == "cancelled":
            assert (await tuning.do(job, "cancel"))[0] == 200
        else:
            await tuning.change(job, state=end)
    second = await tuning.job()
    assert second["id"] != first["id"]
    assert second["status"] == "queued"
    assert await tuning.job(headers=keyed) == kept, "an answer under a key stays what it was"
    assert (await tuning.ask()).json() == second


async def test_jobs_are_paged_and_filtered_by_metadata(
    tuning: Tuning, operator: dict[str, str], make_upload: Make
) -> None:
    await make_upload()
    tags: list[Any] = [{"a": "1"}, {"a": "1", 'q"u.o te': "ü"}, {"a": ""}, None]
    made = []
    for tag in tags:
        made.append((await tuning.job(metadata=tag))["id"])
        await asyncio.sleep(0.002)  # ids are ordered by the millisecond
    admin = await tuning.client.post("/admin/tenants/acme/jobs", json={}, headers=operator)
    made.append("ftjob-" + admin.json()["id"])

    async def ids(**params: Any) -> list[str]:
        answer = await tuning.client.get(JOBS, params=params, headers=tuning.key)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["data"]]

    newest = made[::-1]
    assert await ids() == newest
    assert await ids(limit=2) == newest[:2]
    assert await ids(limit=2, after=newest[1]) == newest[2:4]
    assert await ids(**{"metadata[a]": "1"}) == [made[1], made[0]]
    assert await ids(**{"metadata[a]": "1", 'metadata[q"u.o te]': "ü"}) == [made[1]]
    assert await ids(**{"metadata[a]": ""}) == [made[2]]
    assert await ids(**{"metadata[b]": "1"}) == []
    assert await ids(**{"metadata[a]": "1\0"}) == []
    assert await ids(metadata="null") == [made[4], made[3]]
    odd: list[dict[str, Any]] = [
        {"metadata": "null", "metadata[a]": "1"},
        {"metadata": "x"},
        {"after": "x"},
        {"limit": 0},
        {"limit": 101},
    ]
    for params in odd:
        refused = await tuning.client.get(JOBS, params=params, headers=tuning.key)
        assert refused.status_code == 400, params


async def test_another_tenants_job_is_no_job(
    tuning: Tuning, client: AsyncClient, make_tenant: Make, make_key: Make
) -> None:
    await make_tenant("other")
    job = await tuning.job()
    key = await make_key("other", "train")
    nothing = "ftjob-" + "0" * 32
    for method, action in (
        ("GET", ""),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/events"),
        ("GET", "/checkpoints"),
    ):
        strange = await client.request(method, f"{JOBS}/{job['id']}{action}", headers=key)
        missing = await client.request(method, f"{JOBS}/{nothing}{action}", headers=key)
        odd = await client.request(method, f"{JOBS}/nonsense{action}", headers=key)
        assert strange.status_code == missing.status_code == odd.status_code == 404
        assert strange.text.replace(job["id"], nothing) == missing.text
    assert (await client.get(JOBS, headers=key)).json()["data"] == []


async def test_events_are_told_newest_first_with_figures_of_steps(tuning: Tuning) -> None:
    job = await tuning.job()
    happened: list[tuple[str, dict[str, Any]]] = [
        ("state", {"state": "validating"}),
        ("warning", {"message": "2 exact duplicates"}),
        ("stage", {"stage": "training", "detail": "on cpu"}),
        ("estimate", {"seconds": 90, "train_tokens": 4000, "steps": 4}),
        ("step", {"step": 1, "steps": 4, "loss": 2.5, "accuracy": 0.25}),
        ("validation", {"step": 1, "loss": 2.25, "best": True, "accuracy": None}),
        ("checkpoint", {"step": 1}),
        ("error", {"code": "interrupted", "message": "stopped"}),
        ("resumed", {"step": 1}),
        ("evaluation", {"subject": "new", "done": 1, "total": 9}),
        ("verdict", {"passed": False, "summary": "left 1 of 3 gates open", "adapter": "acme@1"}),
        ("error", {"code": "internal", "message": "it broke"}),
        ("state", {"state": "failed", "error": {"code": "x", "message": "it broke"}}),
    ]
    async with tuning.database.transaction() as session:
        row = await session.get_one(Job, row_id(job))
        for kind, fields in happened:
            await states.add_event(session, row, kind=kind, body=fields)
    whole = await tuning.get(job, "/events")
    conforms(whole, "ListFineTuningJobEventsResponse")
    assert len(whole["data"]) == 13, "all but the one about evaluated replies"
    assert [event["level"] for event in whole["data"][:4]] == ["error", "error", "warn", "info"]
    figures = [event["data"] for event in whole["data"] if event["type"] == "metrics"]
    assert figures == [
        {"step": 1, "valid_loss": 2.25},
        {"step": 1, "total_steps": 4, "train_loss": 2.5, "train_mean_token_accuracy": 0.25},
    ]
    first = await tuning.get(job, "/events", limit=5)
    assert first["has_more"]
    second = await tuning.get(job, "/events", after=first["data"][-1]["id"], limit=100)
    assert not second["has_more"]
    assert first["data"] + second["data"] == whole["data"]
    path = f"{JOBS}/{job['id']}/events?after=x"
    assert (await tuning.client.get(path, headers=tuning.key)).status_code == 400
