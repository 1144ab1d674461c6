"""How fine-tuning jobs pause, end, and leave a model and its figures, or none."""

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from server.datasets.creation import create_from_files
from server.db.models import (
    Adapter,
    AdapterState,
    DatasetVersion,
    Job,
    Tenant,
    WebhookDelivery,
    WebhookEndpoint,
    now,
)
from server.files import service as files
from server.jobs import results, states
from server.jobs.cleanup import cleanup_finished
from server.jobs.steps import gate
from server.jobs.steps.context import Superseded
from server.jobs.steps.end import end, pause
from server.jobs.steps.gate import keep_results
from server.jobs.steps.prepare import prepare
from server.jobs.steps.promote import await_approval, promote
from server.jobs.steps.publish import publish
from server.jobs.trainer_process import TrainingCancelled, TrainingFailed, TrainingPaused
from server.knowledge.service import delete_article
from tests.server.api.openai.fine_tuning.tuning import Make, Tuning, chat, lines, row_id, tuning
from tests.server.api.openai.published import conforms
from tests.server.knowledge.conftest import Encoder, Knowledge
from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.reports.test_report import report
from training.adapters.package import MANIFEST_NAME
from training.config import Objectives, TrainingSpec, load_spec
from training.data.dataset import load
from training.evaluation.gates import apply_gates
from training.retrieval.articles import ArticleIndex

__all__ = ["tuning"]


async def test_a_queued_job_is_paused_resumed_and_cancelled_at_once(tuning: Tuning) -> None:
    job = await tuning.job()
    assert (await tuning.do(job, "resume"))[0] == 400
    for _ in range(2):
        status, paused = await tuning.do(job, "pause")
        assert status == 200
        conforms(paused, "FineTuningJob")
        assert (paused["status"], (await tuning.row(job)).state) == ("queued", "paused")
    with pytest.raises(Superseded):  # its first workflow comes to its turn
        await prepare(tuning.context, row_id(job), 0)
    assert (await tuning.row(job)).state == "paused"
    assert (await tuning.do(job, "resume"))[0] == 200
    assert (await tuning.row(job)).state == "queued"
    with pytest.raises(Superseded):
        await prepare(tuning.context, row_id(job), 0)
    await pause(tuning.context, row_id(job), 0)  # a late end of the first changes nothing
    assert (await tuning.row(job)).state == "queued"
    await tuning.do(job, "pause")
    status, cancelled = await tuning.do(job, "cancel")
    assert (status, cancelled["status"]) == (200, "cancelled")
    assert cancelled["finished_at"]
    for action, code in (
        ("cancel", "job_already_ended"),
        ("pause", "job_not_pausable"),
        ("resume", "job_not_paused"),
    ):
        status, refused = await tuning.do(job, action)
        assert (status, refused["code"]) == (400, code)
        assert refused["type"] == "invalid_request_error"


async def test_a_running_job_pauses_when_its_worker_does_and_a_change_of_mind_is_heard(
    tuning: Tuning,
) -> None:
    job = await tuning.job()

    async def row() -> tuple[str, int]:
        found = await tuning.row(job)
        return found.state, found.attempts

    await tuning.change(job, state="running")
    assert (await tuning.do(job, "pause"))[0] == 200
    assert await row() == ("running", 0)
    for step in (publish, promote, await_approval):
        with pytest.raises(TrainingPaused):
            await step(tuning.context, row_id(job))
    await pause(tuning.context, row_id(job), 0)
    assert await row() == ("paused", 0)
    await tuning.do(job, "resume")
    assert await row() == ("queued", 1)
    # pause requested, and resumed before the worker came to it
    await tuning.change(job, state="running")
    await tuning.do(job, "pause")
    await tuning.do(job, "resume")
    await pause(tuning.context, row_id(job), 1)
    assert await row() == ("queued", 2)
    # pause requested, then cancelled
    await tuning.change(job, state="running")
    await tuning.do(job, "pause")
    _, cancelled = await tuning.do(job, "cancel")
    assert (cancelled["status"], cancelled["finished_at"]) == ("cancelled", None)
    await pause(tuning.context, row_id(job), 2)
    assert await row() == ("cancelled", 2)


async def test_a_cancellation_and_a_promotion_that_race_have_one_winner(tuning: Tuning) -> None:
    dice = random.Random(3)
    won = set()

    async def succeed(job: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await promote(tuning.context, row_id(job))
        except TrainingCancelled:
            await end(tuning.context, row_id(job), "cancelled", None)

    async def cancel(job: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        assert (await tuning.do(job, "cancel"))[0] in {200, 400}

    for at in range(12):
        job = await tuning.job(seed=at)
        adapter = await tuning.adapter(job)
        match at:  # both orders for certain, then whatever comes
            case 0:
                await succeed(job, 0)
                await cancel(job, 0)
            case 1:
                await cancel(job, 0)
                await succeed(job, 0)
            case _:
                delays = dice.uniform(0, 0.004), dice.uniform(0, 0.004)
                await asyncio.gather(succeed(job, delays[0]), cancel(job, delays[1]))
        ended = await tuning.get(job)
        async with tuning.database.reading() as session:
            live = (await session.get_one(Tenant, tuning.tenant.id)).live_adapter_id
            state = (await session.get_one(Adapter, adapter.id)).state
        won.add(ended["status"])
        assert ended["finished_at"]
        if ended["status"] == "succeeded":
            assert (live, state) == (adapter.id, "ready")
            assert ended["fine_tuned_model"].endswith(adapter.engine_name[-12:])
        else:
            assert (ended["status"], state) == ("cancelled", "deleted")
            assert ended["fine_tuned_model"] is None
            assert live != adapter.id
    assert won == {"succeeded", "cancelled"}


@pytest.mark.parametrize(
    ("state", "promoted", "reason"),
    [
        ("ready", True, None),
        ("candidate", False, "its gates cannot tell. A person may promote it"),
        ("failed_gates", False, "it failed its gates"),
    ],
)
async def test_gates_decide_what_goes_live_and_not_whether_a_job_succeeded(
    tuning: Tuning, state: AdapterState, promoted: bool, reason: str | None
) -> None:
    job = await tuning.job()
    adapter = await tuning.adapter(job, state=state)
    assert await await_approval(tuning.context, row_id(job))
    await promote(tuning.context, row_id(job))
    ended = await tuning.get(job)
    conforms(ended, "FineTuningJob")
    model = f"ft:tiny-base:acme::{adapter.engine_name[-12:]}"
    assert (ended["status"], ended["error"], ended["fine_tuned_model"]) == (
        "succeeded",
        None,
        model,
    )
    assert await tuning.live() == (model if promoted else None)
    card = await tuning.client.get(f"/v1/models/{model}", headers=tuning.key)
    assert card.status_code == 200
    path = f"/admin/tenants/acme/jobs/{row_id(job)}"
    seen = (await tuning.client.get(path, headers=tuning.key)).json()
    assert seen["outcome"]["promoted"] is promoted
    assert seen["outcome"]["reason"] == reason
    assert seen["stage"] == ("succeeded" if promoted else "not promoted")
    warnings = await warnings_of(tuning, job)
    assert warnings == (
        [] if promoted else [f"acme@1 was not promoted, and answers to its own name: {reason}"]
    )
    assert (await tuning.do(job, "cancel"))[1]["code"] == "job_already_ended"


@pytest.mark.parametrize("decision", ["approved", "rejected", None])
async def test_a_person_decides_of_what_the_gates_cannot_tell(
    tuning: Tuning, decision: str | None
) -> None:
    job = await tuning.job()
    await tuning.adapter(job, state="candidate")
    await tuning.change(job, require_approval=True)
    assert not await await_approval(tuning.context, row_id(job))
    assert (await tuning.row(job)).state == "awaiting_approval"
    if decision is not None:
        path = f"/admin/tenants/acme/jobs/{row_id(job)}/decision"
        body = {"decision": decision}
        assert (await tuning.client.post(path, json=body, headers=tuning.key)).status_code == 200
    await promote(tuning.context, row_id(job))
    ended = await tuning.row(job)
    assert ended.state == "succeeded"
    why = {"approved": None, "rejected": "a person rejected it", None: "nobody approved it in time"}
    assert ended.outcome is not None
    assert ended.outcome["reason"] == why[decision]
    assert (await tuning.live() is not None) is (decision == "approved")


@pytest.mark.parametrize("by_version", [False, True])
async def test_what_the_gates_cannot_tell_awaits_a_person_unless_a_client_of_openais_does(
    tuning: Tuning, *, by_version: bool
) -> None:
    job = await tuning.job()
    adapter = await tuning.adapter(job, state="candidate")
    assert await await_approval(tuning.context, row_id(job)), "their clients poll until it ends"
    await tuning.change(job, training_file_id=None)
    assert not await await_approval(tuning.context, row_id(job))
    path = "/admin/tenants/acme"
    if by_version:  # a person need not know that the job waits
        body: dict[str, Any] = {"version": adapter.version}
        await tuning.client.post(f"{path}/promote", json=body, headers=tuning.key)
        assert (await tuning.row(job)).decision == "approved"
    else:
        body = {"decision": "approved"}
        found = await tuning.client.post(
            f"{path}/jobs/{row_id(job)}/decision", json=body, headers=tuning.key
        )
        assert found.status_code == 200
    await promote(tuning.context, row_id(job))
    ended = await tuning.row(job)
    assert (ended.state, (ended.outcome or {})["promoted"]) == ("succeeded", True)
    assert await tuning.live() is not None


async def test_an_adapter_that_the_gates_found_worse_awaits_no_approval(tuning: Tuning) -> None:
    job = await tuning.job()
    await tuning.adapter(job, state="failed_gates")
    await tuning.change(job, require_approval=True)
    assert await await_approval(tuning.context, row_id(job))
    await promote(tuning.context, row_id(job))
    assert (await tuning.row(job)).state == "succeeded"
    assert await tuning.live() is None


async def test_a_job_whose_adapter_was_deleted_while_it_waited_says_so(tuning: Tuning) -> None:
    job = await tuning.job()
    await tuning.adapter(job, state="deleted")
    await promote(tuning.context, row_id(job))
    outcome = (await tuning.row(job)).outcome
    assert outcome is not None
    assert "no adapter 'acme@1'" in outcome["reason"]


async def test_a_cancelled_job_ends_so_whatever_else_goes_wrong(tuning: Tuning) -> None:
    job = await tuning.job()
    adapter = await tuning.adapter(job, state="failed_gates")
    await tuning.do(job, "cancel")
    error = {"code": "unsafe_adapter", "message": "no"}
    await end(tuning.context, row_id(job), "failed", error)
    ended = await tuning.get(job)
    assert (ended["status"], ended["error"]) == ("cancelled", None)
    path = f"/v1/models/acme@{adapter.version}"
    assert (await tuning.client.get(path, headers=tuning.key)).status_code == 404


async def test_a_job_whose_adapter_a_person_made_live_is_not_cancelled_behind_their_back(
    tuning: Tuning,
) -> None:
    job = await tuning.job()
    adapter = await tuning.adapter(job)
    path = "/admin/tenants/acme/promote"
    body = {"version": adapter.version}
    await tuning.client.post(path, json=body, headers=tuning.key)
    status, refused = await tuning.do(job, "cancel")
    assert (status, refused["code"]) == (400, "adapter_is_live")
    assert not (await tuning.row(job)).cancel_requested


async def test_an_end_is_told_once_to_the_webhooks_that_want_it(tuning: Tuning) -> None:
    async with tuning.database.transaction() as session:
        session.add(
            WebhookEndpoint(
                tenant_id=tuning.tenant.id,
                url="https://example.com/",
                secret="whsec_x",
                events=["fine_tuning.job.failed", "fine_tuning.job.succeeded"],
            )
        )
    failed, done, cancelled = [await tuning.job(seed=n) for n in range(3)]
    error = {"code": "unsafe_adapter", "message": "trainer and engine differ"}
    await tuning.adapter(done)
    for _ in range(2):  # steps may be run again
        await end(tuning.context, row_id(failed), "failed", error)
        await promote(tuning.context, row_id(done))
    await tuning.do(cancelled, "cancel")
    async with tuning.database.reading() as session:
        sent = [row.event for row in await session.scalars(select(WebhookDelivery))]
    assert sorted((each["type"], each["data"]["id"]) for each in sent) == [
        ("fine_tuning.job.failed", failed["id"]),
        ("fine_tuning.job.succeeded", done["id"]),
    ]
    seen = await tuning.get(failed)
    conforms(seen, "FineTuningJob")
    assert seen["error"] == {**error, "param": None}


async def test_the_result_file_and_the_checkpoint_hold_what_was_measured(tuning: Tuning) -> None:
    job = await tuning.job(suffix="s")
    empty = await tuning.get(job, "/checkpoints")
    conforms(empty, "ListFineTuningJobCheckpointsResponse")
    assert empty["data"] == []
    async with tuning.database.transaction() as session:
        row = await session.get_one(Job, row_id(job))
        dataset = DatasetVersion(
            tenant_id=tuning.tenant.id, sha256="d" * 64, counts={"validation": 3}
        )
        session.add(dataset)
        await session.flush()
        row.dataset_id = dataset.id
        for step, loss in ((1, 9.0), (2, 2.0), (1, 3.0), (2, 1.5), (3, 1.0)):  # killed at 2
            figures = {"step": step, "steps": 3, "loss": loss, "accuracy": loss / 10}
            await states.add_event(session, row, kind="step", body=figures)
        for step, loss, best in ((2, 1.25, True), (3, 1.5, False)):
            figures = {"step": step, "loss": loss, "best": best, "accuracy": 0.5}
            await states.add_event(session, row, kind="validation", body=figures)
    adapter = await tuning.adapter(job)
    for _ in range(2):
        await keep_results(tuning.context, row_id(job))
    await tuning.change(job, progress={"tokens": 1234})
    await promote(tuning.context, row_id(job))
    done = await tuning.get(job)
    conforms(done, "FineTuningJob")
    assert done["trained_tokens"] == 1234
    assert done["fine_tuned_model"] == f"ft:tiny-base:acme:s:{adapter.engine_name[-12:]}"
    (result,) = done["result_files"]
    async with tuning.database.reading() as session:
        file = await files.get(session, tuning.tenant.id, result)
    assert file.purpose == "fine-tune-results"
    text = b"".join([chunk async for chunk in tuning.blobs.iterate(file.sha256)]).decode()
    assert text.splitlines() == [
        ",".join(results.COLUMNS),
        "1,3.00000,0.30000,,",
        "2,1.50000,0.15000,1.25000,0.50000",
        "3,1.00000,0.10000,1.50000,0.50000",
    ]
    listed = await tuning.get(job, "/checkpoints")
    conforms(listed, "ListFineTuningJobCheckpointsResponse")
    (checkpoint,) = listed["data"]
    assert checkpoint["fine_tuned_model_checkpoint"] == done["fine_tuned_model"]
    assert checkpoint["step_number"] == 2
    assert checkpoint["metrics"] == {
        "step": 2,
        "train_loss": 1.5,
        "train_mean_token_accuracy": 0.15,
        "valid_loss": 1.25,
        "valid_mean_token_accuracy": 0.5,
        "full_valid_loss": 1.25,
        "full_valid_mean_token_accuracy": 0.5,
    }
    assert (await tuning.get(job, "/checkpoints", after=checkpoint["id"]))["data"] == []


async def test_a_model_is_deleted_by_its_name_and_a_live_one_makes_way(
    tuning: Tuning, make_tenant: Make, make_key: Make
) -> None:
    await make_tenant("other")
    names = []
    for seed in range(2):
        job = await tuning.job(seed=seed)
        adapter = await tuning.adapter(job)
        (tuning.settings.adapters / adapter.engine_name).mkdir(parents=True)
        await promote(tuning.context, row_id(job))
        names.append((await tuning.get(job))["fine_tuned_model"])
    old, live = names

    async def delete(name: str, key: dict[str, str] = tuning.key) -> Any:
        return await tuning.client.delete(f"/v1/models/{name}", headers=key)

    assert (await delete(old, await make_key("other", "train"))).status_code == 404
    assert (await delete(old, await make_key("acme", "chat"))).status_code == 403
    assert (await delete("tiny-base")).status_code == 403
    refused = await delete("acme")
    assert refused.status_code == 409
    assert refused.headers["x-should-retry"] == "false"
    gone = await delete(live)
    conforms(gone.json(), "DeleteModelResponse")
    assert gone.json() == {"id": live, "object": "model", "deleted": True}
    assert (await delete(live)).status_code == 404
    looked = await tuning.client.get(f"/v1/models/{live}", headers=tuning.key)
    assert looked.status_code == 404
    left = [path.name for path in tuning.settings.adapters.iterdir()]
    assert left == [f"acme.{old[-12:]}"]
    assert await tuning.live() == old
    assert (await delete("acme@1")).status_code == 200
    assert await tuning.live() is None


async def test_a_dataset_is_made_from_files_redacted_and_split(tuning: Tuning) -> None:
    system = {"role": "system", "content": "You answer for Acme."}
    words = [f"{chr(97 + n) * 5} {chr(98 + n) * 6} {chr(99 + n) * 7}" for n in range(20)]

    def record(word: str) -> dict[str, Any]:
        question = f"Where is the {word}? Mail me at jo@example.com"
        answer = {"role": "assistant", "content": f"The {word} is on its way to jo@example.com."}
        return {"messages": [system, {"role": "user", "content": question}, answer]}

    async def stored(some: list[str]) -> str:
        file_id = await tuning.upload(lines([record(word) for word in some]))
        async with tuning.database.reading() as session:
            return (await files.get(session, tuning.tenant.id, file_id)).sha256

    async with tuning.database.transaction() as session:
        (await session.get_one(Tenant, tuning.tenant.id)).system_prompt = "Be warm."
    created = await create_from_files(
        tuning.database,
        tuning.tenant.id,
        settings=tuning.settings,
        blobs=tuning.blobs,
        method="supervised",
        training=await stored(words[:15]),
        validation=await stored(words[15:]),
    )
    folder = tuning.settings.datasets / created.dataset.sha256
    splits = ("train", "validation", "test")
    kept = {split: (folder / f"{split}.jsonl").read_text() for split in splits}
    assert "jo@example.com" not in "".join(kept.values())
    assert "[EMAIL_1]" in kept["train"]
    assert created.dataset.counts["validation"] == 5
    assert all(word in kept["validation"] for word in words[15:])
    assert created.dataset.counts["test"] >= 1
    assert not any(word in kept["test"] for word in words[15:])
    assert created.dataset.manifest["system_prompt"] == "Be warm.\n\nYou answer for Acme."
    assert created.warnings == ()


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base whose manifest is enough for these steps."""
    for module in ("prepare", "gate"):
        monkeypatch.setattr(
            f"server.jobs.steps.{module}.load_base",
            lambda _: SimpleNamespace(serving_sha256="0" * 64),
        )


def varied(number: int) -> dict[str, Any]:
    """An example that is like no other."""
    word = f"{chr(97 + number) * 5} {chr(98 + number) * 6} {chr(99 + number) * 7}"
    return chat(number, messages=[{"role": r, "content": word} for r in ("user", "assistant")])


async def test_a_job_learns_from_its_dataset_version_whatever_becomes_of_the_file(
    tuning: Tuning, base: None
) -> None:
    del base
    file_id = await tuning.upload(lines([varied(n) for n in range(20)]))
    job = await tuning.job(training_file=file_id, hyperparameters={"n_epochs": 3})
    await prepare(tuning.context, row_id(job), 0)
    path = tuning.settings.jobs / row_id(job) / "spec.json"
    spec = load_spec(path)
    assert (spec.method, spec.recipe.epochs, spec.seed) == ("supervised", 3.0, job["seed"])
    async with tuning.database.transaction() as session:
        await files.delete(session, tuning.tenant.id, file_id)
    path.unlink()  # as if it was killed between the two
    await prepare(tuning.context, row_id(job), 0)
    assert load_spec(path) == spec
    unbegun = await tuning.job()
    async with tuning.database.transaction() as session:
        await files.delete(session, tuning.tenant.id, tuning.file)
    with pytest.raises(TrainingFailed, match="deleted") as failed:
        await prepare(tuning.context, row_id(unbegun), 0)
    assert failed.value.code == "invalid_training_file"


async def test_a_job_keeps_the_articles_that_it_began_with_and_the_next_one_does_not(
    tuning: Tuning, base: None
) -> None:
    del base
    knowledge = Knowledge(tuning.database, tuning.settings, tuning.blobs, Encoder())
    await knowledge.add(tuning.tenant, "# Bread\n\nRye on Fridays.", "bread.md")
    await knowledge.add(tuning.tenant, "# Milk\n\nNo milk.", "milk.md")
    file_id = await tuning.upload(lines([varied(n) for n in range(20)]))
    job, later = [await tuning.job(training_file=file_id) for _ in range(2)]
    await prepare(tuning.context, row_id(job), 0)
    path = tuning.settings.jobs / row_id(job) / "spec.json"
    spec = load_spec(path)
    assert texts_of(spec) == ["Rye on Fridays.", "No milk."]
    listed = {
        each.article.name: each.article.id for each in await knowledge.articles(tuning.tenant)
    }
    async with tuning.database.transaction() as session:
        await delete_article(session, tuning.tenant.id, listed["bread.md"])
    await prepare(tuning.context, row_id(job), 0)  # as when its worker was killed
    assert load_spec(path) == spec
    assert texts_of(spec) == ["Rye on Fridays.", "No milk."]
    path.unlink()  # as if it was killed between the two: what is frozen now is all there is
    await prepare(tuning.context, row_id(job), 0)
    assert texts_of(load_spec(path)) == ["No milk."]
    assert len(list(path.parent.glob("knowledge-*"))) == 1
    await prepare(tuning.context, row_id(later), 0)
    assert texts_of(load_spec(tuning.settings.jobs / row_id(later) / "spec.json")) == ["No milk."]


def texts_of(spec: TrainingSpec) -> list[str]:
    assert spec.knowledge is not None
    return [piece.text for piece in ArticleIndex.load(Path(spec.knowledge)).pieces]


async def events(tuning: Tuning, job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await tuning.get(job, "/events", limit=100))["data"]
    return found


async def warnings_of(tuning: Tuning, job: dict[str, Any]) -> list[str]:
    return [e["message"] for e in await events(tuning, job) if e["level"] == "warn"]


async def test_a_file_of_near_duplicates_is_trained_on_with_a_warning(
    tuning: Tuning, base: None
) -> None:
    del base
    words = " ".join(f"{chr(97 + n)}{chr(98 + n)}{chr(99 + n)}" for n in range(20))
    some = [chat(n) for n in range(30)]
    for n, each in enumerate(some):
        for message in each["messages"]:
            message["content"] = f"{words} {'x' * (n % 12 + 4)}"  # 12 of them differ, hardly
    job = await tuning.job(training_file=await tuning.upload(lines(some)))
    await prepare(tuning.context, row_id(job), 0)
    async with tuning.database.reading() as session:
        row = await session.get_one(Job, row_id(job))
        dataset = await session.get_one(DatasetVersion, row.dataset_id)
    assert dataset.counts == {"train": 30, "validation": 0, "test": 0}
    warnings = await warnings_of(tuning, job)
    assert any("18 of 30 examples say the same as others" in each for each in warnings)
    assert any("too much alike to hold any out" in each for each in warnings)
    assert any("No example is left for validation" in each for each in warnings)


async def test_ten_equal_examples_are_trained_on_as_often_as_they_are_there(
    tuning: Tuning, base: None
) -> None:
    del base
    job = await tuning.job(training_file=await tuning.upload(lines([chat(1)] * 10)))
    await prepare(tuning.context, row_id(job), 0)
    spec = load_spec(tuning.settings.jobs / row_id(job) / "spec.json")
    assert len({e.id for e in load(Path(spec.dataset)).read("train")}) == 10
    assert any("9 of 10 examples say the same" in each for each in await warnings_of(tuning, job))


async def test_twelve_different_examples_hold_two_out_and_warn_of_nothing(
    tuning: Tuning, base: None
) -> None:
    del base
    job = await tuning.job(training_file=await tuning.upload(lines([varied(n) for n in range(12)])))
    await prepare(tuning.context, row_id(job), 0)
    spec = load_spec(tuning.settings.jobs / row_id(job) / "spec.json")
    assert load(Path(spec.dataset)).manifest.counts == {"train": 10, "validation": 1, "test": 1}
    assert await warnings_of(tuning, job) == []


@pytest.mark.parametrize(
    ("mean_abs", "bound", "state"),
    [(0.004, 0.8, "ready"), (0.004, 0.1, "failed_gates"), (0.4, 0.8, "unsafe")],
)
async def test_the_gates_are_applied_once_and_only_safety_fails_a_job(
    tuning: Tuning,
    base: None,
    monkeypatch: pytest.MonkeyPatch,
    *,
    mean_abs: float,
    bound: float,
    state: str,
) -> None:
    del base
    found = report()
    assert found.parity is not None
    parity = msgspec.structs.replace(found.parity, mean_abs=mean_abs)
    verdict = apply_gates(found.evaluation, parity, Objectives(max_perplexity_ratio=bound))
    made = msgspec.structs.replace(found, parity=parity, verdict=verdict)
    monkeypatch.setattr(gate, "build_report", lambda *_, **__: made)
    job = await tuning.job()
    async with tuning.database.transaction() as session:
        dataset = DatasetVersion(tenant_id=tuning.tenant.id, sha256="d" * 64)
        session.add(dataset)
        await session.flush()
        (await session.get_one(Job, row_id(job))).dataset_id = dataset.id
    folder = tuning.settings.adapters / "acme.0123456789ab"
    folder.mkdir(parents=True)
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(MANIFEST))
    (tuning.settings.jobs / row_id(job)).mkdir(parents=True)
    for _ in range(2):  # steps may be run again
        unsafe = await gate.apply_gates(tuning.context, row_id(job), folder.name)
    async with tuning.database.reading() as session:
        (adapter,) = await session.scalars(select(Adapter))
    assert adapter.state == state
    if state == "unsafe":
        assert "differ by 0.4000 nats" in unsafe
        await end(
            tuning.context, row_id(job), "failed", {"code": "unsafe_adapter", "message": unsafe}
        )
    else:
        assert unsafe == ""
        await promote(tuning.context, row_id(job))
    ended = await tuning.get(job)
    assert ended["status"] == ("failed" if state == "unsafe" else "succeeded")
    assert (await tuning.live() is not None) is (state == "ready")
    verdicts = [event for event in await events(tuning, job) if "gates" in event["message"]]
    assert verdicts[-1]["level"] == ("info" if state == "ready" else "warn")


@pytest.mark.parametrize(
    ("state", "stays"),
    [("failed", False), ("cancelled", False), ("paused", True), ("succeeded", True)],
)
async def test_the_files_of_a_job_that_yields_no_model_go_but_for_its_logs(
    tuning: Tuning, state: str, stays: bool
) -> None:
    job = await tuning.job()
    folder = tuning.settings.jobs / row_id(job)
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "weights").write_bytes(b"x")
    for name in ("evaluation.json", "trainer.log", "report.html"):
        (folder / name).write_text("x")
    ended = now()
    await tuning.change(job, state=state, finished_at=ended)
    since = ended + timedelta(seconds=1)
    await cleanup_finished(tuning.database, tuning.settings, since=since)
    assert (folder / "evaluation.json").exists(), "that one ended before"
    for _ in range(2):
        await cleanup_finished(tuning.database, tuning.settings, since=ended)
        left = {path.name for path in folder.iterdir()}
        large = {"checkpoints", "evaluation.json"}
        assert left == {"trainer.log", "report.html"} | (large if stays else set())
