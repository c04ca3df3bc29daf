"""Two tenants of one service in one gateway process, on real servers: nothing of one counts for the other."""

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from coordinator.stores.admin import LaneAdmin
from coordinator.transports.rabbitmq.rights import gateway_account
from tests.e2e.test_rest import Api
from tests.faults.proxy import TcpProxy
from tests.support.callers import key_of
from tests.support.databases import FreshDatabases
from tests.support.guarded_halls import halls
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.support.system import System, wait_ready

HOSTS: Final = {"acme": "acme.shop.example", "bolt": "bolt.shop.example"}
BY_ADDRESS: Final = "127.0.0.1"
GUESTS: Final = 20
CONNECTIONS_MAX: Final = 100
"""And so many read at once of a tenant whose database is away."""
PROMPTLY_S: Final = 5.0
"""Time enough for an answer on a busy machine, and less than one that waits for a database which is away."""


def sequence(admin: LaneAdmin) -> int:
    lease = admin.state().lease
    return 0 if lease is None else lease.sequence


class Port:
    """The gateway, as callers of both tenants see it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, keys: Mapping[str, str]) -> None:
        self._api = Api(session, url)
        self._url, self._keys = url, keys

    def through(self, session: aiohttp.ClientSession) -> "Port":
        """By connections of its own."""
        return Port(session, self._url, self._keys)

    async def __call__(
        self, host: str, method: str, path: str, body: object = None, *, by: str | None = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """`by` is the credential; the tenant's own where none is given."""
        name = host.partition(".")[0]
        bearer = self._keys.get(name) if by is None else by
        credential = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return await self._api(method, path, body, Host=host, **credential, **headers)

    async def until_ready(self, host: str, status: int) -> Any:
        async with asyncio.timeout(60):
            while True:
                found = await self(host, "GET", "/readyz")
                if found[0] == status:
                    return found[1]
                await asyncio.sleep(0.1)


async def test_two_tenants_share_a_process_and_nothing_else(
    system: System, databases: FreshDatabases, tmp_path: Path
) -> None:
    urls, signing = {}, SigningKey("one")
    for tenant in HOSTS:
        urls[tenant] = databases.new("USERS_DATABASE_URL")
        system.prepare_other("tests.support.guarded_halls:APP", halls.for_tenant(tenant), urls[tenant])
    keys = {tenant: key_of("ada", {f"halls-{tenant}": url}) for tenant, url in urls.items()}
    (tmp_path / "keys.json").write_bytes(key_set(signing))
    lanes = {f"HALLS_{tenant.upper()}_DATABASE_URL": url for tenant, url in urls.items()}
    believed = {"LANE_GATEWAY_ACCOUNTS": gateway_account("halls")}
    database = urlsplit(urls["acme"])
    without_limit = aiohttp.TCPConnector(limit=0)
    async with TcpProxy(database.port or 5432) as between, aiohttp.ClientSession(connector=without_limit) as session:
        through = database._replace(netloc=f"{database.netloc.rpartition(':')[0]}:{between.port}").geturl()
        access = {
            "ACCESS_METHODS": "keys tokens",
            "ACCESS_TOKEN_ISSUER": ISSUER,
            "ACCESS_TOKEN_AUDIENCE": AUDIENCE,
            "ACCESS_TOKEN_KEYS": str(tmp_path / "keys.json"),
            "GATEWAY_CONNECTIONS_MAX": str(CONNECTIONS_MAX),
        }
        started = [system.launch_coordinator(f"halls-{tenant}", believed) for tenant in HOSTS]
        started.append(system.launch_gateway("halls", lanes | access | {"HALLS_ACME_DATABASE_URL": through}))
        for process, its_url in started:
            await asyncio.to_thread(wait_ready, its_url, process)
        port = Port(session, system.urls["halls"], keys)
        for host in HOSTS.values():
            await port.until_ready(host, 200)
        await the_same_names_are_two_things(port)
        for tenant in HOSTS:
            assert system.operate(f"halls-{tenant}", sequence) == GUESTS
        await credentials_are_one_tenants(port, keys, signing)
        await a_host_of_nobody_is_refused(port, keys)
        await one_database_that_is_away_is_one_tenants_problem(port, between)
        assert all(process.alive for process, _ in started)


async def the_same_names_are_two_things(port: Port) -> None:
    async def let_in(tenant: str, number: int) -> None:
        name, key = {"name": f"{tenant} {number}"}, f"guest-{number}"
        path = "/halls/commands/let_in"
        answers = [await port(HOSTS[tenant], "POST", path, name, Idempotency_Key=key) for _ in range(2)]
        assert [answer[0] for answer in answers] == [200, 200], answers
        assert answers[0][1] == answers[1][1]

    await asyncio.gather(*(let_in(tenant, number) for number in range(GUESTS) for tenant in HOSTS))
    for tenant, host in HOSTS.items():
        guests = (await port(host, "GET", "/halls/guests"))[1]["items"]
        assert [guest["id"] for guest in guests] == list(range(1, GUESTS + 1))
        assert {guest["name"] for guest in guests} == {f"{tenant} {number}" for number in range(GUESTS)}


async def credentials_are_one_tenants(port: Port, keys: Mapping[str, str], signing: SigningKey) -> None:
    acme, bolt = HOSTS.values()
    assert (await port(bolt, "GET", "/halls/guests", by=keys["acme"]))[0] == 401
    assert (await port(acme, "GET", "/halls/guests", by=keys["bolt"]))[0] == 401
    tokens = {tenant: signing.token(tenant=tenant) for tenant in HOSTS}
    for host, token, status in (
        *((acme, tokens["acme"], 200), (bolt, tokens["bolt"], 200)),
        *((acme, tokens["bolt"], 401), (bolt, tokens["acme"], 401), (acme, signing.token(), 401)),
    ):
        # What one application remembers of a token must count at no other.
        for _ in range(2):
            assert (await port(host, "GET", "/halls/guests", by=token))[0] == status
    headers = (await port(acme, "POST", "/halls/commands/let_in", {"name": "eve"}))[2]
    assert (await port(acme, "GET", headers["Location"]))[0] == 200
    assert (await port(bolt, "GET", headers["Location"]))[0] == 404


async def a_host_of_nobody_is_refused(port: Port, keys: Mapping[str, str]) -> None:
    for host in ("carl.shop.example", BY_ADDRESS, "[::1]"):
        for credential in (None, keys["acme"]):
            status, problem, _ = await port(host, "POST", "/halls/commands/let_in", {"name": "eve"}, by=credential)
            assert (status, problem["code"]) == (421, "misdirected_request")
    assert (await port(HOSTS["acme"].upper() + ".:80", "GET", "/halls/guests", by=keys["acme"]))[0] == 200


async def one_database_that_is_away_is_one_tenants_problem(port: Port, between: TcpProxy) -> None:
    acme, bolt = HOSTS.values()
    between.stall()
    problem = await port.until_ready(acme, 503)
    assert problem["checks"]["database"] == "down"
    flood = [asyncio.create_task(port(acme, "GET", "/halls/guests")) for _ in range(CONNECTIONS_MAX)]
    try:
        # One half waits for the database; the other half leaves its connections to whoever comes.
        refused = [await each for each in itertools.islice(asyncio.as_completed(flood), CONNECTIONS_MAX // 2)]
        assert {problem["code"] for _, problem, _ in refused} == {"overloaded"}
        began_s = monotonic()
        async with aiohttp.ClientSession() as newcomer:
            his = port.through(newcomer)
            assert (await his(bolt, "POST", "/halls/commands/let_in", {"name": "late"}))[0] == 200
            assert (await his(bolt, "GET", "/halls/guests"))[0] == 200
            assert (await his(bolt, "GET", "/readyz"))[0] == 200
            assert (await his(BY_ADDRESS, "GET", "/readyz"))[0] == 200
        assert monotonic() - began_s < PROMPTLY_S
        assert {status for status, _, _ in await asyncio.gather(*flood)} == {503}
    finally:
        between.resume()
        await asyncio.gather(*flood, return_exceptions=True)
    await port.until_ready(acme, 200)
    assert (await port(acme, "GET", "/halls/guests"))[0] == 200
