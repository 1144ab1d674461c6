"""Keeps tenants' prefix caches apart, with a salt for each that cannot be guessed from outside."""

import hashlib
import hmac
import secrets
from pathlib import Path

from training.filesystem import read_or_create

SECRET_BYTES = 32


def installation_secret(home: Path) -> bytes:
    """This installation's secret, made on first use and kept in ``home/installation.key``."""
    path = home / "installation.key"
    secret = read_or_create(path, lambda: secrets.token_bytes(SECRET_BYTES))
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{path} is damaged: remove it, and a new one is made at the next start")
    return secret


def cache_salt(secret: bytes, tenant_id: str) -> str:
    """The salt of a tenant's prefix cache: always the same, and it does not show the secret."""
    return hmac.new(secret, f"cache:{tenant_id}".encode(), hashlib.sha256).hexdigest()
