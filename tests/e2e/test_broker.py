"""A broker that behaves badly: it ends consumers and connections, and refuses rights."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coordinator.dev.servers.server_set import ServerSet
from coordinator.transports.rabbitmq.topology import queue_name
from tests.support.accounts import as_account
from tests.support.rabbitmqctl import Rights, close_connections, evaluate, set_users
from tests.support.system import System, wait_ready, wait_until, write_all

pytestmark = pytest.mark.operators

ADA = {"name": "Ada", "email": "ada@example.org"}
DELETE_REPLY_QUEUES = """
[rabbit_amqqueue:delete(Queue, false, false, <<"test">>) || Queue <- rabbit_amqqueue:list(<<"/">>),
 string:prefix(element(4, amqqueue:get_name(Queue)), <<"replies.">>) =/= nomatch], ok.
"""
NOTHING = "^$"
EVERYTHING = ".*"


@pytest.mark.faults
async def test_queues_that_are_deleted_are_declared_and_consumed_again(
    system: System, native_servers: ServerSet
) -> None:
    """The broker only cancels their consumers: nobody may stay deaf, and look ready."""
    system.start("users")
    coordinator, gateway = system.processes
    await write_all(system.urls["users"], "/users", ADA, 1, 1, "first")
    with system.broker() as channel:
        channel.queue_delete(queue_name("users"))
    await asyncio.to_thread(evaluate, native_servers.rabbitmq, DELETE_REPLY_QUEUES)
    for process, queue in ((coordinator, "writes.users"), (gateway, "replies.")):
        wait_until(lambda: f"ended the consumer of {queue}" in process.log_path.read_text(), queue, process)  # noqa: B023
    ((status, user),) = await write_all(
        system.urls["users"], "/users", {"name": "Bob", "email": "bob@example.org"}, 1, 1, "second"
    )
    assert (status, user["id"]) == (201, 2)


@pytest.mark.faults
async def test_no_confirmed_command_is_lost_while_connections_are_closed_again_and_again(
    system: System, native_servers: ServerSet
) -> None:
    system.start("users")
    await write_all(system.urls["users"], "/users", ADA, 1, 1, "ada")
    closing = asyncio.create_task(asyncio.to_thread(close_connections, native_servers.rabbitmq, 250, 15))
    credited = 0
    while not closing.done():
        answers = await write_all(system.urls["users"], "/users/1/credit", {"amount": 1}, 40, 8, f"credit-{credited}")
        assert [status for status, _ in answers] == [200] * 40
        credited += 40
    await closing
    # The same keys again: everything was applied, once.
    ((status, user),) = await write_all(system.urls["users"], "/users/1/credit", {"amount": 1}, 1, 1, "last")
    assert (status, user["credit"]) == (200, credited + 1)


@pytest.fixture
def refused(system: System, native_servers: ServerSet, tmp_path: Path) -> Any:
    """Start a process as a user with these rights; its exit status and what it says outside its log."""

    def start(argv: list[str], rights: Rights | None, **settings: str) -> tuple[int | None, str]:
        if rights is not None:
            set_users(native_servers.rabbitmq, {"poor": rights})
            url = as_account(system.environment["AMQP_URL"], "poor")
            settings = {"AMQP_URL": url, **settings}
        process = system.run(argv, tmp_path / "refused.log", settings)
        try:
            assert process.wait(30), process.log_tail(30)
        finally:
            process.kill()
        lines = [line for line in process.log_tail(50).splitlines() if not line.startswith("{")]
        assert len(lines) == 1, "\n".join(lines)
        return process.exit_status, lines[0]

    return start


GATEWAY = ["gateways", "users", "--port", "0"]
LANE = ["coordinator", "run", "users"]


@pytest.mark.parametrize(
    ("argv", "rights", "named"),
    [
        (GATEWAY, (NOTHING, EVERYTHING, EVERYTHING), ["right to configure queue replies.", "'poor'"]),
        (GATEWAY, (EVERYTHING, NOTHING, EVERYTHING), ["right to write to exchange writes "]),
        (GATEWAY, (EVERYTHING, EVERYTHING, NOTHING), ["right to read from queue replies."]),
        (LANE, (NOTHING, EVERYTHING, EVERYTHING), ["right to configure exchange writes "]),
        (LANE, (EVERYTHING, "^writes.*", EVERYTHING), ["right to write to exchange amq.default "]),
        (LANE, (EVERYTHING, "^$|^amq.default$", EVERYTHING), ["right to write to"]),
        (LANE, (EVERYTHING, EVERYTHING, NOTHING), ["right to read from"]),
    ],
)
def test_a_right_that_is_missing_is_named(
    system: System, refused: Any, argv: list[str], rights: Rights, named: list[str]
) -> None:
    system.prepare("users")
    with system.broker() as channel:
        channel.exchange_declare("writes", "direct", durable=True)
    status, error = refused(argv, rights)
    assert status == 2
    assert [part for part in ["AMQP_URL", *named] if part not in error] == []


@pytest.mark.parametrize("argv", [GATEWAY, LANE])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("operator:operator@", "operator:secretly@"), "refuses user 'operator'"),
        (("/%2F", "/nowhere"), "'nowhere'"),
        (("amqp://", "amqps://"), "TLS"),
        (("operator:operator@", "operator:a/b@"), "%2F"),
    ],
    ids=["password", "vhost", "TLS", "address"],
)
def test_an_address_that_can_never_do_is_named(
    system: System, refused: Any, argv: list[str], change: tuple[str, str], named: str
) -> None:
    system.prepare("users")
    status, error = refused(argv, None, AMQP_URL=system.environment["AMQP_URL"].replace(*change))
    assert status == 2
    assert "AMQP_URL" in error
    assert named in error
    assert "secretly" not in error


def test_a_gateway_waits_for_the_first_coordinator_and_says_so(system: System) -> None:
    system.prepare("users")
    process, url = system.launch_gateway("users", {})
    wait_until(lambda: "no exchange 'writes'" in process.log_path.read_text(), "it says what is missing", process)
    assert process.alive
    system.start_coordinator("users")
    wait_ready(url, process)
    lines = [line for line in process.log_path.read_text().splitlines() if "no exchange 'writes'" in line]
    # Readiness may have been asked meanwhile, and says of the part what the connection says.
    assert len([line for line in lines if '"broker_unavailable"' in line]) == 1, lines
    assert len([line for line in lines if '"part_down"' in line]) == len(lines) - 1 <= 1, lines
