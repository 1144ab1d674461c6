"""An OpenID Connect issuer on this machine, which can be told to misbehave."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import BasicAuth, web
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT_ID = "tenantune"
CLIENT_SECRET = "secret of the client"


class FakeIssuer:
    """Gives out codes for whoever ``claims`` says, and tokens for codes.

    ``claims`` go over those of the ID token, where None removes one; ``key`` and ``algorithm`` sign it.
    """

    def __init__(self) -> None:
        self.url = ""
        self.claims: dict[str, Any] = {
            "sub": "ana-1",
            "email": "Ana@example.com",
            "email_verified": True,
            "name": "Ana",
        }
        self.keys = [RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})]
        self.key: Any = self.keys[0]
        self.algorithm = "RS256"
        self.codes: dict[str, dict[str, str]] = {}
        self.named = ""  # what the discovery document calls itself, where not by its address
        self.fetched_keys = 0

    def visit(self, url: str) -> str:
        """Sign in at the address that a browser was sent to; returns where it is sent back to."""
        parts = urlsplit(url)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert url.startswith(f"{self.url}/authorize?")
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        query = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(query)}"

    async def discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.named or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
        )

    async def jwks(self, _request: web.Request) -> web.Response:
        self.fetched_keys += 1
        keys = KeySet([*self.keys]).as_dict(private=False)
        others = [{"kty": "OKP", "crv": "X", "x": "A"}, {"kty": "RSA", "use": "enc"}]
        return web.json_response({"keys": [*keys["keys"], *others]})

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form["code"]), None)
        verifier = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = _base64(verifier).decode()
        client = BasicAuth.decode(request.headers["authorization"])
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
            or (client.login, client.password) != (CLIENT_ID, CLIENT_SECRET)
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(
            {"access_token": "a", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}
        )

    def id_token(self, nonce: str) -> str:
        at = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": at, "exp": at + 300, "nonce": nonce}
        claims |= self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "kid": getattr(self.key, "kid", None)}
        if self.algorithm in ("none", "HS256"):
            signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
            public = self.keys[0].as_pem(private=False)
            mac = b"" if self.algorithm == "none" else hmac.digest(public, signed, "sha256")
            return (signed + b"." + _base64(mac)).decode()
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])


def _base64(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


@asynccontextmanager
async def running() -> AsyncIterator[FakeIssuer]:
    """Start one on a free port."""
    issuer = FakeIssuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer.discovery)
    app.router.add_get("/keys", issuer.jwks)
    app.router.add_post("/token", issuer.token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()
