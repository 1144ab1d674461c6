"""Adapter versions: registered once, promoted by one row, rolled back, named."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from server.adapters import names, service
from server.adapters.schemas import Resolved
from server.db.models import Adapter, AdapterState, Job, Tenant
from server.errors import Conflict, ModelNotFound, NotFound
from server.settings import Settings
from server.tenants import service as tenants
from training.adapters.package import AdapterManifest, BaseRef, LoraShape, write_manifest
from training.config import Recipe
from training.evaluation.gates import Gate, Verdict

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def recipe() -> Recipe:
    return Recipe(
        name="tiny",
        rank=2,
        alpha=4,
        learning_rate=1e-3,
        epochs=1,
        batch_tokens=64,
        max_length=32,
        validate_every=1,
        checkpoint_every=1,
        memory_bytes=1,
    )


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Folders as a training run leaves them; the weights are only bytes here."""
    count = 0

    def make(slug: str = "acme", *, base: str = "tiny-base", prompt: str = "Be kind.") -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / "jobs" / str(count) / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights %d" % count)
        (folder / "adapter_config.json").write_text("{}")
        manifest = AdapterManifest(
            label=slug,
            base=BaseRef(name=base, serving_sha256="b" * 64),
            dataset_sha256="d" * 64,
            system_prompt=prompt,
            recipe=recipe(),
            seed=17,
            lora=LoraShape(rank=2, alpha=4, targets=("q_proj",)),
            packages={},
            created_at="2026-11-23T00:00:00Z",
        )
        write_manifest(folder, manifest)
        return folder

    return make


@pytest.fixture
def register(database, settings: Settings, trained) -> Callable[..., object]:
    """Register a new adapter of a tenant, by slug."""

    async def do(
        slug: str = "acme",
        *,
        state: AdapterState = "ready",
        folder: Path | None = None,
        job_id: str | None = None,
        **kinds: str,
    ) -> Adapter:
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            job = await session.get_one(Job, job_id) if job_id else None
            return await service.register(
                session,
                tenant,
                job,
                settings=settings,
                folder=folder or trained(slug, **kinds),
                report={"seconds": 1.5},
                state=state,
            )

    return do


@pytest.fixture
def resolve(database, settings: Settings) -> Callable[..., object]:
    """What a model's name means to a tenant."""

    async def do(model: str, slug: str = "acme", *, base: str = "tiny-base") -> Resolved:
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return await names.resolve(
                session, tenant.id, model, base=base, adapters=settings.adapters
            )

    return do


@pytest.fixture
async def acme(make_tenant) -> Tenant:
    tenant: Tenant = await make_tenant("acme", system_prompt="Now.")
    return tenant


@pytest.fixture
async def train_key(acme, make_key) -> dict[str, str]:
    key: dict[str, str] = await make_key("acme", "train")
    return key


async def test_versions_count_up_from_one_and_folders_are_published_whole(acme, register, settings):
    first, second = await register(), await register(state="failed_gates")
    assert (first.version, second.version) == (1, 2)
    assert (first.state, second.state) == ("ready", "failed_gates")
    for adapter in (first, second):
        folder = settings.adapters / adapter.engine_name
        assert sorted(path.name for path in folder.iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
            "manifest.json",
        ]
    assert first.system_prompt == "Be kind."


async def test_registering_again_after_a_crash_gives_the_same_version(
    acme, register, trained, database, settings
):
    async with database.transaction() as session:
        job = Job(tenant_id=acme.id, base="tiny-base", recipe_name="tiny", suffix="v")
        session.add(job)
    folder = trained()
    first = await register(folder=folder, job_id=job.id)
    second = await register(folder=folder, job_id=job.id)
    third = await register(folder=settings.adapters / first.engine_name)
    assert first.id == second.id == third.id
    assert first.suffix == "v"
    assert (await register()).version == 2


async def test_versions_given_at_the_same_time_are_all_different(acme, register):
    made = await asyncio.gather(*(register() for _ in range(8)))
    assert sorted(adapter.version for adapter in made) == list(range(1, 9))


async def test_promotion_takes_effect_on_the_next_lookup_and_tells_who_did_it(
    client, acme, register, *, train_key, resolve
):
    assert (await resolve("acme")).adapter is None
    await register()
    second = await register()
    for version in (1, 2):
        answer = await client.post(
            "/admin/tenants/acme/promote", json={"version": version}, headers=train_key
        )
        assert answer.status_code == 200
        assert answer.json() == {
            "tenant": "acme",
            "live_version": version,
            "live_revision": version,
        }
    assert (await resolve("acme")).adapter.name == second.engine_name
    again = await client.post("/admin/tenants/acme/promote", json={"version": 2}, headers=train_key)
    assert again.json()["live_revision"] == 2
    history = (await client.get("/admin/tenants/acme/promotions", headers=train_key)).json()
    assert [(step["from_version"], step["to_version"]) for step in history] == [(1, 2), (None, 1)]
    assert history[0]["actor"].startswith("key:")
    listed = (await client.get("/admin/tenants/acme/adapters", headers=train_key)).json()
    assert [(row["version"], row["live"]) for row in listed] == [(2, True), (1, False)]


async def test_of_two_promotions_that_saw_the_same_revision_one_loses(
    client, acme, register, train_key
):
    await register()
    await register()
    answers = await asyncio.gather(
        *(
            client.post(
                "/admin/tenants/acme/promote",
                json={"version": version, "expected_revision": 0},
                headers=train_key,
            )
            for version in (1, 2)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    lost = next(answer for answer in answers if answer.status_code == 409)
    assert lost.json()["code"] == "revision_changed"


async def test_concurrent_promotions_leave_an_unbroken_history(acme, register, database):
    for _ in range(3):
        await register()

    async def promote(version: int) -> None:
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            await service.promote(session, tenant, version=version, actor="test")

    await asyncio.gather(*(promote(1 + index % 3) for index in range(12)))
    async with database.reading() as session:
        tenant = await tenants.get(session, "acme")
        steps = await service.history(session, tenant)
        live = await service.live_version(session, tenant)
    steps.reverse()
    assert [step.revision for step in steps] == list(range(1, tenant.live_revision + 1))
    assert [step.from_version for step in steps] == [
        None,
        *(step.to_version for step in steps[:-1]),
    ]
    assert steps[-1].to_version == live


async def test_an_adapter_that_failed_its_gates_goes_live_only_by_the_operators_force(
    client, acme, register, *, train_key, operator, resolve
):
    adapter = await register(state="failed_gates")
    address = "/admin/tenants/acme/promote"
    refused = await client.post(address, json={"version": 1}, headers=operator)
    assert refused.status_code == 409
    assert refused.json()["code"] == "gates_failed"
    forced = await client.post(address, json={"version": 1, "force": True}, headers=train_key)
    assert forced.status_code == 403
    for name in ("acme@1", service.fine_tuned_name("acme", adapter)):
        assert (await resolve(name)).adapter.name == adapter.engine_name
    taken = await client.post(address, json={"version": 1, "force": True}, headers=operator)
    assert taken.status_code == 200
    assert (await resolve("acme")).version == 1


async def test_an_adapter_of_which_its_gates_cannot_tell_is_promoted_by_a_person(
    client, acme, register, *, train_key, resolve
):
    adapter = await register(state="candidate")
    assert (await resolve(service.fine_tuned_name("acme", adapter))).version == 1
    assert (await resolve("acme")).version is None
    taken = await client.post("/admin/tenants/acme/promote", json={"version": 1}, headers=train_key)
    assert taken.status_code == 200
    assert (await resolve("acme")).version == 1


async def test_an_unsafe_adapter_has_no_name_of_its_own_and_goes_live_only_by_force(
    client, acme, register, *, operator, resolve, database
):
    adapter = await register(state="unsafe")
    name = service.fine_tuned_name("acme", adapter)
    with pytest.raises(ModelNotFound):
        await resolve(name)
    async with database.reading() as session:
        cards = await names.list_models(session, acme.id, base="tiny-base")
    assert name not in {card.id for card in cards}
    assert (await resolve("acme@1")).version == 1
    address = "/admin/tenants/acme/promote"
    refused = await client.post(address, json={"version": 1}, headers=operator)
    assert refused.status_code == 409
    assert "unsafe" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("result", "unsafe", "state"),
    [
        ("better", False, "ready"),
        ("cannot_tell", False, "candidate"),
        ("worse", False, "failed_gates"),
        ("worse", True, "unsafe"),
    ],
)
def test_a_verdict_makes_a_state(result, unsafe, state):
    gate = Gate(
        name="parity" if unsafe else "perplexity_ratio",
        value=1.0,
        bound=0.8,
        passed=result == "better",
        why="so",
        result=result,
    )
    verdict = Verdict(passed=gate.passed, gates=(gate,), result=result)
    assert service.state_of(verdict) == state


async def test_rolling_back_goes_one_further_back_each_time_and_ends_at_the_base(
    acme, register, database, resolve
):
    for _ in range(3):
        await register()

    async def change(version: int | None) -> int | None:
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            if version is None:
                await service.roll_back(session, tenant, actor="test")
            else:
                await service.promote(session, tenant, version=version, actor="test")
            return await service.live_version(session, tenant)

    # 1, 2, 3, back to 2, on to 1: before 1 came 2, before 2 came 1, and before that the base
    for version, live in [(1, 1), (2, 2), (3, 3), (None, 2), (1, 1)]:
        assert await change(version) == live
    assert [await change(None) for _ in range(3)] == [2, 1, None]
    assert (await resolve("acme")).adapter is None
    with pytest.raises(Conflict) as caught:
        await change(None)
    assert caught.value.code == "nothing_to_roll_back"


@only_sqlite
async def test_rolling_back_passes_over_versions_deleted_since(
    client, acme, register, train_key, settings
):
    address = "/admin/tenants/acme"
    for version in (1, 2, 3):
        adapter = await register()
        answer = await client.post(
            f"{address}/promote", json={"version": version}, headers=train_key
        )
        assert answer.status_code == 200
    live = await client.delete(f"{address}/adapters/3", headers=train_key)
    assert live.status_code == 409
    gone = await client.delete(f"{address}/adapters/2", headers=train_key)
    assert gone.status_code == 204
    assert len(list(settings.adapters.iterdir())) == 2
    assert (await client.get(f"{address}/adapters/2", headers=train_key)).status_code == 404
    back = await client.post(f"{address}/rollback", json={}, headers=train_key)
    assert back.json()["live_version"] == 1
    assert (settings.adapters / adapter.engine_name).is_dir()
    # a deleted version is not given again
    assert (await register()).version == 4


async def test_every_name_of_an_adapter_leads_to_it_and_to_the_prompt_it_was_trained_with(
    acme, register, resolve, settings, database
):
    adapter = await register()
    exact = service.fine_tuned_name("acme", adapter)
    assert exact == f"ft:tiny-base:acme::{adapter.engine_name[-12:]}"
    for model in ("acme@1", exact):
        found = await resolve(model)
        assert found.model == model
        assert found.adapter.name == adapter.engine_name
        assert found.adapter.path == str(settings.adapters / adapter.engine_name)
        assert (found.version, found.system_prompt) == (1, "Be kind.")
    unproved = await resolve("acme")
    assert (unproved.adapter, unproved.system_prompt) == (None, "Now.")
    base = await resolve("tiny-base")
    assert (base.adapter, base.version, base.system_prompt) == (None, None, "")
    async with database.reading() as session:
        cards = await names.list_models(session, acme.id, base="tiny-base")
    assert [card.id for card in cards] == ["tiny-base", "acme", "acme@1", exact]


async def test_names_of_others_and_names_of_nothing_are_refused_alike(
    acme, make_tenant, register, resolve
):
    await make_tenant("other")
    foreign = await register("other")
    own = await register()
    models = [
        "other",
        "other@1",
        service.fine_tuned_name("other", foreign),
        service.fine_tuned_name("other", own),
        service.fine_tuned_name("acme", foreign),
        service.fine_tuned_name("acme", own).replace("tiny-base", "big-base"),
        service.fine_tuned_name("acme", own).replace("::", ":x:"),
        foreign.engine_name,
        own.engine_name,
        "acme@2",
        "acme@01",
        "acme@0",
        "acme@-1",
        "acme@1 ",
        "acme@99999999999999999999",
        "ACME",
        "gpt-4",
        "",
        "../../acme",
        "acme\x00",
    ]
    for model in models:
        with pytest.raises(ModelNotFound) as caught:
            await resolve(model)
        assert caught.value.message == ModelNotFound(model).message


async def test_a_live_adapter_of_another_base_is_not_served_on_this_one(
    acme, register, resolve, database
):
    await register(base="old-base")
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        await service.promote(session, tenant, version=1, actor="test")
    with pytest.raises(Conflict, match=r"old-base.*tiny-base"):
        await resolve("acme")
    assert (await resolve("acme", base="old-base")).version == 1


@only_sqlite
async def test_a_report_is_given_as_data(client, acme, register, train_key):
    await register()
    address = "/admin/tenants/acme/adapters/1/report"
    data = await client.get(address, headers=train_key)
    assert data.json() == {"seconds": 1.5, "version": 1}
    assert (await client.get(f"{address}?format=pdf", headers=train_key)).status_code == 400


@only_sqlite
async def test_a_version_tells_what_its_gates_say_also_one_from_when_they_had_two_results(
    client, acme, register, *, train_key, database
):
    await register(state="failed_gates")
    path = "/admin/tenants/acme/adapters/1"
    assert (await client.get(path, headers=train_key)).json()["verdict"] is None
    gate = {"name": "perplexity_ratio", "value": 0.9, "bound": 0.8, "passed": False, "why": "0.9"}
    async with database.transaction() as session:
        row = await session.get_one(Adapter, (await session.scalars(select(Adapter.id))).one())
        row.report = {"verdict": {"passed": False, "gates": [gate]}}
    told = {"result": "worse", "summary": "failed 1 of 1 gates: 0.9"}
    assert (await client.get(path, headers=train_key)).json()["verdict"] == told


async def test_a_report_stored_without_its_version_is_shown_with_it(
    client, acme, register, train_key, database
):
    await register()
    second = await register()
    async with database.transaction() as session:
        row = await session.get_one(Adapter, second.id)
        assert row.report == {"seconds": 1.5, "version": 2}
        row.report = {"seconds": 1.5, "version": 0}
    data = await client.get("/admin/tenants/acme/adapters/2/report", headers=train_key)
    assert data.json() == {"seconds": 1.5, "version": 2}


@only_sqlite
async def test_a_name_whose_suffix_has_colons_still_leads_to_its_adapter(
    acme, register, database, resolve
):
    made = await register()
    async with database.transaction() as session:
        row = await session.get_one(Adapter, made.id)
        row.suffix = "x:y\nz"  # suffixes were once free text
        name = service.fine_tuned_name("acme", row)
    assert (await resolve(name)).version == 1
    with pytest.raises(ModelNotFound):
        await resolve(name.replace("x:y", "x:z"))


@only_sqlite
async def test_other_tenants_see_nothing_of_a_version(acme, make_tenant, register, database):
    await make_tenant("other")
    await register()
    async with database.transaction() as session:
        other = await tenants.get(session, "other")
        assert await service.list_for(session, other) == []
        with pytest.raises(NotFound):
            await service.get(session, other, version=1)
        with pytest.raises(NotFound):
            await service.promote(session, other, version=1, actor="test")
        with pytest.raises(NotFound):
            await service.delete(session, other, version=1)


@pytest.mark.parametrize("version", [1 << 40, 1 << 70])
async def test_a_number_that_no_column_holds_is_the_callers_fault(
    client, make_tenant, operator, version
):
    await make_tenant()
    answer = await client.get(f"/admin/tenants/acme/adapters/{version}", headers=operator)
    assert answer.status_code in {400, 404}  # SQLite's columns hold 64 bits, PostgreSQL's 32
    huge = await client.get(f"/admin/tenants/acme/adapters/{1 << 70}/report", headers=operator)
    assert huge.status_code == 400
    assert huge.json()["code"] == "invalid_value"
