"""Signing in: what opens a session, and what ends it."""

import hashlib
from datetime import timedelta

import pytest
from argon2 import PasswordHasher

from server.accounts import links, service, sessions, tries
from server.accounts.passwords import Passwords
from server.accounts.signing_in import SigningIn
from server.cleanup import Cleaner
from server.db.models import SignInLink, SignInSession, SignInTry, now
from server.db.scope import of_installation
from server.errors import Conflict, Invalid, NotFound, TooMany
from server.tenants import service as tenants_service
from tests.server.accounts.conftest import PASSWORD

HERE = {"address": "192.0.2.1", "agent": "test"}
NEW = "another long password"


async def viewer_of(database, token):
    async with database.reading() as session:
        found = await sessions.find(session, token)
    return found and found[0]


async def age(database, model, **columns):
    """Move times of all rows back."""
    async with database.transaction() as session:
        for row in await session.scalars(of_installation().select(model)):
            for name, by in columns.items():
                setattr(row, name, getattr(row, name) - by)


async def test_a_password_opens_a_session_of_which_only_a_hash_is_kept(
    database, signing_in, make_person
):
    person = await make_person()
    token = await signing_in.with_password(" ANA@Example.com ", PASSWORD, **HERE)
    viewer = await viewer_of(database, token)
    assert (viewer.person_id, viewer.email, viewer.roles) == (person.id, person.email, {})
    async with database.reading() as session:
        [row] = await session.scalars(of_installation().select(SignInSession))
    assert row.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert token not in repr(vars(row))
    assert token not in viewer.csrf_token
    assert await viewer_of(database, token + "x") is None


async def test_each_signing_in_is_a_new_session(database, signing_in, make_person):
    await make_person()
    made = {await signing_in.with_password("ana@example.com", PASSWORD, **HERE) for _ in range(3)}
    assert len({(await viewer_of(database, token)).session_id for token in made}) == 3


@pytest.mark.parametrize(
    "fields",
    [{}, {"password_hash": None}, {"disabled_at": now()}],
    ids=["wrong password", "no password", "disabled"],
)
async def test_all_refusals_are_the_same(signing_in, make_person, fields):
    await make_person(**fields)
    said = set()
    for email in ("ana@example.com", "nobody@example.com", "no address", "\x00"):
        password = "wrong, all of it" if not fields else PASSWORD
        with pytest.raises(Invalid) as caught:
            await signing_in.with_password(email, password, **HERE)
        said.add((caught.value.message, caught.value.code, caught.value.param))
    assert len(said) == 1


async def test_a_session_ends_when_idle_and_after_two_weeks(database, signing_in, make_person):
    await make_person()
    token = await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
    await age(database, SignInSession, seen_at=sessions.IDLE - timedelta(minutes=1))
    viewer = await viewer_of(database, token)
    assert viewer is not None
    async with database.transaction() as session:
        assert await sessions.find(session, token) == (viewer, True), "to be marked as seen"
        await sessions.mark_seen(session, viewer.session_id)
        assert await sessions.find(session, token) == (viewer, False)
    await age(database, SignInSession, expires_at=sessions.LONGEST)
    assert await viewer_of(database, token) is None
    async with database.transaction() as session:
        await sessions.delete_expired(session)
        assert list(await session.scalars(of_installation().select(SignInSession))) == []
    token = await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
    await age(database, SignInSession, seen_at=sessions.IDLE)
    assert await viewer_of(database, token) is None


async def test_what_ends_all_sessions(database, signing_in, make_person, make_tenant):
    person = await make_person()
    tenant = await make_tenant("acme")
    await make_person("boss@example.com", is_operator=True)
    for change in (
        lambda session, row: service.set_role(session, row, tenant, "viewer"),
        lambda session, row: service.set_role(session, row, tenant, "admin"),
        lambda session, row: service.set_role(session, row, tenant, None),
        lambda session, row: service.set_operator(session, row, to=True),
        lambda session, row: service.set_operator(session, row, to=False),
        lambda session, row: sessions.end_all(session, row.id),
        lambda session, row: service.set_disabled(session, row, to=True),
    ):
        token = await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
        other = await signing_in.with_password("boss@example.com", PASSWORD, **HERE)
        async with database.transaction() as session:
            await change(session, await service.get(session, person.id))
        assert await viewer_of(database, token) is None
        assert await viewer_of(database, other) is not None


async def test_an_unchanged_role_ends_nothing(database, signing_in, make_person, make_tenant):
    person, tenant = await make_person(), await make_tenant("acme")
    async with database.transaction() as session:
        await service.set_role(session, person, tenant, "viewer")
    token = await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
    async with database.transaction() as session:
        await service.set_role(session, person, tenant, "viewer")
    assert (await viewer_of(database, token)).roles == {tenant.id: "viewer"}


async def test_a_session_is_ended_by_its_own_person_only(database, signing_in, make_person):
    ana, bo = await make_person(), await make_person("bo@example.com")
    token = await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
    viewer = await viewer_of(database, token)
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await sessions.end(session, viewer.session_id, person_id=bo.id)
        await sessions.end(session, viewer.session_id, person_id=ana.id)
    assert await viewer_of(database, token) is None


async def test_guessing_ends_for_a_while(database, signing_in, make_person):
    await make_person()
    for _ in range(tries.PER_EMAIL):
        with pytest.raises(Invalid):
            await signing_in.with_password("ana@example.com", "wrong", **HERE)
    with pytest.raises(TooMany) as caught:
        await signing_in.with_password("ANA@example.com", PASSWORD, **HERE)
    assert "in 15 minutes" in caught.value.message
    seconds = caught.value.retry_after_seconds
    assert seconds is not None
    assert 0 < seconds <= 900
    await age(database, SignInTry, created_at=tries.WINDOW - timedelta(seconds=30))
    with pytest.raises(TooMany, match="in a minute"):
        await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
    await age(database, SignInTry, created_at=timedelta(minutes=1))
    assert await signing_in.with_password("ana@example.com", PASSWORD, **HERE)


async def test_the_right_password_forgets_the_wrong_ones(signing_in, make_person):
    await make_person()
    for _ in range(3):
        for _ in range(tries.PER_EMAIL - 1):
            with pytest.raises(Invalid):
                await signing_in.with_password("ana@example.com", "wrong", **HERE)
        assert await signing_in.with_password("ana@example.com", PASSWORD, **HERE)


async def test_one_address_may_not_try_many_people(database, signing_in, make_person):
    await make_person()
    async with database.transaction() as session:
        for number in range(tries.PER_ADDRESS):
            await tries.count(session, f"{number}@example.com", address="2001:db8::1")
    with pytest.raises(TooMany, match="from your network"):
        await signing_in.with_password(
            "ana@example.com", PASSWORD, address="2001:db8::2", agent="test"
        )
    assert await signing_in.with_password("ana@example.com", PASSWORD, **HERE)
    async with database.transaction() as session:  # who comes by a unix socket has no address
        for number in range(tries.PER_ADDRESS + 1):
            await tries.count(session, f"{number}@example.org", address="")


def test_an_ipv6_network_and_a_mapped_address_count_as_one():
    assert tries.network_of("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert tries.network_of("::ffff:192.0.2.1") == tries.network_of("192.0.2.1") == "192.0.2.1"


async def test_a_hash_of_old_parameters_is_renewed(database, signing_in, make_person):
    person = await make_person()
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1))
    await SigningIn(database, stronger).with_password(person.email, PASSWORD, **HERE)
    async with database.transaction() as session:
        kept = (await service.get(session, person.id)).password_hash
    assert kept is not None
    assert kept != person.password_hash
    assert not stronger.is_outdated(kept)
    assert await signing_in.with_password(person.email, PASSWORD, **HERE)


async def test_the_first_link_makes_the_operator_and_no_second(database, signing_in):
    async with database.transaction() as session:
        assert not await service.has_operator(session)
        one, two = [await links.make_first(session) for _ in range(2)]
    values = {"email": "Ana@Example.com", "name": " Ana  B. ", "password": PASSWORD, **HERE}
    for wrong, param in (({"password": "short"}, "password"), ({"email": "ana"}, "email")):
        with pytest.raises(Invalid) as caught:
            await signing_in.with_link(one, **{**values, **wrong})
        assert caught.value.param == param
    viewer = await viewer_of(database, await signing_in.with_link(one, **values))
    assert (viewer.email, viewer.name, viewer.is_operator) == ("ana@example.com", "Ana B.", True)
    with pytest.raises(NotFound):
        await signing_in.with_link(one, **values)
    with pytest.raises(Conflict):
        await signing_in.with_link(two, **{**values, "email": "bo@example.com"})
    async with database.reading() as session:
        [person] = await service.list_all(session)
    assert person.sessions == 1


async def test_a_link_sets_the_password_once_and_signs_others_out(
    database, signing_in, make_person
):
    person = await make_person()
    old = await signing_in.with_password(person.email, PASSWORD, **HERE)
    async with database.transaction() as session:
        replaced = await links.make(session, person, valid=links.LOST_PASSWORD)
        token = await links.make(session, person, valid=links.LOST_PASSWORD)
        kept = list(await session.scalars(of_installation().select(SignInLink.sha256)))
    assert token not in kept
    values = {"email": "", "name": "", "password": NEW, **HERE}
    for gone in (replaced, "tt_link_" + "x" * 43, ""):
        with pytest.raises(NotFound):
            await signing_in.with_link(gone, **values)
    new = await signing_in.with_link(token, **values)
    assert await viewer_of(database, old) is None
    assert (await viewer_of(database, new)).name == "Ana"
    with pytest.raises(NotFound):
        await signing_in.with_link(token, **values)
    with pytest.raises(Invalid):
        await signing_in.with_password(person.email, PASSWORD, **HERE)


async def test_a_link_is_too_old_in_time(database, signing_in, make_person):
    person = await make_person()
    async with database.transaction() as session:
        token = await links.make(session, person, valid=links.LOST_PASSWORD)
    await age(database, SignInLink, expires_at=links.LOST_PASSWORD)
    with pytest.raises(NotFound):
        await signing_in.with_link(token, email="", name="", password=NEW, **HERE)
    async with database.transaction() as session:
        await links.delete_expired(session)
        assert list(await session.scalars(of_installation().select(SignInLink))) == []


async def test_a_disabled_person_has_no_way_in(database, signing_in, make_person):
    person = await make_person()
    async with database.transaction() as session:
        token = await links.make(session, person, valid=links.INVITATION)
        await service.set_disabled(session, person, to=True)
    async with database.transaction() as session:
        with pytest.raises(Conflict):
            await links.make(session, person, valid=links.INVITATION)
    with pytest.raises(NotFound):
        await signing_in.with_link(token, email="", name="", password=NEW, **HERE)
    async with database.transaction() as session:
        await service.set_disabled(session, await service.get(session, person.id), to=False)
    assert await signing_in.with_password(person.email, PASSWORD, **HERE)


async def test_the_own_password_needs_the_current_one(database, signing_in, make_person):
    person = await make_person()
    old = await signing_in.with_password(person.email, PASSWORD, **HERE)
    for current, new, param in (("wrong", NEW, "current"), (PASSWORD, "short", "password")):
        with pytest.raises(Invalid) as caught:
            await signing_in.change_password(person.id, current=current, new=new, **HERE)
        assert caught.value.param == param
    new = await signing_in.change_password(person.id, current=PASSWORD, new=NEW, **HERE)
    assert await viewer_of(database, old) is None
    assert await viewer_of(database, new) is not None


async def test_a_stolen_session_cannot_guess_the_password(signing_in, make_person):
    person = await make_person()
    for _ in range(tries.PER_EMAIL):
        with pytest.raises(Invalid):
            await signing_in.change_password(person.id, current="wrong", new=NEW, **HERE)
    with pytest.raises(TooMany):
        await signing_in.change_password(person.id, current=PASSWORD, new=NEW, **HERE)


async def test_an_operator_is_left(database, make_person):
    boss = await make_person("boss@example.com", is_operator=True)
    await make_person("invited@example.com", is_operator=True, password_hash=None)
    await make_person("gone@example.com", is_operator=True, disabled_at=now())
    for change in (service.set_operator, service.set_disabled):
        async with database.transaction() as session:
            row = await service.get(session, boss.id)
            with pytest.raises(Conflict, match="only operator"):
                await change(session, row, to=change is service.set_disabled)
    await make_person("second@example.com", is_operator=True)
    async with database.transaction() as session:
        await service.set_operator(session, await service.get(session, boss.id), to=False)


async def test_people_are_invited_and_listed(database, make_tenant):
    acme, zoo = await make_tenant("acme", name="Acme Ltd"), await make_tenant("zoo")
    async with database.transaction() as session:
        with pytest.raises(Invalid, match="tenant"):
            await service.invite(session, "ana@example.com")
        for email in ("ana", "a b@example.com", "ana@example.com\x00", "<a@b>", "a" * 251 + "@b.c"):
            with pytest.raises(Invalid, match="e-mail"):
                await service.invite(session, email, tenant=acme)
        ana = await service.invite(session, "Ana@example.com", tenant=acme, role="admin")
        again = await service.invite(session, "ANA@example.com", tenant=zoo, is_operator=True)
        assert again.id == ana.id
        with pytest.raises(Conflict):
            await service.add(session, "ana@EXAMPLE.com")
    async with database.reading() as session:
        [view] = await service.list_all(session)
    assert (view.email, view.state, view.is_operator) == ("ana@example.com", "invited", True)
    assert [(one.slug, one.tenant_name, one.role) for one in view.memberships] == [
        ("acme", "Acme Ltd", "admin"),
        ("zoo", "zoo", "viewer"),
    ]


async def test_a_tenant_that_goes_takes_its_roles_along(database, make_tenant, make_person):
    tenant, person = await make_tenant("acme"), await make_person()
    async with database.transaction() as session:
        await service.set_role(session, person, tenant, "admin")
        await tenants_service.delete(session, "acme")
    async with database.reading() as session:
        [view] = await service.list_all(session)
    assert view.memberships == []


async def test_the_cleaner_removes_what_has_expired(database, blobs, signing_in, make_person):
    person = await make_person()
    await signing_in.with_password(person.email, PASSWORD, **HERE)
    async with database.transaction() as session:
        await links.make(session, person, valid=links.LOST_PASSWORD)
        await tries.count(session, person.email, address="")
    kinds = (SignInSession, SignInLink, SignInTry)
    cleaner = Cleaner(database, blobs)

    async def counts():
        await cleaner.clean_up()
        async with database.reading() as session:
            scope = of_installation()
            return [len(list(await session.scalars(scope.select(kind)))) for kind in kinds]

    assert await counts() == [1, 1, 1]
    await age(database, SignInSession, seen_at=sessions.IDLE)
    await age(database, SignInLink, expires_at=links.LOST_PASSWORD)
    await age(database, SignInTry, created_at=tries.WINDOW)
    assert await counts() == [0, 0, 0]
