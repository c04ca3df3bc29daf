"""An issuer of tokens: its keys, their set, and a server that shows it."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

ISSUER: Final = "https://login.example.org/"
AUDIENCE: Final = "shop"


class SigningKey:
    """One key pair, with its id and its algorithm."""

    def __init__(self, key_id: str | None, algorithm: str = "ES256") -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self._private: Any
        match algorithm:
            case "ES256":
                self._private = ec.generate_private_key(ec.SECP256R1())
            case "EdDSA":
                self._private = ed25519.Ed25519PrivateKey.generate()
            case _:
                self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def jwk(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self._private.public_key()))
        # Which operations a key is for is an issuer's to leave out.
        made.pop("key_ops", None)
        named = {} if self.key_id is None else {"kid": self.key_id}
        return made | named | {"alg": self.algorithm, "use": "sig"}

    @property
    def private_jwk(self) -> dict[str, Any]:
        """With the part that an issuer shows nobody."""
        made: dict[str, Any] = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self._private))
        return made | self.jwk

    @property
    def pem(self) -> bytes:
        public: bytes = self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return public

    def signature(self, text: str) -> str:
        """That of the first two parts of a token."""
        made = get_default_algorithms()[self.algorithm].sign(text.encode(), self._private)
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    def token(self, *, headers: dict[str, Any] | None = None, without: tuple[str, ...] = (), **claims: Any) -> str:
        """Signed by this key; good for a minute, unless the claims say otherwise."""
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60} | claims
        said = {name: value for name, value in said.items() if name not in without}
        named = {} if self.key_id is None else {"kid": self.key_id}
        return jwt.encode(said, self._private, algorithm=self.algorithm, headers=named | (headers or {}))


def key_set(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.jwk for key in keys]}).encode()


class Issuer:
    """A server on loopback; what it answers can be changed."""

    def __init__(self, *keys: SigningKey) -> None:
        self.body = key_set(*keys)
        self.status = 200
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.url = ""

    async def _answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        await self.may_answer.wait()
        return web.Response(body=self.body, status=self.status, headers={"Location": f"{self.url}/elsewhere"})

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.body)


@asynccontextmanager
async def serving(issuer: Issuer) -> AsyncIterator[Issuer]:
    app = web.Application()
    app.router.add_get("/keys", issuer._answer)
    app.router.add_get("/keys/elsewhere", issuer._elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{site.port}/keys"
    try:
        yield issuer
    finally:
        issuer.may_answer.set()
        await runner.cleanup()
