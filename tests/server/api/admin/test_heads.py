import pytest

from server.jobs.head_training import train_next
from tests.server.heads.conftest import (
    as_file,
    context,
    database_url,
    settings,
    texts,
)

__all__ = ["context", "database_url", "settings"]
PATH = "/admin/tenants/acme/heads"


@pytest.fixture
async def key(make_tenant, make_key):
    await make_tenant()
    return await make_key("acme", "train")


async def test_labelled_texts_become_a_version_that_classifies(client, key, context):
    sent = await client.post(
        f"{PATH}?task=annoyance&filename=mine.jsonl", content=as_file(texts()), headers=key
    )
    assert sent.status_code == 202
    assert sent.json()["state"] == "queued"
    assert sent.json()["texts"] == 24
    assert await train_next(context, executor="here")
    promoted = await client.post(
        f"{PATH}/promote", json={"task": "annoyance", "version": 1}, headers=key
    )
    assert promoted.json()["live"]
    [first] = (await client.get(PATH, headers=key)).json()
    assert first["report"]["scores"]["ece"] >= 0
    assert len(first["report"]["scores"]["bins"]) == 10
    asked = {"task": "annoyance", "texts": ["ridiculous, awful", "please, kindly"]}
    said = (await client.post(f"{PATH}/classify", json=asked, headers=key)).json()
    assert said["version"] == 1
    assert [each["label"] for each in said["labels"]] == ["annoyed", "calm"]
    assert sum(said["labels"][0]["probabilities"].values()) == pytest.approx(1)
    assert (await client.get(f"{PATH}/counts?days=7", headers=key)).json() == []
    for days in (0, 1_279_440):
        assert (await client.get(f"{PATH}/counts?days={days}", headers=key)).status_code == 400


async def test_a_bad_line_is_named_and_nothing_is_kept(client, key, settings):
    sent = await client.post(
        PATH,
        data={"task": "annoyance"},
        files={"file": ("mine.csv", b"text,label\nHi,calm\nHo,\n")},
        headers=key,
    )
    assert sent.status_code == 400
    assert "mine.csv, line 3: there is no label" in sent.text
    assert (await client.get(PATH, headers=key)).json() == []
    assert not settings.heads.exists()


async def test_an_unknown_task_is_refused(client, key):
    sent = await client.post(f"{PATH}?task=humour", content=as_file(texts()), headers=key)
    assert sent.status_code == 400
    assert "sentiment, annoyance, intent" in sent.text


async def test_nothing_is_promoted_before_it_is_ready(client, key):
    await client.post(f"{PATH}?task=annoyance", content=as_file(texts()), headers=key)
    choice = {"task": "annoyance", "version": 1}
    refused = await client.post(f"{PATH}/promote", json=choice, headers=key)
    assert refused.status_code == 409
    missing = await client.post(f"{PATH}/promote", json={**choice, "version": 9}, headers=key)
    assert missing.status_code == 404
    back = await client.post(f"{PATH}/rollback", json={"task": "annoyance"}, headers=key)
    assert back.status_code == 409
    unknown = await client.post(
        f"{PATH}/classify", json={"task": "annoyance", "texts": ["Hi"]}, headers=key
    )
    assert unknown.status_code == 404


async def test_a_version_is_deleted_with_what_it_was_trained_on(client, key, context, settings):
    for _ in range(2):
        await client.post(f"{PATH}?task=annoyance", content=as_file(texts()), headers=key)
        assert await train_next(context, executor="here")
    other = texts(calm="thanks friendly")
    await client.post(f"{PATH}?task=annoyance", content=as_file(other), headers=key)
    assert await train_next(context, executor="here")
    await client.post(f"{PATH}/promote", json={"task": "annoyance", "version": 1}, headers=key)
    [folder] = settings.heads.iterdir()
    assert len(list((folder / "datasets").iterdir())) == 2  # 1 and 2 were trained on the same
    live = await client.delete(f"{PATH}/annoyance/1", headers=key)
    assert (live.status_code, live.json()["code"]) == (409, "head_is_live")
    assert (await client.delete(f"{PATH}/annoyance/2", headers=key)).status_code == 204
    assert len(list((folder / "datasets").iterdir())) == 2
    assert (await client.delete(f"{PATH}/annoyance/3", headers=key)).status_code == 204
    assert len(list((folder / "datasets").iterdir())) == 1
    assert len(list(folder.iterdir())) == 2  # the datasets, and version 1
    assert (await client.delete(f"{PATH}/annoyance/3", headers=key)).status_code == 404
    asked = {"task": "annoyance", "texts": ["ridiculous"]}
    assert (await client.post(f"{PATH}/classify", json=asked, headers=key)).status_code == 200


async def test_a_version_that_waits_is_deleted_with_its_labels(client, key, settings):
    await client.post(f"{PATH}?task=annoyance", content=as_file(texts()), headers=key)
    assert (await client.delete(f"{PATH}/annoyance/1", headers=key)).status_code == 204
    assert [list(folder.iterdir()) for folder in settings.heads.iterdir()] == [[]]
    assert (await client.delete(f"{PATH}/humour/1", headers=key)).status_code == 400


async def test_rules_name_labels_of_the_live_version(client, key, context):
    rule = {"label": "annoyed", "at_least": 0.8}
    choice = {"task": "annoyance", "rules": [rule]}
    early = await client.put(f"{PATH}/rules", json=choice, headers=key)
    assert (early.status_code, early.json()["code"]) == (400, "unknown_label")
    await client.post(f"{PATH}?task=annoyance", content=as_file(texts()), headers=key)
    assert await train_next(context, executor="here")
    await client.post(f"{PATH}/promote", json={"task": "annoyance", "version": 1}, headers=key)
    assert (await client.put(f"{PATH}/rules", json=choice, headers=key)).json() == choice
    assert (await client.get(f"{PATH}/rules", headers=key)).json() == [choice]
    for wrong in (
        {"task": "annoyance", "rules": [{"label": "angry", "at_least": 0.8}]},
        {"task": "annoyance", "rules": [rule, rule]},
        {"task": "annoyance", "rules": [{"label": "annoyed", "at_least": 80}]},
        {"task": "image", "rules": [rule]},
    ):
        assert (await client.put(f"{PATH}/rules", json=wrong, headers=key)).status_code == 400
    await client.post(f"{PATH}/retire", json={"task": "annoyance"}, headers=key)
    assert (await client.get(f"{PATH}/rules", headers=key)).json() == [choice]  # it waits
    none = {"task": "annoyance", "rules": []}
    assert (await client.put(f"{PATH}/rules", json=none, headers=key)).json() == none
    assert (await client.get(f"{PATH}/rules", headers=key)).json() == []


SHARED = "/admin/heads"


async def test_a_shared_head_is_used_until_there_is_an_own_one_or_it_is_switched_off(
    client, key, *, operator, context, settings
):
    asked = {"task": "annoyance", "texts": ["ridiculous, awful"]}
    sent = await client.post(f"{SHARED}?task=annoyance", content=as_file(texts()), headers=operator)
    assert (sent.status_code, sent.json()["shared"]) == (202, True)
    assert await train_next(context, executor="here")
    assert (await client.post(f"{PATH}/classify", json=asked, headers=key)).status_code == 404
    choice = {"task": "annoyance", "version": 1}
    assert (await client.post(f"{SHARED}/promote", json=choice, headers=operator)).json()["live"]
    said = (await client.post(f"{PATH}/classify", json=asked, headers=key)).json()
    assert (said["shared"], said["labels"][0]["label"]) == (True, "annoyed")
    [seen] = (await client.get(f"{PATH}/shared", headers=key)).json()
    assert (seen["use"], seen["version"]) == ("shared", 1)
    assert (await client.get(PATH, headers=key)).json() == []  # it is not the tenant's
    assert (await client.delete(f"{PATH}/annoyance/1", headers=key)).status_code == 404

    for use, status in ((False, 404), (True, 200)):
        change = {"task": "annoyance", "use": use}
        assert (await client.put(f"{PATH}/shared", json=change, headers=key)).json() == change
        [seen] = (await client.get(f"{PATH}/shared", headers=key)).json()
        assert seen["use"] == ("shared" if use else "off")
        answer = await client.post(f"{PATH}/classify", json=asked, headers=key)
        assert answer.status_code == status

    opposite = texts(annoyed="please kindly", calm="ridiculous awful")
    await client.post(f"{PATH}?task=annoyance", content=as_file(opposite), headers=key)
    assert await train_next(context, executor="here")
    await client.post(f"{PATH}/promote", json=choice, headers=key)
    said = (await client.post(f"{PATH}/classify", json=asked, headers=key)).json()
    assert (said["shared"], said["labels"][0]["label"]) == (False, "calm")
    [seen] = (await client.get(f"{PATH}/shared", headers=key)).json()
    assert seen["use"] == "own"

    assert (await client.delete(f"{SHARED}/annoyance/1", headers=operator)).status_code == 409
    await client.post(f"{SHARED}/retire", json={"task": "annoyance"}, headers=operator)
    assert (await client.delete(f"{SHARED}/annoyance/1", headers=operator)).status_code == 204
    assert list((settings.heads / "shared" / "datasets").iterdir()) == []
    assert (await client.get(f"{PATH}/shared", headers=key)).json() == []


async def test_only_an_operator_changes_shared_heads(client, key, make_key):
    for headers in (key, await make_key("acme", "admin")):
        for method, path in (
            ("POST", SHARED),
            ("GET", SHARED),
            ("POST", f"{SHARED}/promote"),
            ("POST", f"{SHARED}/rollback"),
            ("POST", f"{SHARED}/retire"),
            ("DELETE", f"{SHARED}/annoyance/1"),
        ):
            assert (await client.request(method, path, headers=headers)).status_code == 403, path
