"""Passwords: what is taken, and what is kept of it."""

import asyncio

import pytest
from argon2 import PasswordHasher

from server.accounts import passwords as module
from server.accounts.passwords import Passwords, check
from server.errors import Invalid, Unavailable


@pytest.mark.parametrize("text", ["", "elevenchars", "x" * 501])
def test_length_is_all_that_is_asked(text):
    with pytest.raises(Invalid) as caught:
        check(text)
    assert caught.value.param == "password"
    assert check("a" * 12) == "a" * 12


async def test_only_the_password_itself_is_right(passwords):
    known = await passwords.hash("twelve or more")
    assert known.startswith("$argon2id$")
    assert known != await passwords.hash("twelve or more")
    assert await passwords.verify("twelve or more", known)
    for wrong in ("twelve or mor", "Twelve or more", "", "x" * 3000):
        assert not await passwords.verify(wrong, known)
    assert not await passwords.verify("twelve or more", None)
    assert not await passwords.verify("twelve or more", "no hash")


async def test_a_composed_and_a_decomposed_letter_are_the_same(passwords):
    known = await passwords.hash("gr\u00fc\u00dfe aus bern")
    assert await passwords.verify("gru\u0308\u00dfe aus bern", known)


async def test_hashes_of_other_parameters_are_outdated(passwords):
    known = await passwords.hash("twelve or more")
    assert not passwords.is_outdated(known)
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1))
    assert stronger.is_outdated(known)
    assert await stronger.verify("twelve or more", known)


async def test_an_unknown_person_costs_a_hash(passwords, monkeypatch):
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "_hash", hashed.append)
    await passwords.verify("twelve or more", None)
    assert hashed == ["twelve or more"]


async def test_two_are_checked_at_once_and_a_crowd_is_told_to_wait(passwords, monkeypatch):
    running, most = 0, 0

    async def slowly(function, *args):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "hash"

    monkeypatch.setattr(asyncio, "to_thread", slowly)
    crowd = [passwords.hash("x") for _ in range(module.MAX_WAITING + 1)]
    done = await asyncio.gather(*crowd, return_exceptions=True)
    assert most == module.AT_ONCE
    assert [type(each) for each in done if each != "hash"] == [Unavailable]
