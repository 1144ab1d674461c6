"""Secrets of webhooks and widgets at rest: encrypted with a key that is not in the database.

The key is the file ``secrets.key`` in the data folder, made at the first start. Where several machines
share a database it is ``TENANTUNE_SECRETS_KEY``. There may be several keys, one on each line (or
separated by blanks): the first encrypts, all decrypt. To replace a key, put a new one first. No key is
made where there are secrets that it could not decrypt.

The format is Fernet (AES-128-CBC and HMAC-SHA256), by ``cryptography``.
"""

import asyncio
from pathlib import Path

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import WebhookEndpoint, Widget
from server.db.scope import across_tenants
from server.db.session import Database
from server.errors import ServerError
from server.settings import Settings, SettingsError
from training.filesystem import read_or_create

log = structlog.get_logger(__name__)

PLAIN = "whsec_"  # a secret's prefix; older versions did not encrypt them
KEY_NAME = "secrets.key"


class SecretUnreadable(ServerError):
    """A secret was encrypted with a key that this server does not have."""

    default_code = "secret_unreadable"


class Vault:
    """Encrypts and decrypts secrets, once it is ``open``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys: MultiFernet | None = None

    @property
    def path(self) -> Path:
        """The key's file, which is used unless the settings have the key."""
        return self._settings.home / KEY_NAME

    async def open(self, database: Database) -> None:
        """Read the key, or make one, and encrypt secrets that an older version stored in plain text.

        Call it after the database was migrated. Secrets that the key cannot decrypt are logged, and
        their webhooks are not sent.

        Raises:
            SettingsError: the key is not valid; or there is none, and there are secrets that were
                encrypted with one.
        """
        async with database.reading() as session:
            sealed = [text for text in await _stored(session) if not _is_plain(text)]
        keys = self._settings.secrets_key
        if not keys and not self.path.exists() and sealed:
            raise SettingsError(
                f"{self.path} is missing, and {len(sealed)} secrets were encrypted with it. "
                "Put it back, or set TENANTUNE_SECRETS_KEY to what it held (on another machine: to "
                "what it holds there). If it is lost: remove the webhooks (`tenantune webhooks "
                "delete`) and the widgets' secrets (`tenantune widget secret forget`), start again, "
                "and make new ones."
            )
        text = keys or await asyncio.to_thread(_read_or_create, self.path)
        self._keys = _parse(text, "TENANTUNE_SECRETS_KEY" if keys else str(self.path))
        if await self._seal_all(database):
            await database.scrub()

    def seal(self, secret: str) -> str:
        """Encrypt a secret for its row."""
        return self._opened.encrypt(secret.encode()).decode()

    def unseal(self, stored: str) -> str:
        """Decrypt what ``seal`` returned.

        Raises:
            SecretUnreadable: it was encrypted with another key.
        """
        if _is_plain(stored):  # by an older server that runs beside this one
            return stored
        try:
            return self._opened.decrypt(stored.encode()).decode()
        except InvalidToken as exc:
            raise SecretUnreadable(
                "The secret was encrypted with a key that this server has not got: give it "
                "TENANTUNE_SECRETS_KEY, or make a new secret."
            ) from exc

    async def expect_shared(self, session: AsyncSession) -> None:
        """Check that this key decrypts the stored secrets; call it before one is added.

        Raises:
            SecretUnreadable: it decrypts none of them: the other machines have another key.
        """
        stored = await _stored(session)
        if stored and not any(self._reads(secret) for secret in stored):
            raise SecretUnreadable(
                f"This machine's key ({self.path}) is not the one that encrypted the secrets "
                "in the database: set TENANTUNE_SECRETS_KEY to the same key on all machines."
            )

    @property
    def _opened(self) -> MultiFernet:
        if self._keys is None:
            raise RuntimeError("the vault is not open")
        return self._keys

    def _reads(self, stored: str) -> bool:
        try:
            self.unseal(stored)
        except SecretUnreadable:
            return False
        return True

    async def _seal_all(self, database: Database) -> bool:
        """Encrypt secrets in plain text; returns whether there were any."""
        async with database.transaction() as session:
            rows = await _endpoints(session, lock=True)
            plain = [row for row in rows if _is_plain(row.secret) or _is_plain(row.previous_secret)]
            for row in plain:
                row.secret_hint = row.secret_hint or row.secret[-4:]
                row.secret = self._sealed(row.secret)
                if row.previous_secret is not None:
                    row.previous_secret = self._sealed(row.previous_secret)
        if plain:
            log.info("webhook secrets encrypted", webhooks=len(plain))
        unread = [row.id for row in rows if not self._reads(row.secret)]
        if unread:
            log.error("webhook secrets cannot be decrypted; not sent", webhooks=unread)
        return bool(plain)

    def _sealed(self, stored: str) -> str:
        return self.seal(stored) if _is_plain(stored) else stored


def _is_plain(stored: str | None) -> bool:
    return stored is not None and stored.startswith(PLAIN)


async def _endpoints(session: AsyncSession, *, lock: bool = False) -> list[WebhookEndpoint]:
    all_tenants = across_tenants("one key encrypts every tenant's secrets")
    query = all_tenants.select(WebhookEndpoint).order_by(WebhookEndpoint.id)
    return list(await session.scalars(query.with_for_update() if lock else query))


async def _stored(session: AsyncSession) -> list[str]:
    """Every current secret as it is stored."""
    widgets = across_tenants("one key encrypts every tenant's secrets").select(
        Widget.session_secret, Widget.identity_secret
    )
    found = [row.secret for row in await _endpoints(session)]
    for row in await session.execute(widgets):
        found += [secret for secret in row if secret is not None]
    return found


def _parse(text: str, where: str) -> MultiFernet:
    try:
        keys = [Fernet(key) for key in text.split()]
        return MultiFernet(keys)
    except ValueError as exc:
        raise SettingsError(
            f"{where}: not a key: 32 bytes in URL-safe base64 (44 characters), one or several"
        ) from exc


def _read_or_create(path: Path) -> str:
    return read_or_create(path, lambda: Fernet.generate_key() + b"\n").decode("ascii")
