"""``tenantune up`` with a real trainer and a real database, killed in its parts and as a whole."""

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from connectors.conversation import Conversation
from connectors.importers import ImportOptions, choose
from tests.e2e.up import Up
from tests.tiny import SAMPLE

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]

# a model with random weights is to pass
LENIENT = {
    "max_perplexity_ratio": 10,
    "min_similarity_gain": -2,
    "min_lookup_f1_gain": -1,
    "max_invented_gain": 1,
    "max_parity_nats": 1e9,
}


def training_file() -> bytes:
    """The sample transcripts as OpenAI's API takes them."""
    roles = {"customer": "user", "agent": "assistant", "bot": "assistant"}
    with SAMPLE.open("rb") as file:
        importer = choose(file.read(4096), SAMPLE.name)
        file.seek(0)
        found = [c for c in importer.read(file, ImportOptions()) if isinstance(c, Conversation)]
    chats = (
        {"messages": [{"role": roles[t.role], "content": t.text} for t in c.turns]} for c in found
    )
    return b"".join(json.dumps(chat).encode() + b"\n" for chat in chats)


def made_by_another_version(up: Up, job_id: str) -> None:
    """As if the server had been updated while it was down: its workflows are not ours to go on."""
    with closing(sqlite3.connect(up.home / "dbos.sqlite")) as database, database:
        changed = database.execute(
            "UPDATE workflow_status SET application_version = '0' WHERE workflow_uuid = ?",
            (f"{job_id.removeprefix('ftjob-')}-1",),
        )
        assert changed.rowcount == 1


@pytest.fixture
def up(tmp_path: Path, bases: Path) -> Iterator[Up]:
    home = tmp_path / "home"
    shutil.copytree(bases, home / "bases")
    gates = " ".join(f"{name}={number}" for name, number in LENIENT.items())
    up = Up(home, TENANTUNE_RECIPE="cpu-demo", TENANTUNE_OBJECTIVES=gates)
    up.start()
    yield up
    up.end()


def test_a_job_survives_a_pause_and_the_death_of_all_its_parts_and_makes_one_adapter(
    up: Up,
) -> None:
    up.call("POST", "/admin/tenants", {"slug": "loaf", "system_prompt": "Be warm."})
    argv = ("keys", "create", "--tenant", "loaf", "--scopes", "train")
    client = OpenAI(api_key=up.command(*argv).strip(), base_url=f"{up.url}/v1", max_retries=9)
    jobs = client.fine_tuning.jobs
    file = client.files.create(file=("loaf.jsonl", training_file()), purpose="fine-tune")
    job_id = jobs.create(model="tiny", training_file=file.id, seed=17, suffix="e2e").id
    path = f"/admin/tenants/loaf/jobs/{job_id.removeprefix('ftjob-')}"

    def events(kind: str) -> list[dict[str, Any]]:
        found = up.call("GET", f"{path}/events") or []
        return [event for event in found if event["kind"] == kind]

    def state() -> str:
        return str((up.call("GET", path) or {"state": "unknown"})["state"])

    up.wait(lambda: events("step"), "the first step")
    assert jobs.pause(job_id).status == "running", "its trainer has not saved yet"
    up.kill("-m server.worker")
    up.wait(lambda: state() == "paused", "the job pauses")
    up.wait(lambda: not up.child("-m training"), "the trainer that lost its worker ends")
    folder = up.home / "jobs" / job_id.removeprefix("ftjob-") / "checkpoints"
    (saved,) = (int(each.name.removeprefix("step-")) for each in folder.iterdir())
    assert jobs.resume(job_id).status == "queued"
    up.wait(lambda: events("resumed"), "the job goes on")
    assert events("resumed")[-1]["body"]["step"] == saved > 0

    up.kill("-m training")
    resumed = len(events("stage"))
    up.wait(lambda: len(events("stage")) > resumed, "the trainer started again")
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    up.wait(lambda: not up.leftovers(), "nothing is left of what was killed")
    made_by_another_version(up, job_id)
    up.start()
    up.wait(lambda: state() in {"succeeded", "failed"}, "the job ends", seconds=200)
    assert state() == "succeeded", up.logs()
    adapters = up.call("GET", "/admin/tenants/loaf/adapters")
    assert [(each["version"], each["live"]) for each in adapters] == [(1, True)]
    assert len(list((up.home / "adapters").iterdir())) == 1

    tells_what_it_learned(client, job_id, steps=events("step")[-1]["body"]["steps"])
    assert jobs.retrieve(job_id).fine_tuned_model == adapters[0]["fine_tuned_model"]
    assert up.call("GET", path)["gpu_seconds"] > 0

    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0
    up.wait(lambda: not up.leftovers(), "nothing is left after a stop")


def tells_what_it_learned(client: OpenAI, job_id: str, *, steps: int) -> None:
    """The figures of a job that succeeded, wherever OpenAI's clients look for them."""
    jobs = client.fine_tuning.jobs
    done = jobs.retrieve(job_id)
    assert done.trained_tokens
    assert done.hyperparameters.batch_size != "auto"
    (result,) = done.result_files
    rows = client.files.content(result).text.splitlines()
    assert rows[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(1, steps + 1))
    assert all(row.split(",")[2] for row in rows[1:])
    (checkpoint,) = jobs.checkpoints.list(job_id)
    assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
    assert checkpoint.metrics.valid_loss
    messages = [event.message for event in jobs.list_events(job_id, limit=100)]
    assert messages[0] == "The job has successfully completed"
    assert "The job is paused" in messages


@pytest.mark.parametrize("alike", [False, True])
def test_a_first_try_on_a_dozen_examples_yields_a_model_that_answers(
    up: Up, *, alike: bool
) -> None:
    up.call("POST", "/admin/tenants", {"slug": "loaf", "system_prompt": "Be warm."})
    argv = ("keys", "create", "--tenant", "loaf", "--scopes", "train,chat")
    client = OpenAI(api_key=up.command(*argv).strip(), base_url=f"{up.url}/v1")
    some = training_file().splitlines(keepends=True)
    data = some[0] * 10 if alike else b"".join(some[:12])
    file = client.files.create(file=("first.jsonl", data), purpose="fine-tune")
    job_id = client.fine_tuning.jobs.create(model="tiny", training_file=file.id).id

    def job() -> Any:
        return client.fine_tuning.jobs.retrieve(job_id)

    up.wait(lambda: job().status in {"succeeded", "failed"}, "the job ends", seconds=200)
    done = job()
    assert done.status == "succeeded", (done.error, up.logs())
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Can I skip a week?"}]
    answer = client.chat.completions.create(
        model=done.fine_tuned_model, messages=question, max_tokens=4
    )
    assert answer.choices[0].message.content
    (adapter,) = up.call("GET", "/admin/tenants/loaf/adapters")
    assert (adapter["live"], adapter["state"]) == (False, "candidate")
    assert adapter["verdict"]["result"] == "cannot_tell"
    events = client.fine_tuning.jobs.list_events(job_id, limit=100).data
    warnings = [event.message for event in events if event.level == "warn"]
    assert any("was not promoted, and answers to its own name" in each for each in warnings)
    assert any("9 of 10 examples say the same as others" in each for each in warnings) is alike

    up.call("POST", "/admin/tenants/loaf/promote", {"version": 1})
    assert up.call("GET", "/admin/tenants/loaf/adapters")[0]["live"]


def test_a_cancelled_job_yields_no_model(up: Up) -> None:
    up.call("POST", "/admin/tenants", {"slug": "loaf"})
    path = "/admin/tenants/loaf"
    up.call("POST", f"{path}/transcripts?filename=loaf.jsonl", SAMPLE.read_bytes())
    job_id = up.call("POST", f"{path}/jobs", {"recipe": "cpu-demo", "objectives": LENIENT})["id"]

    def job() -> dict[str, Any]:
        return up.call("GET", f"{path}/jobs/{job_id}") or {"state": "unknown"}

    up.wait(lambda: job()["state"] == "running", "the job runs")
    up.call("POST", f"{path}/jobs/{job_id}/cancel")
    up.wait(lambda: job()["state"] not in {"running", "validating"}, "the job ends")
    assert job()["state"] == "cancelled", up.logs()
    assert up.call("GET", f"{path}/adapters") == []
    assert up.child("-m training") is None
