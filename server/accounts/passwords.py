"""Passwords: hashed with argon2id at its library's defaults (RFC 9106, low memory)."""

import asyncio
import unicodedata
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from server.errors import Invalid, Unavailable

MIN_LENGTH = 12  # characters; NIST SP 800-63B asks for length, and against rules of composition
MAX_LENGTH = 500
AT_ONCE = 2  # each takes 64 MiB and up to four threads for a third of a second
MAX_WAITING = 20

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def check(password: str) -> str:
    """The password as it is hashed, once it is long enough.

    Raises:
        Invalid: it is too short or too long.
    """
    plain = _normalized(password)
    if len(plain) < MIN_LENGTH:
        raise Invalid(
            f"This password has {len(plain)} characters. Use at least {MIN_LENGTH}: some words that "
            "belong together for you alone, or what a password manager makes.",
            param="password",
        )
    if len(plain) > MAX_LENGTH:
        raise Invalid(f"A password has at most {MAX_LENGTH} characters.", param="password")
    return plain


class Passwords:
    """Hashes and checks passwords in threads, a few at a time. Use on one event loop."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """What to keep of a password that passed ``check``.

        Raises:
            Unavailable: too many wait already.
        """
        return await self._run(self._hash, password)

    async def verify(self, password: str, known: str | None) -> bool:
        """Whether this is the password of the hash ``known``.

        Without one the answer is no, and takes as long.

        Raises:
            Unavailable: too many wait already.
        """
        if len(password) > MAX_LENGTH * 4:  # normalising may shorten it, but not by so much
            return False
        if known is None:
            await self._run(self._hash, password)
            return False
        return await self._run(self._verify, password, known)

    def is_outdated(self, known: str) -> bool:
        """Whether a hash was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(known)

    def _hash(self, password: str) -> str:
        return self._hasher.hash(_normalized(password))

    def _verify(self, password: str, known: str) -> bool:
        try:
            return self._hasher.verify(known, _normalized(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many people are signing in at once.", retry_after_seconds=5.0)
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(function, *args)
        finally:
            self._waiting -= 1


def _normalized(password: str) -> str:
    """The same characters however a keyboard composed them."""
    return unicodedata.normalize("NFKC", password)
