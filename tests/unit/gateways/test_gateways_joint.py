"""Several gateways in one application: each route has its own service, and what is common to all asks all of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from coordinator.client.command_log import CommandLogs
from coordinator.client.database import close_database, open_database
from coordinator.http.app import Gateway, ServedGateway, create_joint_app
from coordinator.http.operations import CHECKS, Check
from coordinator.http.server import create_runner
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings, LaneSettings
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.ids import command_id_for, scoped_command_id_for
from coordinator.service.principal import Principal
from tests.unit.gateways.conftest import DATABASES, RunningGateway, replace_reads
from tests.unit.gateways.gateway_fakes import NOW, FakeCache, FakeLog, FakeRows, FakeWrites
from tests.unit.gateways.test_gateways_operations import COMMAND_ID, settled
from tests.unit.gateways.test_gateways_own_keys import SECRET, ByName, Secrets, secrets

__all__ = ("secrets",)

LANES = ("users", "payments")
USER = {"name": "Ada", "email": "ada@example.org"}
PAYMENT = {"user_id": 7, "amount": 100, "currency": "EUR"}


class Joint(RunningGateway):
    """Users and payments at one port. `log` is that of users."""

    def __init__(self) -> None:
        super().__init__(FakeWrites(), FakeLog(), FakeRows(), FakeCache())
        self.payments_log = FakeLog()


@pytest.fixture
async def joint(secrets: Secrets) -> AsyncIterator[Joint]:
    # A gateway was open to all before.
    secrets.rows.append(replace(secrets.rows[0], id=0, secret=""))
    running = Joint()
    logs = {"users": running.log, "payments": running.payments_log}
    async with AsyncExitStack() as stack:
        served = []
        for lane in LANES:
            database = open_database(DATABASES[lane])
            stack.push_async_callback(close_database, database)
            gateway = registry().gateway(lane)
            served.append(ServedGateway(gateway=gateway, database=database, command_log=logs[lane]))
        app = create_joint_app(
            "both",
            served,
            transport=cast(Any, running.writes),
            settings=GatewaySettings(),
            authenticator=ByName(),
            services=registry().services,
        )
        checks = app[CHECKS].copy()
        for lane in LANES:
            replace_reads(app, lane, running)
        app[CHECKS].clear()
        app[CHECKS].extend(Check(each.name, _well) if each.name.startswith("database") else each for each in checks)
        running.runner = create_runner(app)
        await running.runner.setup()
        stack.push_async_callback(running.runner.cleanup)
        site = web.TCPSite(running.runner, "127.0.0.1", 0)
        await site.start()
        running.port = site.port
        running.session = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"Authorization": "Bearer ada"}, timeout=aiohttp.ClientTimeout(total=20))
        )
        yield running


async def _well() -> str | None:
    return None


async def test_each_route_and_each_command_goes_to_its_own_lane(joint: Joint) -> None:
    assert (await joint.call("POST", "/users", json=USER))[0].status == 201
    assert (await joint.call("POST", "/payments", json=PAYMENT))[0].status == 201
    many = [{"type": "payments.open", "args": PAYMENT}, {"type": "users.create", "args": USER}]
    response, outcomes = await joint.call("POST", "/commands", json=many)
    assert (response.status, [each["status"] for each in outcomes]) == (200, ["applied"] * 2)
    assert [lane for lane, _, _ in joint.writes.issued] == ["users", "payments", "payments", "users"]


async def test_a_command_is_found_in_whichever_log_has_it_also_where_another_is_away(joint: Joint) -> None:
    ada = Principal(subject="ada").as_logged
    joint.payments_log.entries[COMMAND_ID] = settled(type="payments.open", actor=ada)
    response, body = await joint.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["timeline"]["lane"]) == (200, "payments")
    joint.log.error = DatabaseUnavailable("away")
    assert (await joint.call("GET", f"/commands/{COMMAND_ID}"))[0].status == 200
    # It may be there.
    other = COMMAND_ID.replace("abcd", "abce")
    assert (await joint.call("GET", f"/commands/{other}"))[0].status == 503
    joint.log.error = None
    assert (await joint.call("GET", f"/commands/{other}"))[0].status == 404


async def test_somebody_else_s_command_of_the_same_id_in_another_lane_hides_nobody_s_own(joint: Joint) -> None:
    ada, bob = (Principal(subject=name).as_logged for name in ("ada", "bob"))
    joint.log.entries[COMMAND_ID] = settled(actor=bob)
    joint.payments_log.entries[COMMAND_ID] = settled(type="payments.open", actor=ada)
    response, body = await joint.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["type"]) == (200, "payments.open")
    joint.payments_log.entries.clear()
    assert (await joint.call("GET", f"/commands/{COMMAND_ID}"))[0].status == 404


async def test_a_command_that_waits_is_pending(joint: Joint) -> None:
    joint.writes.in_flight.add(COMMAND_ID)
    response, body = await joint.call("GET", f"/commands/{COMMAND_ID}")
    assert (response.status, body["timeline"]["lane"]) == (202, None)


async def test_an_earlier_command_of_a_key_is_looked_for_in_its_own_lane_s_log(joint: Joint) -> None:
    unkeyed = command_id_for("payments", "order-1")
    # Of another lane: nothing that this key stood for.
    joint.log.entries[unkeyed] = settled(command_id=unkeyed)

    async def issued() -> str | None:
        await joint.call("POST", "/payments", json=PAYMENT, headers={"Idempotency-Key": "order-1"})
        return joint.writes.last.command_id

    assert await issued() == scoped_command_id_for(SECRET, "payments", "order-1", subject="ada")
    assert joint.log.asked == []
    joint.payments_log.entries[unkeyed] = settled(command_id=unkeyed, type="payments.open")
    assert await issued() == unkeyed


async def test_readiness_names_each_database(joint: Joint) -> None:
    _, body = await joint.call("GET", "/readyz")
    assert {"broker", "database of users", "database of payments", "authentication"} <= set(body["checks"])


async def test_one_document_has_the_routes_of_all_by_their_service(joint: Joint) -> None:
    _, document = await joint.call("GET", "/openapi.json")
    assert document["paths"]["/users/{id}"]["get"]["tags"] == ["users"]
    assert document["paths"]["/payments/{id}"]["get"]["tags"] == ["payments"]
    assert document["paths"]["/commands"]["post"]["tags"] == ["every gateway"]
    assert (await joint.call("GET", "/problems/email_taken"))[0].status == 200
    _, schemas = await joint.call("GET", "/schemas")
    assert {"users.create", "payments.open"} <= {each["type"] for each in schemas}


@pytest.mark.parametrize(("path", "other"), [("/seats/{id}", "/seats/{name}"), ("/seats", "/seats")])
def test_a_route_of_two_gateways_is_refused_by_name(path: str, other: str) -> None:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response()

    def gateway(name: str, at: str) -> Gateway:
        own = web.get(f"/{name}", serve)
        return Gateway(name=name, routes=(own, web.get(at, serve)), attach=lambda _app, _dependencies: None)

    gateways = [gateway("a", path), gateway("b", other)]
    served = [ServedGateway(gateway=each, database=cast(Any, None), command_log=FakeLog()) for each in gateways]
    with pytest.raises(ConfigurationError, match=rf"GET {other} of b is a route of a, too".replace("{", r"\{")):
        create_joint_app("both", served, transport=cast(Any, FakeWrites()), settings=GatewaySettings())


async def test_the_error_of_a_log_counts_only_where_no_log_has_the_command() -> None:
    away, there = FakeLog(), FakeLog()
    away.error = DatabaseUnavailable("away")
    logs = CommandLogs({"away": away, "there": there})
    with pytest.raises(DatabaseUnavailable):
        await logs.find(COMMAND_ID)
    there.entries[COMMAND_ID] = settled(settled_at=NOW)
    assert [lane for lane, _ in await logs.find(COMMAND_ID)] == ["there"]


async def test_a_command_that_waits_says_in_which_lane_to_whoever_issued_it(joint: Joint) -> None:
    joint.writes.waiting_by_lane["payments"] = 7
    response, _ = await joint.call("POST", "/payments", json=PAYMENT)
    command_id = response.headers["Command-Id"]
    joint.writes.in_flight.add(command_id)
    response, body = await joint.call("GET", f"/commands/{command_id}")
    assert response.status == 202
    timeline = body["timeline"]
    assert (timeline["lane"], timeline["waiting_before"]) == ("payments", 7 + LaneSettings().prefetch)
    other = settled().command_id
    joint.writes.in_flight.add(other)
    _, body = await joint.call("GET", f"/commands/{other}")
    assert (body["timeline"]["lane"], body["timeline"]["waiting_before"]) == (None, None)
