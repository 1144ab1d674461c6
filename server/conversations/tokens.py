"""Signed tokens: nonces, sessions, and what a tenant's own server says of a visitor.

All are JSON web tokens signed with HMAC-SHA256 (RFC 7519, ``HS256``), which is pinned: a token that names
another algorithm, or none, is refused before its signature is looked at. A widget's nonces and
sessions are signed with its own secret, so that another tenant's do not fit.
"""

import math
import secrets
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from server.errors import Unauthenticated

ALGORITHM = "HS256"
NONCE_SECONDS = 60
SESSION_SECONDS = 900
CHAIN_SECONDS = 24 * 3600  # sessions are renewed for so long; then the panel is loaded anew
IDENTITY_SECONDS = 3600  # the longest that an identity token may be good for
IDENTIFIED_SECONDS = 12 * 3600  # sessions of identified visitors are renewed without a new one
CLOCK_SECONDS = 60  # by which the clocks of two servers may differ
MAX_TOKEN_LENGTH = 8192
MAX_SUBJECT_LENGTH = 255
MAX_NAME_LENGTH = 200


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may use a widget until ``exp`` (Unix seconds, as all times here).

    An anonymous visitor is the hash of their token (``tok``): nothing is stored of one who never
    writes. An identified one is the row ``vis``, since ``idt``. ``beg`` is when the first session of the
    chain was made with a nonce.
    """

    use: Literal["session"] = msgspec.field(default="session")
    pub: str
    iat: float
    exp: float
    beg: float
    tok: str | None = None
    vis: str | None = None
    idt: float | None = None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a tenant's server says that a visitor is."""

    subject: str
    name: str | None
    email: str | None


class Nonce(NamedTuple):
    """What a nonce says: its id, and whether its document is the console's preview of a widget."""

    id: str
    is_preview: bool


def make_nonce(key: bytes, public_key: str, *, preview: bool = False) -> str:
    """A nonce, for the panel's document: within a minute, and once, it makes a session."""
    claims = {
        "use": "nonce",
        "pub": public_key,
        "jti": secrets.token_hex(16),
        "exp": time.time() + NONCE_SECONDS,
    }
    return _sign(key, {**claims, "preview": True} if preview else claims)


def read_nonce(key: bytes, public_key: str, token: str) -> Nonce:
    """A nonce, whose id the caller must take once only.

    Raises:
        Unauthenticated: it is not this widget's, or too old.
    """
    claims = _claims(token, [key])
    if (
        claims is None
        or claims.get("use") != "nonce"
        or claims.get("pub") != public_key
        or (_number(claims.get("exp")) or 0) <= time.time()
    ):
        raise Unauthenticated(
            "The nonce is too old or not this widget's: load the panel anew.", code="nonce_refused"
        )
    return Nonce(str(claims["jti"]), claims.get("preview") is True)


def make_session(key: bytes, session: Session) -> str:
    """A session, signed. It has ``SESSION_SECONDS``."""
    claims = msgspec.to_builtins(session)
    return _sign(key, {**claims, "use": "session"})


def read_session(key: bytes, public_key: str, token: str, *, expired: bool = False) -> Session:
    """A session of this widget; with ``expired`` also one that has ended.

    Raises:
        Unauthenticated: it is not this widget's, or has ended.
    """
    claims = _claims(token, [key])
    if claims is not None and claims.get("use") == "session" and claims.get("pub") == public_key:
        session = msgspec.convert(claims, Session)
        if expired or session.exp > time.time():
            return session
    raise session_expired()


def session_expired() -> Unauthenticated:
    """The refusal of a session that is not good any more, whatever the reason."""
    return Unauthenticated("The session has ended: start a new one.", code="session_expired")


def read_identity(token: str, keys: Iterable[bytes], *, audience: str) -> Identity:
    """Whom a token names, signed by one of ``keys`` for ``audience`` (the tenant's slug).

    Raises:
        Unauthenticated: it is not to be believed; says why, for who writes the site.
    """
    keys = list(keys)
    if not keys:
        raise _refused("this widget has no secret yet: `tenantune widget secret rotate` makes one")
    claims = _claims(token, keys)
    if claims is None:
        raise _refused(f"its signature is not {ALGORITHM} with this widget's secret")
    now = time.time()
    subject, aimed = claims.get("sub"), claims.get("aud")
    ends, starts = _number(claims.get("exp")), _number(claims.get("nbf", 0))
    if ends is None:
        raise _refused("it has no 'exp'")
    if ends <= now:
        raise _refused("it has expired")
    if ends > now + IDENTITY_SECONDS + CLOCK_SECONDS:
        raise _refused("its 'exp' is more than an hour ahead")
    if starts is None or starts > now + CLOCK_SECONDS:
        raise _refused("its 'nbf' is ahead")
    if aimed != audience and not (isinstance(aimed, list) and audience in aimed):
        raise _refused(f"its 'aud' is not '{audience}'")
    if not isinstance(subject, str) or not 0 < len(subject.strip()) <= MAX_SUBJECT_LENGTH:
        raise _refused(f"its 'sub' is not a text of 1 to {MAX_SUBJECT_LENGTH} characters")
    return Identity(
        subject=subject, name=_text(claims.get("name")), email=_text(claims.get("email"))
    )


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"The identity token is refused: {why}.", code="identity_refused")


def _sign(key: bytes, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": ALGORITHM}, claims, OctKey.import_key(key), algorithms=[ALGORITHM])


def _claims(token: str, keys: Iterable[bytes]) -> dict[str, Any] | None:
    """What a token says, where one of the keys signed it."""
    if len(token) > MAX_TOKEN_LENGTH:
        return None
    for key in keys:
        try:
            return jwt.decode(token, OctKey.import_key(key), algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, RecursionError):  # what is no text, no JSON, or too deep
            continue
    return None


def _number(value: object) -> float | None:
    """A number that compares with others; JSON's readers let NaN pass."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _text(value: object) -> str | None:
    return value.strip()[:MAX_NAME_LENGTH] or None if isinstance(value, str) else None
