"""Gateways that ask who asks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from coordinator.access.authenticator import NotAuthentic
from coordinator.access.opening import check_access, open_authenticator
from coordinator.access.settings import AccessSettings
from coordinator.access.tokens import Tokens
from coordinator.http import authentication
from coordinator.http.authentication import is_open_handler, is_open_to_all, open_to_all
from coordinator.runtime.settings import load
from coordinator.service.errors import ConfigurationError
from coordinator.service.principal import Principal
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.unit.gateways.conftest import RunningGateway, Start

DEADLINE_S = 15.0
KEY = SigningKey("one")
STRANGER = SigningKey("one")
NO_DATABASE: Any = None
"""Tokens need none."""


@pytest.fixture
async def guarded(start: Start, tmp_path: Path) -> RunningGateway:
    (tmp_path / "keys.json").write_bytes(key_set(KEY))
    settings = AccessSettings(
        methods="tokens",
        token_issuer=ISSUER,
        token_audience=AUDIENCE,
        token_keys=str(tmp_path / "keys.json"),
    )
    return await start("payments", authenticator=open_authenticator(settings, "0.0.0.0", NO_DATABASE))


def bearing(token: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {token}"}


async def test_who_has_a_token_is_served(guarded: RunningGateway) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        response, _ = await guarded.call("GET", "/payments/9", headers=bearing(KEY.token(scope="payments"), scheme))
        assert response.status == 200
    body = {"user_id": 7, "amount": 100, "currency": "EUR"}
    response, _ = await guarded.call("POST", "/payments", json=body, headers=bearing(KEY.token()))
    assert response.status == 202 or response.ok
    assert len(guarded.writes.issued) == 1


async def test_each_command_of_a_request_is_issued_for_whoever_asks(guarded: RunningGateway) -> None:
    """As his credential says, and not as the request does; no request has what the one before it left."""
    body = {"user_id": 7, "amount": 100, "currency": "EUR"}
    for subject, scope in (("ada", "write read"), ("bob", "")):
        token = KEY.token(sub=subject, tenant="acme", scope=scope)
        several = [{"type": "payments.open", "args": body}] * 2
        await guarded.call("POST", "/payments", json=body, headers=bearing(token) | {"actor": '{"subject":"eve"}'})
        await guarded.call("POST", "/commands", json=several, headers=bearing(token))
    actors = [message.actor for _, message, _ in guarded.writes.issued]
    ada = Principal(subject="ada", tenant="acme", scopes=frozenset({"write", "read"}))
    assert actors[:3] == [ada] * 3
    assert actors[3:] == [Principal(subject="bob", tenant="acme")] * 3


def test_a_handler_that_was_looked_for_is_not_kept() -> None:
    """Without a route it is the request's own: whoever remembers that keeps the request."""

    def handler() -> None: ...

    for is_open in (False, True):
        assert is_open_handler(handler) is is_open
        open_to_all(handler)
    gone, number = ref(handler), len(authentication._open_handlers)
    del handler
    assert (gone(), len(authentication._open_handlers)) == (None, number - 1)


async def test_other_middlewares_change_nothing_of_who_may_ask() -> None:
    asked: list[bool] = []

    @web.middleware
    async def first(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked.append(is_open_to_all(request, handler))
        return await handler(request)

    @web.middleware
    async def other(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request)

    @open_to_all
    async def to_all(_: web.Request) -> web.Response:
        return web.Response()

    async def to_some(_: web.Request) -> web.Response:
        return web.Response()

    for middlewares in ([first], [first, other]):
        app = web.Application(middlewares=middlewares)
        app.add_routes([web.get("/all", to_all), web.get("/some", to_some)])
        async with TestClient(TestServer(app)) as client:
            for path in ("/all", "/some", "/nothing"):
                await client.get(path)
    assert asked == [True, False, False] * 2


@pytest.mark.parametrize(
    "path", ["/payments/9", "/commands/0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11", "/nothing", "/payments"]
)
async def test_who_has_none_is_asked_for_it(guarded: RunningGateway, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        response, problem = await guarded.call(method, path, json={})
        assert (response.status, problem["code"]) == (401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="write-coordinator"'
        assert "Command-Id" not in response.headers
    assert guarded.writes.issued == []


class Revocable:
    """Knows one principal, until his credential ends."""

    knows_anybody = True

    def __init__(self) -> None:
        self.counts = True
        self.asked = asyncio.Event()

    def known(self, _: str, /) -> Principal | None:
        self.asked.set()
        return Principal(subject="ada") if self.counts else None

    async def principal_of(self, credential: str) -> Principal:
        del credential
        raise NotAuthentic("it is revoked")

    async def problem(self) -> str | None:
        return None

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize("path", ["/payments", "/commands"])
@pytest.mark.parametrize("counts", [True, False])
async def test_a_credential_that_ends_while_the_body_comes_counts_no_more(
    start: Start, path: str, *, counts: bool
) -> None:
    authenticator = Revocable()
    gateway = await start("payments", authenticator=authenticator)
    begun = {"user_id": 7, "amount": 100, "currency": "EUR"}
    text = json.dumps(begun if path == "/payments" else [{"type": "payments.open", "args": begun}]).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield text[:5]
        async with asyncio.timeout(DEADLINE_S):
            await authenticator.asked.wait()
        authenticator.counts = counts
        yield text[5:]

    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    response, _ = await gateway.call("POST", path, data=slowly(), headers=headers)
    assert (response.status == 401, len(gateway.writes.issued)) == ((False, 1) if counts else (True, 0))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_health_is_open_to_all(guarded: RunningGateway, path: str) -> None:
    for headers in ({}, bearing("nonsense")):
        response, _ = await guarded.call("GET", path, headers=headers)
        assert response.status == 200


async def test_an_event_of_the_provider_proves_itself(guarded: RunningGateway) -> None:
    response, problem = await guarded.call("POST", "/webhooks/stripe", json={})
    assert (response.status, problem["code"]) == (503, "webhooks_not_configured")


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([("Authorization", "Bearer x")], "invalid_token"),
        ([("Authorization", "Bearer")], "invalid_request"),
        ([("Authorization", "Bearer ")], "invalid_request"),
        ([("Authorization", "Bearer a b")], "invalid_request"),
        ([("Authorization", "Basic YWRhOmFkYQ==")], "invalid_request"),
        ([("Authorization", "")], "invalid_request"),
        ([("Authorization", "Bearer \u00e9")], "invalid_request"),
        ([("Authorization", "Bearer x, Bearer y")], "invalid_request"),
        ([("Authorization", f"Bearer {KEY.token()}"), ("Authorization", f"Bearer {KEY.token()}")], "invalid_request"),
        ([("Authorization", f"Bearer {STRANGER.token()}")], "invalid_token"),
        ([("authorization", f"Bearer {KEY.token(sub='')}")], "invalid_token"),
    ],
)
async def test_a_credential_that_does_not_count(
    guarded: RunningGateway, headers: list[tuple[str, str]], error: str
) -> None:
    response, problem = await guarded.call("GET", "/payments/9", headers=headers)
    assert (response.status, problem["code"], problem["field"]) == (401, "unauthenticated", "Authorization")
    assert f'error="{error}"' in response.headers["WWW-Authenticate"]
    for _, value in headers:
        assert value.partition(" ")[2] not in json.dumps(problem) or not value.partition(" ")[2]


async def test_the_log_names_the_subject_and_no_credential(
    guarded: RunningGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    token = KEY.token(sub="ada@example.org")
    await guarded.call("GET", "/payments/9", headers=bearing(token))
    await guarded.call("GET", "/payments/9", headers=bearing(STRANGER.token()))
    printed = capsys.readouterr()
    assert "ada@example.org" in printed.out + printed.err
    assert token.rpartition(".")[2] not in printed.out + printed.err


def asking(path: str, *fields: str, bytes_long: int = 50, version: str = "1.1") -> bytes:
    """The head of a request whose body comes when it is asked for."""
    head = (
        f"POST {path} HTTP/{version}",
        *("Host: a", "Content-Type: application/json", f"Content-Length: {bytes_long}", "Expect: 100-continue"),
        *fields,
    )
    return "".join(f"{line}\r\n" for line in (*head, "")).encode()


# The tests may run an hour after they were read.
LASTING = KEY.token(exp=int(time.time()) + 100_000)
REFUSED = {
    "nobody knows who asks": (asking("/payments"), 401),
    "nobody knows who asks for what is not there": (asking("/nothing"), 401),
    "there is no such route": (asking("/nothing", f"Authorization: Bearer {LASTING}"), 404),
    "there is no such method": (asking("/payments/9", f"Authorization: Bearer {LASTING}"), 405),
    "the body is too large": (
        asking("/payments", f"Authorization: Bearer {LASTING}", bytes_long=10**9),
        413,
    ),
    "it expects something else": (asking("/payments").replace(b"100-continue", b"a-miracle"), 417),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_no_body_is_asked_for_that_is_not_wanted(guarded: RunningGateway, name: str) -> None:
    head, status = REFUSED[name]
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        writer.write(head)
        assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
        # Nobody takes what comes then for another request.
        writer.write(asking("/payments", f"Authorization: Bearer {KEY.token()}"))
        assert b"HTTP/1.1" not in await reader.read()
        writer.close()
    assert guarded.writes.issued == []


async def test_a_body_that_is_wanted_is_asked_for_once(guarded: RunningGateway) -> None:
    body = b'{"user_id": 7, "amount": 100, "currency": "EUR"}'
    fields = (f"Authorization: Bearer {KEY.token()}", "Connection: close")
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        writer.write(asking("/payments", *fields, bytes_long=len(body)))
        assert await reader.readline() + await reader.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 20")
    assert b"100 Continue" not in answer
    assert len(guarded.writes.issued) == 1


async def test_a_client_of_http_1_0_is_asked_for_nothing(guarded: RunningGateway) -> None:
    body = b'{"user_id": 7, "amount": 100, "currency": "EUR"}'
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        fields = f"Authorization: Bearer {KEY.token()}"
        writer.write(asking("/payments", fields, bytes_long=len(body), version="1.0") + body)
        assert (await reader.read()).split(maxsplit=2)[1] in (b"201", b"202")
        writer.close()


class Frozen:
    """An authenticator that waits."""

    knows_anybody = True

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.why: str | None = "the keys of tokens cannot be fetched"

    def known(self, _authorization: str, /) -> Principal | None:
        return None

    async def principal_of(self, credential: str) -> Principal:
        self.is_asked.set()
        await asyncio.Event().wait()
        raise NotAuthentic("it waited for nothing")

    async def problem(self) -> str | None:
        return self.why

    async def start(self) -> None: ...

    async def close(self) -> None: ...


async def test_readiness_shows_that_keys_are_away_and_goes_on_while_they_count(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.http.looks.SHARED_S", 0.0)
    frozen = Frozen()
    running = await start("users", authenticator=frozen)
    away = frozen.why
    for why, knows_anybody, status in ((away, False, 503), (None, True, 200), (away, True, 200), (away, False, 503)):
        frozen.why, frozen.knows_anybody = why, knows_anybody
        response, body = await running.call("GET", "/readyz")
        assert response.status == status
        assert body["checks"]["authentication"] == ("down" if why else "ok")
        assert body.get("reasons", {}).get("authentication") == why


HOSTS = ["0.0.0.0", "::", "192.0.2.7", "example.org", "127.0.0.1.example.org", ""]


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_starts_where_others_reach_it_and_nobody_said_who_may_ask(host: str) -> None:
    with pytest.raises(ConfigurationError, match="ACCESS_METHODS is not set") as refused:
        check_access(AccessSettings(), host)
    assert "ACCESS_METHODS=none" in str(refused.value)
    check_access(AccessSettings(methods="none"), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_this_machine_everybody_may(host: str) -> None:
    assert open_authenticator(AccessSettings(), host, NO_DATABASE) is None


def test_settings_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, named in (
        ({"ACCESS_METHODS": "tokens"}, "ACCESS_TOKEN_ISSUER, ACCESS_TOKEN_AUDIENCE, ACCESS_TOKEN_KEYS"),
        ({"ACCESS_METHODS": "passwords"}, "'passwords' is not one of keys, tokens, none"),
        ({"ACCESS_METHODS": "tokens none"}, "`none` goes with no other"),
        ({"ACCESS_TOKEN_ALGORITHMS": "HS256"}, "'HS256' is not one of RS256"),
        ({"ACCESS_TOKEN_ALGORITHMS": "none"}, "'none' is not one of RS256"),
        ({"ACCESS_TOKEN_ALGORITHMS": " "}, "must name one at least"),
        ({"ACCESS_TOKEN_KEYS": "http://login.example.org/keys"}, "must be an https:// address"),
        ({"ACCESS_TOKEN_KEYS": "ftp://login.example.org/keys"}, "must be an https:// address"),
        ({"ACCESS_TOKEN_LEEWAY_S": "-1"}, "ACCESS_TOKEN_LEEWAY_S"),
    ):
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            with pytest.raises(ConfigurationError, match=named):
                load(AccessSettings)


def test_tokens_are_the_authenticator_where_they_are_named(tmp_path: Path) -> None:
    given: dict[str, Any] = {"token_issuer": ISSUER, "token_audience": AUDIENCE, "token_keys": str(tmp_path)}
    assert isinstance(open_authenticator(AccessSettings(methods="tokens", **given), "127.0.0.1", NO_DATABASE), Tokens)
    with pytest.raises(ValidationError):
        AccessSettings(methods="tokens")
