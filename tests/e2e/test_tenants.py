"""Tenants of one service behind the broker: their lanes, on two kinds of database, and a gateway each."""

import asyncio

import aiohttp

from coordinator.stores.admin import LaneAdmin
from tests.e2e.test_rest import Api
from tests.support.databases import FreshDatabases
from tests.support.halls import APP as HALLS
from tests.support.halls import halls, posters
from tests.support.system import System, wait_ready, wait_until

TENANTS = {"acme": "USERS_DATABASE_URL", "bolt": "PAYMENTS_DATABASE_URL"}


def sequence(admin: LaneAdmin) -> int:
    lease = admin.state().lease
    return 0 if lease is None else lease.sequence


async def test_each_tenants_commands_are_in_his_own_lane_and_database(
    system: System, databases: FreshDatabases
) -> None:
    assert tuple(HALLS.tenants["halls"]) == tuple(TENANTS)
    app = "tests.support.halls:APP"
    for tenant, setting in TENANTS.items():
        system.prepare_other(app, halls.for_tenant(tenant), databases.new(setting))
    system.prepare_other(app, posters, databases.new("USERS_DATABASE_URL"))
    names = ("HALLS_BOLT_DATABASE_URL", "POSTERS_DATABASE_URL")
    together = {name: system.environment[name] for name in names}
    together["AMQP_URL"] = system.administrators["AMQP_URL"]
    started = [system.launch_coordinator("halls-acme", {}), system.launch_coordinator("halls-bolt posters", together)]
    started += [system.launch_gateway(f"halls-{tenant}", {}) for tenant in TENANTS]
    for process, url in started:
        wait_ready(url, process)
    async with aiohttp.ClientSession() as session:
        apis = {tenant: Api(session, system.urls[f"halls-{tenant}"]) for tenant in TENANTS}

        async def let_in(tenant: str, number: int) -> None:
            name = {"name": f"{tenant} {number}"}
            for _ in range(2):
                answer = await apis[tenant]("POST", "/halls/commands/let_in", name, Idempotency_Key=f"guest-{number}")
                assert answer[0] == 200

        await asyncio.gather(*(let_in(tenant, number) for tenant in TENANTS for number in range(20)))
        for tenant, api in apis.items():
            status, invited, _ = await api("POST", "/halls/commands/invite", {"text": tenant})
            assert (status, invited) == (204, None)
            guests = (await api("GET", "/halls/guests"))[1]["items"]
            assert [guest["id"] for guest in guests] == list(range(1, 21))
            assert {guest["name"] for guest in guests} == {f"{tenant} {number}" for number in range(20)}
            assert system.operate(f"halls-{tenant}", sequence) == 21

    def are_hung_up() -> bool:
        return system.operate("posters", sequence) == 2

    await asyncio.to_thread(wait_until, are_hung_up, "the lane that they share has applied what both emitted")
