"""Random secrets of cookies and links: shown once, kept only as their hash."""

import hashlib
import hmac
import secrets
import string
from base64 import urlsafe_b64encode

ALPHABET = string.ascii_letters + string.digits
LENGTH = 43  # 62 ** 43 > 2 ** 256
SESSION = "tt_session_"
LINK = "tt_link_"  # the log redacts what begins like this


def new_token(start: str) -> str:
    """A secret of 256 random bits after ``start``, of letters and digits."""
    return start + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def digest(token: str) -> str:
    """What is kept of a secret: 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def form_token(cookie: str) -> str:
    """What the forms of the browser with this cookie must send back; says nothing of the cookie."""
    mac = hmac.digest(cookie.encode(), b"tenantune form", "sha256")
    return urlsafe_b64encode(mac).decode().rstrip("=")
