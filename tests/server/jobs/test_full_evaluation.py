"""A full evaluation of a version that is there: what its trainer is asked, and where the result goes."""

import msgspec
import pytest

from server.db.models import Adapter, DatasetVersion, Tenant
from server.db.scope import of_tenant
from server.errors import Conflict
from server.jobs import full_evaluation
from server.jobs.full_evaluation import evaluate_fully
from server.jobs.schemas import JobEventView
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version
from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.reports.test_report import CONTROLS
from training.config import load_spec
from training.events import EvaluationEvent
from training.reports.report import Report

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_its_controls_come_into_the_report_of_the_version(
    database, settings, make_tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant: Tenant = await make_tenant()
    job = await make_run(database, tenant, state="succeeded")
    version: Adapter = await make_version(database, tenant, job, version=1, report=make_report())
    source = settings.adapters / version.engine_name
    source.mkdir(parents=True)
    (source / "manifest.json").write_bytes(msgspec.json.encode(MANIFEST))

    async def trainer(spec, out, *, command, on_event, **_) -> None:
        assert command == ("training", "--controls-of", str(source))
        made = load_spec(spec)
        assert (made.seed, made.base) == (MANIFEST.seed, str(settings.bases / "tiny-base"))
        event = EvaluationEvent(at=1.0, subject="training 10% of the data", done=3, total=30)
        await on_event(event)
        (out / "controls.json").write_bytes(msgspec.json.encode(CONTROLS))

    monkeypatch.setattr(full_evaluation, "run_trainer", trainer)
    seen: list[JobEventView] = []

    async def measure(adapter: Adapter) -> object:
        async with database.reading() as session:
            dataset = await of_tenant(tenant.id).get_one(
                session, DatasetVersion, adapter.dataset_id
            )
        return await evaluate_fully(
            database, settings, tenant, adapter, dataset, on_event=seen.append
        )

    assert await measure(version) == CONTROLS
    assert [(event.kind, event.body["done"]) for event in seen] == [("evaluation", 3)]
    async with database.reading() as session:
        stored = await of_tenant(tenant.id).get_one(session, Adapter, version.id)
    assert msgspec.convert(stored.report, Report).controls == CONTROLS
    page = (settings.jobs / job.id / "report.html").read_text()
    assert "With less data, and from scratch" in page

    other = await make_run(database, tenant, state="succeeded")
    bare = await make_version(database, tenant, other, version=2)
    with pytest.raises(Conflict, match="acme@2 has no report"):
        await measure(bare)
