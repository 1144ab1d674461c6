"""Keeps tenants' prefix caches apart, with a salt for each that cannot be guessed from outside."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

SECRET_BYTES = 32


def installation_secret(home: Path) -> bytes:
    """This installation's secret, made on first use and kept in ``home/installation.key``.

    Processes that start at the same time end with the same one.

    Raises:
        OSError: it can be neither read nor made.
        ValueError: the file is damaged.
    """
    path = home / "installation.key"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    home.mkdir(parents=True, exist_ok=True)
    beside = home / f".installation.key.{secrets.token_hex(8)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(
            FileExistsError
        ):  # another process was faster; a rename would replace its secret
            os.link(beside, path)
    finally:
        beside.unlink()
    return _read(path)


def cache_salt(secret: bytes, tenant_id: str) -> str:
    """The salt of a tenant's prefix cache: always the same, and it does not show the secret."""
    return hmac.new(secret, f"cache:{tenant_id}".encode(), hashlib.sha256).hexdigest()


def _read(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{path} is damaged: remove it, and a new one is made at the next start")
    return secret
