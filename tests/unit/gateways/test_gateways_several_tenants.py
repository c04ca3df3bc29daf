"""Several tenants at one port: whose a request is, what strangers learn, and what one leaves to the others."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from click.testing import CliRunner
from multidict import CIMultiDict
from prometheus_client import REGISTRY
from structlog.contextvars import get_contextvars

from coordinator.cli import cli
from coordinator.client.database import close_database, open_database
from coordinator.http import tenants
from coordinator.http.app import create_app
from coordinator.http.hooks import HOOKS
from coordinator.http.hosts import TenantOfHost, host_of, named_host, tenant_by_host, tenants_hosts
from coordinator.http.main import Offered, Tenants
from coordinator.http.operations import CHECKS, LOOKS, Check
from coordinator.http.problems import RequestRefused
from coordinator.http.request_log import in_flight_of
from coordinator.http.server import create_runner
from coordinator.http.tenants import TenantApps, front_app, settings_of_one
from coordinator.migrations.migrate import migrate
from coordinator.reading import open_command_log
from coordinator.registry import App, Registry
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from coordinator.worker.inprocess import InProcessWrites
from tests.support.halls import APP
from tests.unit.gateways.test_gateways_raw import exchange, statuses

KNOWN = Registry(APP)
TENANTS = ("acme", "bolt")
SETTINGS = GatewaySettings(connections_max=4)
BY_LABEL = tenant_by_host({})
NAMED = tenants_hosts("acme=www.acme.example", TENANTS)


class Hall:
    """The gateway of a tenant with a lane and a database of its own, as one process has several."""

    def __init__(self, app: web.Application) -> None:
        self.app = app
        self.problem: str | None = None

    async def check(self) -> None:
        if self.problem is not None:
            raise ConfigurationError(self.problem)

    async def failed(self) -> NoReturn:
        await asyncio.Event().wait()
        raise NotImplementedError


class Port:
    """One port with all of them behind it."""

    def __init__(self, number: int, halls: dict[str, Hall], session: aiohttp.ClientSession) -> None:
        self.number = number
        self.halls = halls
        self._session = session

    async def __call__(self, method: str, host: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        headers = {"Host": host, **options.pop("headers", {})}
        async with self._session.request(
            method, f"http://127.0.0.1:{self.number}{path}", headers=headers, allow_redirects=False, **options
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type.endswith("json") else text, answer.headers

    async def until(self, host: str, status: int) -> Any:
        """What readiness says there, once it has this status."""
        async with asyncio.timeout(20):
            while True:
                said = await self("GET", host, "/readyz")
                if said[0] == status:
                    return said[1]
                await asyncio.sleep(0.01)


Start = Callable[..., Awaitable[Port]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def hall_of(tenant: str) -> Hall:
            service = KNOWN.service(f"halls-{tenant}")
            url = f"sqlite:///{tmp_path}/{tenant}.sqlite"
            migrate(service, DatabaseSettings(database_url=url))
            lanes = {service.lane: open_store(url, service)}
            writes = await stack.enter_async_context(InProcessWrites(lanes, [service]))
            database = open_database(url, 2)
            stack.push_async_callback(close_database, database)
            app = create_app(
                KNOWN.gateway(service.lane),
                transport=writes,
                database=database,
                command_log=open_command_log(database),
                settings=settings_of_one(SETTINGS),
                services=[service],
                shows_metrics=False,
            )
            return Hall(app)

        async def started(whose: TenantOfHost = BY_LABEL, *, problem: str | None = None) -> Port:
            halls = {tenant: await hall_of(tenant) for tenant in TENANTS}
            halls["bolt"].problem = problem
            runner = create_runner(front_app("halls", TenantApps(halls, whose, SETTINGS.connections_max), SETTINGS))
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Port(site.port, halls, session)

        yield started


async def let_in(port: Port, host: str, name: str) -> Any:
    key = {"Idempotency-Key": "one"}
    return await port("POST", host, "/halls/commands/let_in", json={"name": name}, headers=key)


async def test_a_request_is_for_the_tenant_of_its_host(start: Start) -> None:
    port = await start()
    for host, tenant, name in (
        *(("acme.shop.example", "acme", "ada"), ("bolt.shop.example", "bolt", "bob")),
        *(("ACME.shop.example:8081", "acme", "ada"), ("bolt.", "bolt", "bob")),
    ):
        status, _, headers = await let_in(port, host, name)
        assert (status, headers["Read-After"]) == (200, f"halls-{tenant}=1")
        assert (await port("GET", host, headers["Location"]))[0] == 200
        items = (await port("GET", host, "/halls/guests", headers={"Read-After": headers["Read-After"]}))[1]["items"]
        assert [(row["id"], row["name"]) for row in items] == [(1, name)]


async def test_what_one_tenant_has_issued_another_cannot_see(start: Start) -> None:
    port = await start()
    headers = (await let_in(port, "acme.example", "ada"))[2]
    assert (await port("GET", "acme.example", headers["Location"]))[0] == 200
    assert (await port("GET", "bolt.example", headers["Location"]))[0] == 404
    place = {"Read-After": headers["Read-After"]}
    status, problem, _ = await port("GET", "bolt.example", "/halls/guests", headers=place)
    assert (status, problem["code"]) == (400, "invalid_header")
    etag = (await port("GET", "acme.example", "/halls/guests/1"))[2]["ETag"]
    assert (await port("GET", "acme.example", "/halls/guests/1", headers={"If-None-Match": etag}))[0] == 304
    assert (await port("GET", "bolt.example", "/halls/guests/1", headers={"If-None-Match": etag}))[0] == 404


UNKNOWN = (
    "carl.example",
    "127.0.0.1",
    "[::1]:8081",
    "xn--acme-.example",
    "acme..example",
    ".acme",
    "acme%2e.example",
    "",
)


@pytest.mark.parametrize("host", UNKNOWN)
async def test_at_no_tenants_host_nobody_learns_which_tenants_there_are(start: Start, host: str) -> None:
    port = await start()
    for method, path in (
        ("GET", "/halls/guests"),
        ("POST", "/commands"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        status, problem, _ = await port(method, host, path, headers={"Read-After": "halls-acme=1"})
        assert (status, problem["code"]) == (421, "misdirected_request")
        assert "acme" not in problem["detail"]
        assert "bolt" not in problem["detail"]
    assert (await port("GET", host, "/healthz"))[0] == 200
    status, page, _ = await port("GET", host, problem["type"])
    assert status == 200
    assert "acme" not in page


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: acme.example\r\n", 200, id="one"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: acme.example\r\nHost: bolt.example\r\n", 400, id="two"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: acme.example\r\nHost: acme.example\r\n", 400, id="twice"),
        pytest.param(b"GET http://acme.example/halls/guests HTTP/1.1\r\nHost: acme.example:80\r\n", 200, id="absolute"),
        pytest.param(b"GET http://bolt.example/halls/guests HTTP/1.1\r\nHost: acme.example\r\n", 400, id="another"),
        pytest.param(b"GET http://bolt@acme.example/halls/guests HTTP/1.1\r\nHost: acme.example\r\n", 400, id="user"),
        pytest.param(b"GET http://[::1/halls/guests HTTP/1.1\r\nHost: acme.example\r\n", 400, id="no address"),
        pytest.param(b"GET http://[::1]/halls/guests HTTP/1.1\r\nHost: [::1]\r\n", 421, id="IPv6"),
        pytest.param(b"GET /halls/guests HTTP/1.0\r\n", 421, id="none"),
        pytest.param(b"GET http://acme.example/halls/guests HTTP/1.0\r\n", 200, id="in the target alone"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: acme.example, bolt.example\r\n", 421, id="a list"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: acme.example:80:81\r\n", 421, id="two ports"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: \xc3\xa4cme.example\r\n", 421, id="UTF-8"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nHost: " + b"a." * 4000 + b"\r\n", 421, id="long"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: carl.example\r\n", 421, id="asterisk"),
        pytest.param(b"GET /halls/guests HTTP/1.1\r\nX-Forwarded-Host: acme.a\r\nHost: carl\r\n", 421, id="other"),
    ],
)
async def test_a_host_that_is_said_twice_or_cannot_be_one_leads_to_no_tenant(
    start: Start, head: bytes, status: int
) -> None:
    port = await start()
    answer = await exchange(port.number, head + b"Connection: close\r\n\r\n")
    assert statuses(answer) == [status], answer


@pytest.mark.parametrize(("host", "is_asked"), [("acme.example", True), ("carl.example", False)])
async def test_nobody_is_asked_for_the_body_of_a_request_that_is_refused(
    start: Start, host: str, is_asked: bool
) -> None:
    port = await start()
    head = f"POST /halls/commands/let_in HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    expecting = head + "Connection: close\r\nContent-Length: 14\r\nExpect: 100-continue\r\n\r\n"
    answer = await exchange(port.number, expecting.encode() + b'{"name":"ada"}')
    assert statuses(answer) == ([100, 200] if is_asked else [421]), answer


def test_two_hosts_are_refused_where_the_parser_lets_them_pass() -> None:
    request = make_mocked_request("GET", "/", headers=CIMultiDict((("Host", "acme.example"), ("Host", "acme.example"))))
    with pytest.raises(RequestRefused, match="Host is given twice"):
        host_of(request)


async def test_hosts_may_have_other_names_by_a_setting(start: Start) -> None:
    port = await start(tenant_by_host(NAMED))
    asked = {
        host: (await port("GET", host, "/halls/guests"))[0] for host in ("www.acme.example", "acme.example", "bolt")
    }
    assert asked == {"www.acme.example": 200, "acme.example": 421, "bolt": 200}


async def test_an_application_may_say_whose_a_host_is(start: Start) -> None:
    asked: list[str] = []

    def tenant_of_host(host: str) -> str | None:
        asked.append(host)
        if host == "bad":
            raise RuntimeError("a defect")
        return {"ada.example": "acme", "eve.example": "eve"}.get(host)

    port = await start(tenant_by_host(NAMED, tenant_of_host))
    hosts = ("ADA.example:80", "eve.example", "acme.example", "www.acme.example", "bad")
    found = [(await port("GET", host, "/halls/guests"))[0] for host in hosts]
    assert found == [200, 421, 421, 200, 500]
    assert asked == ["ada.example", "eve.example", "acme.example", "bad"]
    # Whoever asks by address asks of the process, which serves.
    assert [(await port("GET", "bad", path))[0] for path in ("/healthz", "/readyz")] == [200, 200]


async def test_a_database_that_is_no_use_is_one_tenants_problem(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "RETRY_S", 0.01)
    port = await start(problem="it is the database of lane halls-acme")
    status, problem, _ = await port("GET", "bolt.example", "/readyz")
    assert (status, problem["code"], problem["checks"]) == (503, "not_ready", {"database": "down"})
    assert "halls-acme" not in json.dumps(problem)
    assert (await port("GET", "bolt.example", "/healthz"))[0] == 200
    assert (await let_in(port, "bolt.example", "bob"))[0] == 503
    assert (await let_in(port, "acme.example", "ada"))[0] == 200
    assert (await port("GET", "acme.example", "/readyz"))[0] == 200
    port.halls["bolt"].problem = None
    await port.until("bolt.example", 200)
    assert (await let_in(port, "bolt.example", "bob"))[0] == 200


async def test_what_turns_out_to_be_another_tenants_database_is_not_read(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stays ready for the others, so no balancer takes this tenant out."""
    monkeypatch.setattr("coordinator.http.operations.WATCH_EVERY_S", 0.01)
    port = await start()
    assert (await let_in(port, "acme.example", "ada"))[0] == 200
    assert (await port("GET", "acme.example", "/halls/guests"))[0] == 200
    with closing(sqlite3.connect(tmp_path / "acme.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE lane_lease SET lane = 'halls-carl'")
    await port.until("acme.example", 503)
    status, problem, _ = await port("GET", "acme.example", "/halls/guests")
    assert (status, problem["code"], problem["checks"]) == (503, "not_ready", {"database": "down"})
    assert (await port("GET", "bolt.example", "/halls/guests"))[0] == 200


async def test_a_port_is_ready_as_soon_as_it_is_open(start: Start) -> None:
    """Who is asked before the first look would log that a part is down."""
    port = await start()
    assert (await port("GET", "127.0.0.1", "/readyz"))[0] == 200


async def test_a_port_is_ready_while_one_tenant_is(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.http.operations.WATCH_EVERY_S", 0.01)
    port = await start(problem="its lane has moved")
    await port.until("127.0.0.1", 200)

    async def down() -> str:
        return "it does not answer"

    port.halls["acme"].app[CHECKS][0] = Check("broker", down)
    problem = await port.until("127.0.0.1", 503)
    assert problem["checks"] == {"tenants": "down"}


async def test_one_tenant_leaves_half_of_what_a_port_serves_to_the_others(start: Start) -> None:
    port = await start()
    serving = in_flight_of("halls-acme")
    serving.number += 2
    refused = {"service": "halls-acme", "method": "GET", "route": "unmatched", "status": "503"}
    before = REGISTRY.get_sample_value("coordinator_gateway_requests_total", refused) or 0
    try:
        status, problem, headers = await port("GET", "acme.example", "/halls/guests")
        assert (status, problem["code"], headers["Retry-After"]) == (503, "overloaded", "1")
        assert REGISTRY.get_sample_value("coordinator_gateway_requests_total", refused) == before + 1
        assert (await port("GET", "acme.example", "/readyz"))[0] == 200
        assert (await port("GET", "bolt.example", "/halls/guests"))[0] == 200
    finally:
        serving.number -= 2
    assert (await port("GET", "acme.example", "/halls/guests"))[0] == 200


async def test_lines_in_the_log_say_whose_request_they_are_about(start: Start) -> None:
    port = await start()
    said: list[tuple[str, object]] = []

    async def note(tenant: str, *_: object) -> None:
        said.append((tenant, get_contextvars().get("service")))

    for tenant, hall in port.halls.items():
        hall.app[HOOKS].on_response(partial(note, tenant))
    for host in ("acme.example", "carl.example", "bolt.example"):
        await port("GET", host, "/halls/guests")
    assert said == [("acme", "halls-acme"), ("bolt", "halls-bolt")]


async def test_bodies_that_are_on_their_way_leave_a_tenant_his_share(start: Start) -> None:
    port = await start()
    head = b"POST /halls/commands/let_in HTTP/1.1\r\nHost: acme.example\r\nContent-Type: application/json\r\n"
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", port.number)
            stack.callback(writer.close)
            writer.write(head + b"Content-Length: 14\r\n\r\n{")
        while in_flight_of("halls-acme").number < 2:  # noqa: ASYNC110  # it offers no event
            await asyncio.sleep(0.01)
        assert (await port("GET", "acme.example", "/halls/guests"))[0] == 200


@pytest.mark.parametrize(
    "text", ["acme", "acme=", "=a.example", "acme=a.example:80", "acme=ä.example", "carl=c.example"]
)
def test_a_setting_that_names_no_host_of_a_tenant_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="GATEWAY_TENANT_HOSTS"):
        tenants_hosts(text, TENANTS)


def test_so_is_a_host_of_two_tenants() -> None:
    with pytest.raises(ConfigurationError, match=r"www\.example for both acme and bolt"):
        tenants_hosts("acme=www.example, bolt=WWW.example.", TENANTS)


def test_a_tenant_may_have_several_hosts_and_a_dash_for_its_underscore() -> None:
    assert tenants_hosts("acme=a.example, acme=b.example", TENANTS) == dict.fromkeys(("a.example", "b.example"), "acme")
    assert tenant_by_host({})("north-west.example") == "north_west"
    assert named_host("xn--bcher-kva.example") == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("named", "lanes", "is_by_host"),
    [
        (["halls"], ["halls-acme", "halls-bolt"], True),
        (["halls-bolt", "halls-acme", "halls-bolt"], ["halls-bolt", "halls-acme"], True),
        (["halls-acme"], ["halls-acme"], False),
        (["posters"], ["posters"], False),
    ],
)
def test_the_command_line_names_a_service_or_some_of_its_tenants(
    named: list[str], lanes: list[str], is_by_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "tests.support.halls:APP")
    called: list[tuple[list[Offered], str, int, Tenants | None]] = []
    monkeypatch.setattr("coordinator.http.main.serve", lambda *given: called.append(given[:4]))
    with suppress(SystemExit):
        ran = CliRunner().invoke(cli, ["gateway", *named])
    assert ran.exit_code == 0, ran.output
    offered, _, _, tenants_known = called[0]
    assert [each.gateway.name for each in offered] == lanes
    assert all(each.gateway.name in {service.lane for service in each.services} for each in offered)
    assert (tenants_known is not None) is is_by_host
    assert tenants_known is None or set(tenants_known.known) == set(TENANTS)


def test_it_takes_no_two_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "tests.support.halls:APP")
    ran = CliRunner().invoke(cli, ["gateway", "halls-acme", "posters"])
    assert ran.exit_code == 2
    assert "several must be of tenants of one service" in ran.output


def test_what_says_whose_a_host_is_must_be_a_function() -> None:
    def saying(reference: str) -> Registry:
        return Registry(App(services=APP.services, tenants=APP.tenants, tenant_of_host=reference))

    assert saying("").tenant_of_host is None
    assert saying("coordinator.http.hosts:named_host").tenant_of_host is named_host
    with pytest.raises(ConfigurationError, match="must be a function"):
        _ = saying("tests.support.halls:APP").tenant_of_host
    # What it returns would be nobody's name, and every host nobody's.
    with pytest.raises(ConfigurationError, match="must return the tenant at once"):
        _ = saying("coordinator.client.database:lane_is_here").tenant_of_host


async def test_strangers_at_all_hosts_cost_the_process_no_more_looks_than_at_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who asks at one host waits for its own next look, however often others are asked."""
    monkeypatch.setattr("coordinator.http.looks.APART_S", 0.2)
    monkeypatch.setattr("coordinator.http.operations.WATCH_EVERY_S", 3600.0)
    port = await start()
    hosts = [f"{tenant}.example" for tenant in TENANTS]
    for host in hosts:
        await port.until(host, 200)

    async def ask_again(host: str) -> None:
        for _ in range(3):
            assert (await port("GET", host, "/readyz"))[0] == 200

    began_s = asyncio.get_running_loop().time()
    await asyncio.gather(*(ask_again(host) for host in hosts))
    assert asyncio.get_running_loop().time() - began_s >= 3 * 0.2 * len(hosts)


async def test_who_waits_for_a_look_gets_the_one_that_the_gateway_takes_by_itself(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among many tenants the next one for strangers may be long in coming."""
    monkeypatch.setattr("coordinator.http.operations.WATCH_EVERY_S", 3600.0)
    port = await start()
    await port.until("acme.example", 200)
    monkeypatch.setattr("coordinator.http.looks.APART_S", 3600.0)
    app = port.halls["acme"].app
    asked = asyncio.create_task(app[LOOKS].look_for_anybody(app))
    await asyncio.sleep(0)
    assert not asked.done(), "it waits"
    async with asyncio.timeout(20):
        assert await app[LOOKS].look(app) == await asked == {}
