"""The engine and the workers, for operators."""

import re
from datetime import timedelta

import pytest
import pytest_asyncio

from server.app import create_app
from server.db.models import Job, now
from server.engine.service import EngineService
from server.jobs.heartbeat import Heartbeat

PATH = "/console/engine"


def facts(text: str) -> dict[str, str]:
    """The pairs of a page: term and value."""
    return dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", text))


async def test_without_engine_and_worker_the_page_says_what_to_do(
    sign_in, make_tenant, make_upload
):
    await make_tenant("acme", name="Acme Ltd")
    upload = await make_upload("acme")
    operator = await sign_in()
    page = (await operator.get(PATH)).text
    assert "This server runs no engine" in page
    assert "<code>tenantune up</code>" in page
    assert "Uploads are not read and runs do not begin." in page
    assert "<code>python -m server.worker</code>" in page
    assert f'<a href="/console/t/acme/data/imports/{upload.id}">a</a>' in page
    assert "a worker: none runs" in page
    assert "/console/engine/restart" not in page
    assert "It cannot be restarted here" in (await operator.get(f"{PATH}/restart")).text
    assert (await operator.post(f"{PATH}/restart")).status_code == 409
    home = (await operator.get("/console")).text
    assert 'Workers running</dt><dd><a href="/console/engine#workers">none</a>' in home
    assert "Uploads are not read and runs do not begin: 1 waits." in home
    assert "Engine: none." in home


async def test_workers_are_listed_with_their_work_and_what_waits(sign_in, make_tenant, database):
    acme = await make_tenant("acme", name="Acme & Sons")
    async with database.transaction() as session:
        running, queued = (
            Job(tenant_id=acme.id, state=state, base="b", recipe_name="cpu-small")
            for state in ("running", "queued")
        )
        session.add_all([running, queued])
    await Heartbeat(database, name="one:/home", jobs_at_once=1).beat(jobs=[running.id], imports=[])
    operator = await sign_in()
    page = (await operator.get(f"{PATH}/now")).text
    assert page.lstrip().startswith('<div class="stack" id="now"')
    assert "1 running" in page
    link = f'<a href="/console/t/acme/training/{running.id}">run by cpu-small</a>'
    assert f'Training: {link} <span class="quiet">of Acme &amp; Sons' in page
    assert "a place: the only one is taken" in page
    assert page.index(running.id) < page.index(queued.id)


async def test_the_whole_page_has_disk_and_versions(sign_in, settings):
    settings.adapters.mkdir(parents=True)
    (settings.adapters / "weights").write_bytes(b"x" * 3072)
    found = facts((await (await sign_in()).get(PATH)).text)
    assert found["Adapters"] == "3.0 KiB"
    assert found["litestar"].startswith("2.")
    assert "MiB" in found["Database"] or "KiB" in found["Database"]


async def test_the_page_is_the_operators(sign_in, make_tenant):
    await make_tenant("acme")
    admin = await sign_in("acme", "admin")
    for path in (PATH, f"{PATH}/now", f"{PATH}/restart"):
        assert (await admin.get(path)).status_code == 403
    assert (await admin.post(f"{PATH}/restart")).status_code == 403
    assert PATH not in (await admin.get("/console/t/acme")).text


class TestWithAnEngine:
    @pytest_asyncio.fixture
    async def engine(self, start_fake) -> EngineService:
        started: EngineService = await start_fake()
        return started

    @pytest.fixture
    def app(self, settings, database, blobs, engine, monkeypatch):
        async def running() -> None:
            """The fixture has started it."""

        monkeypatch.setattr(engine, "start", running)
        return create_app(settings, engine=engine, database=database, blobs=blobs)

    async def test_its_state_is_in_words_and_it_can_be_restarted(self, sign_in, engine):
        assert engine.status.state == "ready"
        operator = await sign_in()
        page = (await operator.get(PATH)).text
        assert '<span class="dot" aria-hidden="true"></span>Ready</span>' in page
        assert "<strong>Assistants answer.</strong>" in page
        found = facts(page)
        assert found["Base"] == "fake-base"
        assert found["Process"] == str(engine.status.pid)
        assert found["Adapters loaded"] == "0 of 32"
        assert found["Started again"] == "0 times"
        assert "Key-value cache" in page
        asked = (await operator.get(f"{PATH}/restart")).text
        assert "No request is under way." in asked
        assert "about 10 s, by its last start" in asked
        before = engine.status.pid
        answer = await operator.post(f"{PATH}/restart")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}?done=restart")
        assert "restarted the engine" in (await operator.get("/console/audit")).text
        async for status in engine.subscribe():
            if status.state == "ready" and status.pid != before:
                break
        page = (await operator.get(f"{PATH}/now")).text
        assert "Ana restarted the engine." in page
        assert facts(page)["Started again"] == "1 time"
        assert now() - engine.status.since < timedelta(minutes=1)
