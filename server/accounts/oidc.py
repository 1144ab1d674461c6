"""Signing in through an organisation's OpenID Connect issuer (OpenID Connect Core 1.0, code flow).

The code is protected by PKCE (RFC 7636), the way back by ``state``, and the token by its signature
and by ``iss``, ``aud``, ``azp``, ``exp`` and ``nonce``. What a browser must bring back, ``Flow``, is kept in its
own cookie. Keys and addresses come from the issuer's discovery document and are kept for an hour.

The libraries are loaded when somebody signs in: they are a twelfth of what a server loads at its start.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from server.accounts.tokens import new_token
from server.errors import Forbidden, Unavailable
from server.settings import Settings

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]
        AsyncOAuth2Client,
    )
    from joserfc.jwk import KeySet

log = structlog.get_logger(__name__)

ALGORITHMS = ("RS256", "PS256", "ES256")  # never "none", and none of a shared secret
SCOPE = "openid email profile"
LEEWAY_SECONDS = 60  # how far the issuer's clock may be off
KEEP_SECONDS = 3600.0
AGAIN_SECONDS = 60.0  # how soon unknown keys may make us ask anew
TIMEOUT_SECONDS = 10.0


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A signing in that has begun: what its browser must bring back.

    ``next`` is the page to go on to, ``link`` the one-time link that the person came with.
    """

    state: str
    nonce: str
    verifier: str
    next: str = ""
    link: str = ""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the issuer vouches for.

    ``email`` is empty where the issuer does not say that it verified it. ``roles`` are what the
    claim of the settings lists; None where no claim is set.
    """

    issuer: str
    subject: str
    email: str
    name: str
    roles: tuple[str, ...] | None


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of a discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Issuer:
    """The issuer of the settings. Use on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redirect_uri = f"{settings.public_url.rstrip('/')}/console/sign-in/oidc/callback"
        self._lock = asyncio.Lock()
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._fetched_at = -KEEP_SECONDS

    async def begin(self, *, next: str = "", link: str = "") -> tuple[str, Flow]:  # noqa: A002 - Flow's
        """(where to send the browser, what it must bring back).

        Raises:
            Unavailable: the issuer does not answer.
        """
        metadata, _ = await self._known()
        flow = Flow(
            state=new_token(""), nonce=new_token(""), verifier=new_token(""), next=next, link=link
        )
        async with self._client(metadata) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=flow.state,
                nonce=flow.nonce,
                code_verifier=flow.verifier,
            )
        return str(url), flow

    async def finish(self, flow: Flow, answer: Mapping[str, str]) -> Identity:
        """Who came back; ``answer`` is the query of the address that the browser was sent to.

        Raises:
            Forbidden: it is not the answer to this flow, or the issuer refused, or its token is bad.
            Unavailable: the issuer does not answer.
        """
        import httpx  # noqa: PLC0415 - see above
        from authlib.common.errors import (  # type: ignore[import-untyped]  # noqa: PLC0415
            AuthlibBaseError,
        )

        if not hmac.compare_digest(answer.get("state", "").encode(), flow.state.encode()):
            raise _refused("the state is another browser's, or was used already")
        if "iss" in answer and answer["iss"] != self._settings.oidc_issuer:  # RFC 9207
            raise _refused("the answer is another issuer's")
        if "code" not in answer:
            raise _refused(f"the issuer says {answer.get('error', 'nothing')[:100]!r}")
        metadata, _ = await self._known()
        async with self._client(metadata) as client:
            try:
                token = await client.fetch_token(
                    metadata.token_endpoint, code=answer["code"], code_verifier=flow.verifier
                )
            except httpx.HTTPError as exc:
                raise _unreachable(exc) from exc
            except (AuthlibBaseError, ValueError) as exc:
                raise _refused(f"the code was not taken: {exc}") from exc
        return self._identity(await self._claims(token.get("id_token"), flow))

    def _client(self, metadata: _Metadata) -> "AsyncOAuth2Client":
        from authlib.integrations.httpx_client import (  # noqa: PLC0415
            AsyncOAuth2Client,
        )

        method = "none"
        if self._settings.oidc_client_secret:
            known = metadata.token_endpoint_auth_methods_supported
            method = "client_secret_basic"
            if method not in known and "client_secret_post" in known:
                method = "client_secret_post"
        return AsyncOAuth2Client(
            self._settings.oidc_client_id,
            self._settings.oidc_client_secret or None,
            scope=SCOPE,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            token_endpoint_auth_method=method,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    async def _claims(self, id_token: object, flow: Flow) -> dict[str, Any]:
        from joserfc import jwt  # noqa: PLC0415
        from joserfc.errors import InvalidKeyIdError, JoseError  # noqa: PLC0415

        if not isinstance(id_token, str):
            raise _refused("the answer has no ID token")
        _, keys = await self._known()
        try:
            try:
                token = jwt.decode(id_token, keys, algorithms=ALGORITHMS)
            except InvalidKeyIdError:  # the issuer has new keys
                _, keys = await self._known(older_than=AGAIN_SECONDS)
                token = jwt.decode(id_token, keys, algorithms=ALGORITHMS)
            client_id = self._settings.oidc_client_id
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": self._settings.oidc_issuer},
                sub={"essential": True},
                aud={"essential": True, "value": client_id},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": flow.nonce},
            ).validate(token.claims)
        except (JoseError, ValueError) as exc:
            raise _refused(f"the ID token is not good: {exc}") from exc
        claims: dict[str, Any] = token.claims
        if claims.get("azp", client_id) != client_id:
            raise _refused("the ID token was made for another client")
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        email = claims.get("email")
        is_verified = claims.get("email_verified") in (True, "true")
        name = claims.get("name")
        roles = None
        if self._settings.oidc_roles_claim:
            listed = claims.get(self._settings.oidc_roles_claim)
            roles = tuple(map(str, listed)) if isinstance(listed, list) else ()
        return Identity(
            issuer=self._settings.oidc_issuer,
            subject=str(claims["sub"]),
            email=email.strip().lower() if is_verified and isinstance(email, str) else "",
            name=name if isinstance(name, str) else "",
            roles=roles,
        )

    async def _known(self, *, older_than: float = KEEP_SECONDS) -> "tuple[_Metadata, KeySet]":
        """The issuer's addresses and keys, asked for anew where they are older."""
        async with self._lock:
            is_old = time.monotonic() - self._fetched_at >= older_than
            if self._metadata is None or self._keys is None or is_old:
                self._metadata, self._keys = await self._fetch()
                self._fetched_at = time.monotonic()
            return self._metadata, self._keys

    async def _fetch(self) -> "tuple[_Metadata, KeySet]":
        import httpx  # noqa: PLC0415
        from joserfc.errors import JoseError  # noqa: PLC0415
        from joserfc.jwk import KeySet  # noqa: PLC0415

        issuer = self._settings.oidc_issuer
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
                url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                found = (await client.get(url)).raise_for_status()
                metadata = msgspec.json.decode(found.content, type=_Metadata)
                keys = (await client.get(metadata.jwks_uri)).raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
            raise _unreachable(exc) from exc
        if metadata.issuer != issuer:
            raise _unreachable(
                f"it calls itself {metadata.issuer!r}; TENANTUNE_OIDC_ISSUER differs"
            )
        usable = [
            key
            for key in keys.get("keys", [])
            if key.get("kty") in ("RSA", "EC") and key.get("use", "sig") == "sig"
        ]
        try:
            return metadata, KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError) as exc:
            raise _unreachable(exc) from exc


def _refused(reason: str) -> Forbidden:
    log.warning("signing in through the issuer was refused", reason=reason)
    return Forbidden(
        "Signing in through your organisation did not work. Begin again; if it fails again, the "
        "server's log says why.",
        code="single_sign_on_refused",
    )


def _unreachable(reason: Exception | str) -> Unavailable:
    log.warning("the OpenID Connect issuer cannot be used", reason=str(reason) or repr(reason))
    return Unavailable(
        "Your organisation's sign-in does not answer. Try again in a moment, or use a password."
    )
