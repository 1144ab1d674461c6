"""The pages about heads, without a browser: forms without a script, who may do what, what is refused."""

import csv
import io
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from bs4 import BeautifulSoup

from server.db.models import Head, LiveConversation, LiveMessage, MessageLabel, Visitor, now
from server.db.scope import of_tenant
from server.heads import service
from server.jobs.head_training import train_next
from server.jobs.steps.context import StepContext
from server.tenants import service as tenants
from tests.server.heads.conftest import as_file, texts
from tests.server.heads.fake_manifests import make_manifest
from training.heads.config import Task

PAGE = "/console/t/acme/heads"
LABELS = ("annoyed", "calm")


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


@pytest.fixture
def settings(settings):
    return msgspec.structs.replace(settings, engine="fake", max_upload_bytes=1 << 20)


@pytest.fixture
async def tenant(make_tenant):
    await make_tenant("other", name="Other")
    return await make_tenant("acme", name="Acme")


@pytest.fixture
async def admin(sign_in, tenant):
    return await sign_in("acme", "admin")


@pytest.fixture
def make_ready(database, tenant):
    """A version that is ready, without any file."""

    async def make(version: int = 1, task: Task = "annoyance", **fields: Any) -> Head:
        right = fields.pop("right", 1.0)
        row = Head(tenant_id=tenant.id, task=task, version=version, texts=96, state="ready")
        row.sha256, row.manifest = "0" * 64, make_manifest(task, LABELS, right=right)
        for name, value in fields.items():
            setattr(row, name, value)
        async with database.transaction() as session:
            session.add(row)
        return row

    return make


@pytest.fixture
def send(admin):
    """Upload as a browser without a script does: by the form of the page, the token in its address."""

    async def send(content: bytes, task: str = "annoyance", name: str = "mine.jsonl") -> Any:
        form = soup(await admin.get(PAGE)).select_one("form#upload")
        assert form is not None
        token = admin.headers.pop("x-csrf-token")
        try:
            file = {"file": (name, content, "application/octet-stream")}
            return await admin.post(str(form["action"]), files=file, data={"task": task})
        finally:
            admin.headers["x-csrf-token"] = token

    return send


async def press(client: Any, path: str) -> Any:
    """Answer the question of a page."""
    form = soup(await client.get(path)).select_one("main form")
    assert form is not None
    fields = {str(each["name"]): str(each["value"]) for each in form.select("input[name]")}
    return await client.post(str(form["action"]), data=fields)


async def press_form(client: Any, path: str, ending: str) -> Any:
    """Send one form of a page as it is."""
    form = soup(await client.get(path)).select_one(f'form[action$="{ending}"]')
    assert form is not None
    fields = {str(each["name"]): str(each["value"]) for each in form.select("input[name]")}
    return await client.post(str(form["action"]), data=fields)


async def live_of(database, tenant, task: Task = "annoyance") -> int:
    async with database.reading() as session:
        row = await service.find_live(session, tenant.id, task)
    return row.version if row else 0


async def test_examples_become_a_version_that_is_made_live_and_taken_back(
    send, admin, database, settings, tenant
):
    sent = await send(as_file(texts()))
    assert (sent.status_code, sent.headers["location"]) == (303, f"{PAGE}/annoyance")
    waits = await admin.get(f"{PAGE}/annoyance")
    assert "Waits its turn" in words(waits)
    assert 'hx-trigger="every 2s"' in waits.text
    assert await train_next(StepContext(settings, database), executor="here")
    version = await admin.get(f"{PAGE}/annoyance/1")
    assert "Better than always saying the commonest label" in words(version)
    assert "hx-trigger" not in version.text
    done = await press(admin, f"{PAGE}/annoyance/1/promote")
    assert done.headers["location"] == f"{PAGE}/annoyance?done=promoted"
    assert await live_of(database, tenant) == 1
    toast = await admin.get(done.headers["location"])
    assert "Annoyance, version 1 is live." in words(toast, "#toasts")
    undo = soup(toast).select_one("#toasts form")
    assert undo is not None
    assert undo["action"] == f"{PAGE}/annoyance/retire"  # nothing was live before
    await admin.post(str(undo["action"]), data={"revision": "1"})
    assert await live_of(database, tenant) == 0


async def test_what_is_live_is_rolled_back_and_the_other_way_again(
    admin, make_ready, database, tenant
):
    await make_ready(1, live=True, live_since=now() - timedelta(days=1))
    await make_ready(2)
    await press(admin, f"{PAGE}/annoyance/2/promote")
    toast = await admin.get(f"{PAGE}/annoyance?done=promoted")
    assert f'action="{PAGE}/annoyance/roll-back"' in toast.text
    asked = words(await admin.get(f"{PAGE}/annoyance/roll-back"))
    assert "Roll back to Annoyance, version 1?" in asked
    await press(admin, f"{PAGE}/annoyance/roll-back")
    assert await live_of(database, tenant) == 1
    await press(admin, f"{PAGE}/annoyance/roll-back")
    assert await live_of(database, tenant) == 2
    await press(admin, f"{PAGE}/annoyance/retire")
    assert await live_of(database, tenant) == 0
    assert "No version is live" in words(await admin.get(f"{PAGE}/annoyance/retire"))


async def test_who_was_slower_changes_nothing(admin, make_ready, database, tenant):
    await make_ready(1)
    await make_ready(2, live=True)
    late = await admin.post(f"{PAGE}/annoyance/1/promote", data={"revision": "0"})
    assert late.status_code == 409
    assert "version 2 of annoyance is live now" in words(late)
    assert (await admin.post(f"{PAGE}/annoyance/1/promote")).status_code == 422
    assert await live_of(database, tenant) == 2


async def test_one_that_is_not_better_is_made_live_with_a_warning(
    admin, make_ready, database, tenant
):
    await make_ready(1, right=0.5)
    asked = words(await admin.get(f"{PAGE}/annoyance/1/promote"))
    assert "cannot be told with so few examples" in asked
    assert "all the same" in asked
    await press(admin, f"{PAGE}/annoyance/1/promote")
    assert await live_of(database, tenant) == 1


async def test_a_version_is_deleted_unless_it_is_live(admin, make_ready, database, tenant):
    await make_ready(1, live=True)
    await make_ready(2)
    assert "is live" in words(await admin.get(f"{PAGE}/annoyance/1/delete"))
    assert (await admin.post(f"{PAGE}/annoyance/1/delete")).status_code == 409
    done = await press(admin, f"{PAGE}/annoyance/2/delete")
    assert done.headers["location"] == f"{PAGE}/annoyance?done=deleted"
    assert (await admin.get(f"{PAGE}/annoyance/2")).status_code == 404


async def test_a_file_that_cannot_be_used_is_named_at_the_field(send, admin):
    sent = await send(b"text,label\nHi,calm\nHo,\n", name="mine.csv")
    assert sent.status_code == 422
    assert "mine.csv, line 3: there is no label" in words(sent)
    unknown = await send(as_file(texts()), task="humour")
    assert unknown.status_code == 422
    assert soup(unknown).select_one("#task[aria-invalid]")
    assert "Nothing" not in words(await admin.get(PAGE), "h1")
    assert soup(await admin.get(f"{PAGE}?task=intent")).select_one("option[value=intent][selected]")


async def test_the_first_page_says_what_heads_are_for_and_gives_samples(admin):
    first = await admin.get(PAGE)
    assert "Train the first head" in words(first)
    samples = [str(link["href"]) for link in soup(first).select(".purposes a")]
    assert len(samples) == 3
    for sample in samples:
        file = await admin.get(sample)
        assert file.headers["content-disposition"].startswith("attachment")
        assert len(file.text.splitlines()) >= 16
    assert (await admin.get(f"{PAGE}/samples/__init__.py")).status_code == 404
    assert (await admin.get(f"{PAGE}/humour")).status_code == 404


async def test_labels_are_counted_by_day_and_as_a_file(admin, make_ready, database, tenant):
    await make_ready(1, live=True)
    async with database.transaction() as session:
        visitor = Visitor(tenant_id=tenant.id)
        session.add(visitor)
        await session.flush()
        talk = LiveConversation(
            tenant_id=tenant.id, visitor_id=visitor.id, topic="a", message_count=3, last_at=now()
        )
        session.add(talk)
        await session.flush()
        for number, label in enumerate(("annoyed", "calm", "calm", "=cmd")):
            message = LiveMessage(
                tenant_id=tenant.id, conversation_id=talk.id, seq=number, role="visitor", text="a"
            )
            session.add(message)
            await session.flush()
            session.add(
                MessageLabel(
                    tenant_id=tenant.id,
                    conversation_id=talk.id,
                    message_id=message.id,
                    task="annoyance",
                    label=label,
                    probability=0.9,
                    head_version=1,
                    head_sha256="0" * 64,
                    day=now().date() - timedelta(days=10 * (label == "annoyed")),
                )
            )
    assert "4 messages got a label: calm 50 %" in words(await admin.get(f"{PAGE}/annoyance"))
    week = words(await admin.get(f"{PAGE}/annoyance?days=7"))
    assert "3 messages got a label: calm 67 %" in week
    assert "No message got a label" not in week
    rows = list(csv.reader(io.StringIO((await admin.get(f"{PAGE}/annoyance/counts.csv")).text)))
    assert rows[0] == ["day", "task", "label", "messages"]
    assert sorted(row[2:] for row in rows[1:]) == [["'=cmd", "1"], ["annoyed", "1"], ["calm", "2"]]
    assert len((await admin.get(f"{PAGE}/intent/counts.csv")).text.splitlines()) == 1


async def test_the_list_shows_what_is_live_and_all_versions_are_a_file(admin, make_ready):
    await make_ready(1, live=True)
    await make_ready(2, task="intent", right=0.5)
    seen = words(await admin.get(PAGE))
    assert "Annoyance 1 version Version 1 100 %" in seen
    assert "Intent 1 version None is live" in seen
    rows = list(csv.DictReader(io.StringIO((await admin.get(f"{PAGE}/heads.csv")).text)))
    assert [(row["task"], row["live"], row["verdict"]) for row in rows] == [
        ("annoyance", "yes", "better"),
        ("intent", "no", "cannot_tell"),
    ]
    assert float(rows[0]["balanced_accuracy_of_commonest_label"]) == pytest.approx(0.5)


async def test_who_only_looks_sees_no_form_and_may_send_none(sign_in, tenant, make_ready):
    await make_ready(1)
    viewer = await sign_in("acme", "viewer")
    for path in (PAGE, f"{PAGE}/annoyance", f"{PAGE}/annoyance/1"):
        assert soup(await viewer.get(path)).select("main form, main .btn") == []
    for path in ("annoyance/1/promote", "annoyance/roll-back", "annoyance/retire"):
        assert (await viewer.get(f"{PAGE}/{path}")).status_code == 403
        answer = await viewer.post(f"{PAGE}/{path}", data={"revision": "0"})
        assert answer.status_code == 403
    assert (await viewer.post(PAGE, files={"file": ("a", b"a")})).status_code == 403


async def test_another_tenants_heads_are_not_seen(sign_in, database, tenant, make_ready):
    await make_ready(1, live=True)
    stranger = await sign_in("other", "admin")
    assert (await stranger.get(f"{PAGE}/annoyance/1")).status_code == 404
    own = "/console/t/other/heads"
    assert "Train the first head" in words(await stranger.get(own))
    assert (await stranger.get(f"{own}/annoyance/1")).status_code == 404
    answer = await stranger.post(f"{own}/annoyance/1/delete")
    assert answer.status_code == 404
    async with database.reading() as session:
        assert await session.scalar(of_tenant(tenant.id).select(Head)) is not None


async def test_rules_are_saved_changed_and_removed(admin, make_ready, sign_in):
    await make_ready(1, live=True)
    page = f"{PAGE}/annoyance"

    async def save(**form: str) -> Any:
        return await admin.post(f"{page}/rules", data=form)

    assert (await save(label="annoyed", percent="80")).headers["location"] == f"{page}?done=rules"
    assert "annoyed from 80 % on" in words(await admin.get(page))
    await save(label="annoyed", percent="90")
    await save(label="calm", percent="99")
    assert "annoyed from 90 % on Remove the rule for annoyed calm from 99 %" in words(
        await admin.get(page)
    )
    for percent in ("0", "101", "0.8", "", "-1"):
        refused = await save(label="annoyed", percent=percent)
        assert refused.status_code == 422
        assert "whole number from 1 to 100" in words(refused)
    assert (await save(label="angry", percent="80")).status_code == 422
    await save(remove="annoyed")
    assert "annoyed from" not in words(await admin.get(page))
    viewer = await sign_in("acme", "viewer")
    assert (await viewer.post(f"{page}/rules", data={"remove": "calm"})).status_code == 403
    assert "calm from 99 %" in words(await viewer.get(page))


async def test_a_shared_head_is_said_to_be_one_and_switched_off(
    admin, make_ready, sign_in, database, tenant
):
    await make_ready(4, tenant_id=None, live=True)
    assert "Annoyance , version 4 of the installation It labels here" in words(
        await admin.get(PAGE)
    )
    page = f"{PAGE}/annoyance"
    seen = await admin.get(page)
    assert "Shared version 4" in words(seen)
    assert "made it, for all tenants; it is not trained on what you upload" in words(seen)
    assert (await admin.get(f"{page}/4")).status_code == 404  # it is not the tenant's
    saved = await admin.post(f"{page}/rules", data={"label": "annoyed", "percent": "80"})
    assert saved.status_code == 303  # rules hold for its labels too
    await press_form(admin, page, "/shared")
    assert "switched off here" in words(await admin.get(page))
    async with database.reading() as session:
        assert await service.find_used(session, tenant.id, "annoyance") is None
        assert await service.find_used(
            session, (await tenants.get(session, "other")).id, "annoyance"
        )
    await press_form(admin, page, "/shared")
    assert "Shared version 4" in words(await admin.get(page))
    await make_ready(1, live=True)
    assert "A version of your own is live" in words(await admin.get(page))
    viewer = await sign_in("acme", "viewer")
    assert (await viewer.post(f"{page}/shared", data={"use": "no"})).status_code == 403
