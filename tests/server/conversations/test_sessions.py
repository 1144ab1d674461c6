"""Who may use a widget, and as whom."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import select, update

from server.conversations import sessions, tokens, visitors, widgets
from server.conversations.schemas import RenewRequest, Said, SessionAnswer
from server.db.models import LiveConversation, Visitor, Widget, now
from server.errors import NotFound, Unauthenticated
from server.schemas import WidgetBudgets
from tests.server.conversations.conftest import Shop


def signed(secret: str, *, alg: str = "HS256", **claims: Any) -> str:
    """An identity token as a shop's server makes it, with what is wrong given."""
    full = {"sub": "u1", "aud": "acme", "exp": int(time.time()) + 600} | claims
    full = {name: value for name, value in full.items() if value is not None}
    return jwt.encode(
        {"alg": alg}, full, OctKey.import_key(secret), algorithms=["HS256", "HS384", "HS512"]
    )


def unsigned(header: dict[str, Any], **claims: Any) -> str:
    full = {"sub": "u1", "aud": "acme", "exp": int(time.time()) + 600} | claims
    parts = (json.dumps(part).encode() for part in (header, full))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


async def renewed(shop: Shop, answer: SessionAnswer, **fields: Any) -> SessionAnswer:
    async with shop.database.reading() as session:
        site, before = await sessions.by_token(
            session, await shop.key(), answer.session, vault=shop.vault
        )
    async with shop.database.transaction() as session:
        request = RenewRequest(**fields)
        return await sessions.renew(
            session, site, before, request, vault=shop.vault, client="203.0.113.7"
        )


async def refused(shop: Shop, **fields: Any) -> str:
    """The code of a session that is refused."""
    with pytest.raises(Unauthenticated) as caught:
        await shop.enter(**fields)
    return str(caught.value.code)


async def rows(shop: Shop) -> list[Visitor]:
    async with shop.database.reading() as session:
        return list(await session.scalars(select(Visitor).order_by(Visitor.id)))


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass; from then on the clock stands still."""

    def move(seconds: float) -> None:
        then = time.time() + seconds
        monkeypatch.setattr(time, "time", lambda: then)

    return move


# --- nonces and sessions ---


async def test_who_only_opens_the_panel_leaves_no_row(shop: Shop) -> None:
    answer = await shop.enter()
    assert answer.visitor is not None
    assert (answer.verified, answer.started_anew, answer.conversation) == (False, False, None)
    assert await rows(shop) == []
    assert await shop.seen(answer) == []


async def test_a_nonce_makes_one_session(shop: Shop) -> None:
    nonce = await shop.nonce()
    await shop.enter(nonce=nonce)
    assert await refused(shop, nonce=nonce) == "nonce_refused"


async def test_a_nonce_is_good_for_a_minute(shop: Shop, at: Callable[[float], None]) -> None:
    nonce = await shop.nonce()
    at(59)
    await shop.enter(nonce=nonce)
    late = await shop.nonce()
    at(200)
    assert await refused(shop, nonce=late) == "nonce_refused"


async def test_another_widgets_nonce_and_session_are_refused(shop: Shop, open_shop: Any) -> None:
    other: Shop = await open_shop("other")
    assert await refused(shop, nonce=await other.nonce()) == "nonce_refused"
    assert await refused(shop, nonce=(await shop.enter()).session) == "nonce_refused"
    foreign = await other.enter()
    with pytest.raises(Unauthenticated, match="ended"):
        await shop.caller(foreign)
    nonce = SessionAnswer(
        session=await shop.nonce(),
        expires_in=1,
        visitor=None,
        verified=False,
        name=None,
        started_anew=False,
        conversation=None,
    )
    with pytest.raises(Unauthenticated, match="ended"):
        await shop.caller(nonce)


async def test_a_session_of_another_key_is_refused_though_its_secret_is_the_same(
    shop: Shop, open_shop: Any
) -> None:
    """The key in the claims counts too, not the signature alone."""
    other: Shop = await open_shop("other")
    site = await shop.site()
    key = widgets.session_key(site.widget, shop.vault)
    with pytest.raises(Unauthenticated):
        tokens.read_nonce(key, await other.key(), await shop.nonce())


async def test_a_session_ends_after_fifteen_minutes_and_is_renewed_with_its_visitors_token(
    shop: Shop, at: Callable[[float], None]
) -> None:
    answer = await shop.enter()
    await shop.talk(answer, "Where is it?", "On its way.")
    at(899)
    await shop.caller(answer)
    at(902)
    with pytest.raises(Unauthenticated, match="ended"):
        await shop.caller(answer)
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer)
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer, visitor="x" * 43)
    again = await renewed(shop, answer, visitor=answer.visitor)
    assert again.visitor == answer.visitor
    assert await shop.seen(again) == ["Where is it?", "On its way."]


async def test_renewing_ends_a_day_after_the_nonce(shop: Shop, at: Callable[[float], None]) -> None:
    answer = await shop.enter()
    at(24 * 3600 - 60)
    answer = await renewed(shop, answer, visitor=answer.visitor)
    at(120)
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer, visitor=answer.visitor)


async def test_a_widget_that_is_off_answers_like_none(shop: Shop) -> None:
    answer = await shop.enter()
    await shop.change(enabled=False)
    for attempt in (shop.enter(), shop.caller(answer), renewed(shop, answer)):
        with pytest.raises(NotFound):
            await attempt


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.é.é", "a" * 9000, "[" * 3000, ".."])
async def test_what_is_no_token_is_refused(shop: Shop, text: str) -> None:
    assert await refused(shop, nonce=text or ".") == "nonce_refused"
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode()
    assert await refused(shop, nonce=f"{deep}.{deep}.x") == "nonce_refused"


# --- anonymous visitors ---


async def test_a_visitor_comes_back_with_their_token(shop: Shop) -> None:
    first = await shop.enter()
    await shop.talk(first, "Hello", "Hi")
    second = await shop.enter(visitor=first.visitor)
    assert (second.visitor, second.started_anew) == (first.visitor, False)
    assert second.conversation is not None
    assert [each.text for each in second.conversation.messages] == ["Hello", "Hi"]
    [row] = await rows(shop)
    assert row.token_sha256 == visitors.digest(str(first.visitor))
    assert str(first.visitor) not in repr(row.__dict__)


async def test_a_token_that_nobody_has_starts_anew_with_another(shop: Shop) -> None:
    planted = "p" * 43
    answer = await shop.enter(visitor=planted)
    assert answer.started_anew
    assert answer.visitor not in (None, planted)
    assert (await shop.enter(visitor="' OR 1=1")).started_anew


async def test_another_tenants_visitor_is_nobody_here(shop: Shop, open_shop: Any) -> None:
    other: Shop = await open_shop("other")
    there = await other.enter()
    await other.talk(there, "secret", "well kept")
    here = await shop.enter(visitor=there.visitor)
    assert (here.started_anew, here.conversation) == (True, None)


async def test_signing_out_forgets_token_and_sessions(shop: Shop) -> None:
    answer = await shop.enter()
    await shop.talk(answer, "Hello", "Hi")
    caller = await shop.caller(answer)
    async with shop.database.transaction() as session:
        await visitors.sign_out(session, caller.site.tenant.id, caller.session)
    with pytest.raises(Unauthenticated):
        await shop.seen(answer)
    with pytest.raises(Unauthenticated):
        await shop.ask(answer, "again")
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer, visitor=answer.visitor)
    anew = await shop.enter(visitor=answer.visitor)
    assert (anew.started_anew, anew.conversation) == (True, None)


async def test_a_name_that_came_unsigned_is_only_a_note(shop: Shop) -> None:
    await shop.secret()
    mine = await shop.enter(said=Said(name="Kim", email="kim@shop.example"))
    await shop.talk(mine, "Hello", "Hi")
    other = await shop.enter(said=Said(name="Kim", email="kim@shop.example"))
    assert (other.conversation, other.verified, other.name) == (None, False, None)
    first, second = await rows(shop)
    assert (first.said_name, first.said_email, first.name, first.subject) == (
        "Kim",
        "kim@shop.example",
        None,
        None,
    )
    assert first.id != second.id


async def test_a_note_never_overwrites_what_was_signed(shop: Shop) -> None:
    secret = await shop.secret()
    answer = await shop.enter(
        identity=signed(secret, name="Kim", email="kim@shop.example"),
        said=Said(name="Mallory", email="m@evil.example"),
    )
    await renewed(shop, answer, said=Said(name="Mallory"))
    [row] = await rows(shop)
    assert (row.name, row.email, row.said_name) == ("Kim", "kim@shop.example", None)


# --- identified visitors ---


async def test_who_is_identified_finds_their_conversation_on_any_device(shop: Shop) -> None:
    secret = await shop.secret()
    first = await shop.enter(identity=signed(secret, name="Kim"))
    assert (first.verified, first.visitor, first.name) == (True, None, "Kim")
    await shop.talk(first, "Hello", "Hi")
    second = await shop.enter(identity=signed(secret))
    assert await shop.seen(second) == ["Hello", "Hi"]
    assert len(await rows(shop)) == 1


async def test_identifying_takes_this_conversation_along_and_ends_the_anonymous_token(
    shop: Shop,
) -> None:
    secret = await shop.secret()
    known = await shop.enter(identity=signed(secret))
    await shop.talk(known, "Old", "Older")
    anonymous = await shop.enter()
    await shop.talk(anonymous, "Before signing in", "Yes?")
    for answer in (
        await shop.enter(visitor=anonymous.visitor, identity=signed(secret)),
        await shop.enter(identity=signed(secret)),
    ):
        assert await shop.seen(answer) == ["Before signing in", "Yes?"]
    assert (await shop.enter(visitor=anonymous.visitor)).started_anew
    [row] = await rows(shop)
    async with shop.database.reading() as session:
        owners = set(await session.scalars(select(LiveConversation.visitor_id)))
    assert owners == {row.id}


async def test_the_first_time_the_visitor_becomes_the_identified_one(shop: Shop) -> None:
    secret = await shop.secret()
    anonymous = await shop.enter()
    await shop.talk(anonymous, "Before", "Yes?")
    answer = await renewed(shop, anonymous, visitor=anonymous.visitor, identity=signed(secret))
    assert (answer.verified, answer.visitor) == (True, None)
    assert await shop.seen(answer) == ["Before", "Yes?"]
    assert await shop.seen(anonymous) == [], "the anonymous session opens nothing any more"
    [row] = await rows(shop)
    assert (row.subject, row.token_sha256) == ("u1", None)


async def test_two_subjects_never_share(shop: Shop) -> None:
    secret = await shop.secret()
    one = await shop.enter(identity=signed(secret, sub="u1", email="same@shop.example"))
    await shop.talk(one, "mine", "yours")
    two = await shop.enter(identity=signed(secret, sub="u2", email="same@shop.example"))
    assert await shop.seen(two) == []


async def test_the_same_subject_at_another_tenant_is_somebody_else(
    shop: Shop, open_shop: Any
) -> None:
    other: Shop = await open_shop("other")
    secret, foreign = await shop.secret(), await other.secret()
    await shop.talk(await shop.enter(identity=signed(secret)), "mine", "yours")
    there = await other.enter(identity=signed(foreign, aud="other"))
    assert await other.seen(there) == []
    assert await refused(shop, identity=signed(foreign)) == "identity_refused"


async def test_signing_out_ends_an_identified_visitors_sessions_until_they_identify_again(
    shop: Shop,
) -> None:
    secret = await shop.secret()
    answer = await shop.enter(identity=signed(secret))
    await shop.talk(answer, "Hello", "Hi")
    caller = await shop.caller(answer)
    async with shop.database.transaction() as session:
        await visitors.sign_out(session, caller.site.tenant.id, caller.session)
    with pytest.raises(Unauthenticated):
        await shop.seen(answer)
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer)
    again = await shop.enter(identity=signed(secret))
    assert await shop.seen(again) == ["Hello", "Hi"]


async def test_an_identified_session_goes_on_for_half_a_day_if_it_never_ends(
    shop: Shop, at: Callable[[float], None]
) -> None:
    secret = await shop.secret()
    await shop.change(budgets=WidgetBudgets(address_sessions_per_minute=100))
    answer = await shop.enter(identity=signed(secret))
    for _ in range(12 * 60 // 14):
        at(14 * 60)
        answer = await renewed(shop, answer)
    at(14 * 60)
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer)


async def test_an_identified_session_that_ended_needs_identity_again(
    shop: Shop, at: Callable[[float], None]
) -> None:
    secret = await shop.secret()
    answer = await shop.enter(identity=signed(secret))
    at(901)
    with pytest.raises(Unauthenticated):
        await renewed(shop, answer)
    again = await renewed(shop, answer, identity=signed(secret, exp=int(time.time()) + 1500))
    assert again.verified


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"alg": "HS512"}, "signature"),
        ({"aud": "other"}, "'aud'"),
        ({"aud": ["other"]}, "'aud'"),
        ({"aud": None}, "'aud'"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "no 'exp'"),
        ({"exp": "tomorrow"}, "no 'exp'"),
        ({"exp": True}, "no 'exp'"),
        ({"exp": float("nan")}, "no 'exp'"),
        ({"exp": float("inf")}, "no 'exp'"),
        ({"exp": int(time.time()) + 30 * 3600}, "an hour ahead"),
        ({"nbf": int(time.time()) + 30 * 3600}, "'nbf'"),
        ({"sub": None}, "'sub'"),
        ({"sub": ""}, "'sub'"),
        ({"sub": " "}, "'sub'"),
        ({"sub": 7}, "'sub'"),
        ({"sub": "x" * 256}, "'sub'"),
    ],
)
async def test_an_identity_that_is_not_to_be_believed_is_refused_and_says_why(
    shop: Shop, claims: dict[str, Any], why: str
) -> None:
    secret = await shop.secret()
    nonce = await shop.nonce()
    with pytest.raises(Unauthenticated, match=why) as caught:
        await shop.enter(nonce=nonce, identity=signed(secret, **claims))
    assert caught.value.code == "identity_refused"
    assert await rows(shop) == []
    assert not (await shop.enter(nonce=nonce)).verified, "nothing of it remains"


@pytest.mark.parametrize(
    "header",
    [{"alg": "none"}, {"alg": "None"}, {"alg": ""}, {"typ": "JWT"}, {"alg": "RS256"}, {"alg": 1}],
)
async def test_an_identity_without_a_signature_is_refused(
    shop: Shop, header: dict[str, Any]
) -> None:
    secret = await shop.secret()
    assert await refused(shop, identity=unsigned(header)) == "identity_refused"
    whole = signed(secret)
    assert await refused(shop, identity=whole.rpartition(".")[0] + ".") == "identity_refused"
    assert await refused(shop, identity=signed("tt_jwt_" + "x" * 43)) == "identity_refused"


async def test_a_refused_identity_is_not_downgraded_by_a_good_visitors_token(shop: Shop) -> None:
    await shop.secret()
    mine = await shop.enter()
    await shop.talk(mine, "Hello", "Hi")
    assert await refused(shop, visitor=mine.visitor, identity="x.y.z") == "identity_refused"


async def test_a_widget_without_a_secret_believes_nobody(shop: Shop) -> None:
    with pytest.raises(Unauthenticated, match="secret rotate"):
        await shop.enter(identity=signed("tt_jwt_" + "x" * 43))


async def test_during_a_rotation_both_secrets_sign_and_after_it_only_the_new(shop: Shop) -> None:
    old = await shop.secret()
    new = await shop.secret(overlap_seconds=600)
    assert (await shop.enter(identity=signed(old))).verified
    assert (await shop.enter(identity=signed(new))).verified
    async with shop.database.transaction() as session:
        over = {"previous_identity_secret_until": now() - timedelta(seconds=1)}
        await session.execute(update(Widget).values(over))
    assert await refused(shop, identity=signed(old)) == "identity_refused"
    assert (await shop.enter(identity=signed(new))).verified


async def test_two_sessions_that_identify_at_once_are_one_visitor(shop: Shop) -> None:
    secret = await shop.secret()
    answers = await asyncio.gather(*(shop.enter(identity=signed(secret)) for _ in range(6)))
    assert all(answer.verified for answer in answers)
    assert len(await rows(shop)) == 1
