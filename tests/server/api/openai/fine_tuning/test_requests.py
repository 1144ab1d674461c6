"""Requests to ``/v1/fine_tuning``: what is accepted, what is refused, and with which message."""

import json
from typing import Any

import pytest

from server.db.models import now
from tests.server.api.openai.fine_tuning.tuning import JOBS, Make, Tuning, chat, lines, pair, tuning
from tests.server.api.openai.published import conforms

__all__ = ["tuning"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough here: it is about requests."""
    return sqlite_url


async def test_hyperparameters_become_the_recipes(tuning: Tuning) -> None:
    plain = await tuning.job()
    assert set(plain["hyperparameters"].values()) == {"auto"}
    wanted = {"n_epochs": 7, "batch_size": 2, "learning_rate_multiplier": 2}
    tuned = await tuning.job(hyperparameters=wanted)
    before, after = (await tuning.row(plain)).recipe, (await tuning.row(tuned)).recipe
    assert after["learning_rate"] == 2 * before["learning_rate"]
    assert (after["epochs"], after["max_train_tokens"], after["batch_examples"]) == (7.0, 0, 2)
    assert before["batch_examples"] == 0


async def test_what_was_left_to_the_recipe_is_told_once_it_is_known(tuning: Tuning) -> None:
    job = await tuning.job()
    progress = {"step": 3, "steps": 30, "epoch": 0.25, "tokens": 2500, "examples": 120}
    progress |= {"at": now().timestamp(), "eta_seconds": 60.0}
    await tuning.change(job, state="running", started_at=now(), progress=progress)
    running = await tuning.get(job)
    conforms(running, "FineTuningJob")
    # cpu-small: two epochs of 10,000 tokens, within its bound of 30,000
    assert running["hyperparameters"] == {
        "n_epochs": 2,
        "batch_size": 8,
        "learning_rate_multiplier": 1.0,
    }
    assert running["status"] == "running"
    assert running["estimated_finish"] > now().timestamp()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"integrations": [{"type": "wandb"}]}, "integrations", "unsupported_parameter"),
        ({"method": {"type": "reinforcement"}}, "method.type", "unsupported_value"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", "invalid_value"),
        (
            {"method": {"type": "supervised"}, "hyperparameters": {}},
            "hyperparameters",
            "invalid_value",
        ),
        ({"method": {"type": "grpo"}}, "method.type", "invalid_value"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", "invalid_value"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size", "invalid_value"),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta", "unknown_parameter"),
        ({"suffix": "a:b"}, "suffix", "invalid_value"),
        ({"suffix": "x" * 65}, "suffix", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"training_file": None}, "training_file", "invalid_type"),
        ({"training_file": "file-" + "0" * 32}, "training_file", "invalid_training_file"),
        ({"validation_file": "nonsense"}, "validation_file", "invalid_validation_file"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    tuning: Tuning, fields: dict[str, Any], param: str, code: str
) -> None:
    refused = await tuning.ask(**fields)
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert (await tuning.client.get(JOBS, headers=tuning.key)).json()["data"] == []


async def test_a_job_needs_a_file_and_a_key_that_may_train(tuning: Tuning, make_key: Make) -> None:
    bare = {"model": "tiny-base"}
    refused = await tuning.client.post(JOBS, json=bare, headers=tuning.key)
    assert refused.json()["error"]["param"] == "training_file"
    chatting = await make_key("acme", "chat")
    assert (await tuning.ask(headers=chatting)).status_code == 403


async def test_nothing_is_integrated_where_nothing_is_asked_for(tuning: Tuning) -> None:
    assert (await tuning.job(integrations=None))["integrations"] is None
    assert (await tuning.job(integrations=[]))["integrations"] is None


async def test_lines_that_cannot_be_trained_on_are_named_and_counted(tuning: Tuning) -> None:
    question = chat(1)["messages"][:1]
    bad: list[Any] = [
        b"not json",
        {"messages": question},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"prompt": "x", "completion": "y"},
        {"messages": [*question, {"role": "assistant", "content": "a", "weight": 2}]},
        {"messages": [*question, {"role": "assistant", "content": "a", "weight": 0}]},
        b"",
    ]
    good = [chat(n) for n in range(10)]
    unfit = await tuning.upload(lines([*good, *bad, *[b"[]"] * 30]))
    refused = await tuning.ask(training_file=unfit)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == ("training_file", "invalid_training_file")
    problems = error["message"].split("\n")
    assert problems[0].endswith("36 lines are not fit to train on.")
    numbers = [line.split(":")[0] for line in problems[1:8]]
    assert numbers == [*(f"line {n}" for n in range(11, 17)), "line 18"]
    assert "wizard" in problems[3]
    assert problems[-1] == "and 16 more"
    assert len(problems) == 22
    refused = await tuning.ask(training_file=await tuning.upload(lines(good[:9])))
    assert "at least 10" in refused.json()["error"]["message"]
    refused = await tuning.ask(validation_file=unfit)
    assert refused.json()["error"]["code"] == "invalid_validation_file"


async def test_ten_examples_are_enough_even_where_they_all_say_the_same(tuning: Tuning) -> None:
    same = await tuning.upload(lines([chat(1)] * 10))
    assert (await tuning.ask(training_file=same)).status_code == 200
    unusable = chat(2)
    unusable["messages"][0]["content"] = "<|im_start|>system"
    few = await tuning.upload(lines([*[chat(1)] * 9, *[unusable] * 3]))
    refused = await tuning.ask(training_file=few)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == ("training_file", "invalid_training_file")
    assert "9 of its 12 examples" in error["message"]
    assert "3 control_token" in error["message"]
    assert "at least 10" in error["message"]


async def test_what_would_not_happen_is_refused_with_its_line(tuning: Tuning) -> None:
    user, assistant = chat(1)["messages"]
    call = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function"}]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    bad = [
        {"messages": [{**user, "weight": 1}, assistant]},
        {"messages": [user, result, assistant]},
        {"messages": [user, call, {**result, "tool_call_id": "call_2"}, assistant]},
    ]
    good = [*[chat(n) for n in range(10)], {"messages": [user, call, result, assistant]}]
    file = await tuning.upload(lines([*good, *bad]))
    problems = (await tuning.ask(training_file=file)).json()["error"]["message"].split("\n")
    assert problems[0].endswith("3 lines are not fit to train on.")
    assert problems[1].startswith("line 12: message 1: only the assistant's messages have a weight")
    assert problems[2].startswith(
        "line 13: message 2 is the result of a tool that no message before"
    )
    assert problems[3].startswith("line 14: message 3 answers 'call_2', which no message before")
    assert (await tuning.ask(training_file=await tuning.upload(lines(good)))).status_code == 200


async def test_half_of_a_surrogate_pair_is_called_so(tuning: Tuning) -> None:
    lone = json.dumps(chat(1)).replace("Where", "\\ud800").encode()
    bad = await tuning.upload(lines([*[chat(n) for n in range(10)], lone, b'{"messages": ['[:9]]))
    refused = await tuning.ask(training_file=bad)
    problems = refused.json()["error"]["message"].split("\n")
    assert problems[1].startswith("line 11: not valid Unicode")
    assert "surrogate" in problems[1]
    assert "surrogate" not in problems[2]


async def test_a_files_purpose_and_owner_are_checked(tuning: Tuning, make_tenant: Make) -> None:
    data = lines([chat(n) for n in range(10)])
    wrong = await tuning.upload(data, purpose="batch")
    refused = await tuning.ask(training_file=wrong)
    assert refused.status_code == 400
    assert "'batch'" in refused.json()["error"]["message"]
    theirs = await tuning.upload(data, tenant=await make_tenant("other"))
    nothing = "file-" + "0" * 32
    strange = (await tuning.ask(training_file=theirs)).json()["error"]
    missing = (await tuning.ask(training_file=nothing)).json()["error"]
    assert strange["message"].replace(theirs, nothing) == missing["message"]


async def test_preferences_and_judgements_are_held_to_their_own_form(tuning: Tuning) -> None:
    pairs = await tuning.upload(lines([pair(n) for n in range(10)]))
    unpaired = await tuning.upload(lines([chat(n, label=bool(n % 2)) for n in range(10)]))
    for kind, right, wrong in (("dpo", pairs, unpaired), ("kto", unpaired, pairs)):
        method = {"type": kind, kind: {"hyperparameters": {"beta": 0.2, "n_epochs": "auto"}}}
        refused = await tuning.ask(method=method, training_file=wrong)
        assert refused.json()["error"]["code"] == "invalid_training_file"
        job = await tuning.job(method=method, training_file=right)
        assert job["method"][kind]["hyperparameters"]["beta"] == 0.2
        assert "beta" not in job["hyperparameters"]
        if kind == "dpo":  # the other is ours
            conforms(job, "FineTuningJob")
        assert (await tuning.row(job)).recipe["beta"] == 0.2
