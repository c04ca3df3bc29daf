"""The library's publisher keeps its order through refusals, lost connections and rolling restarts."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from sqlalchemy import text

from coordinator.dev.servers.server_set import ServerSet
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import CommandPending
from coordinator.service.outcome import Outcome
from coordinator.transports.rabbitmq.rights import gateway_account
from coordinator.transports.rabbitmq.topology import queue_name
from coordinator.transports.rabbitmq.writes import RabbitWrites
from tests.support.accounts import as_account
from tests.support.databases import sql_engine
from tests.support.servers import quorum_queues_are_noted
from tests.support.system import System, wait_until

COMMANDS = 1500

Issue: TypeAlias = Callable[[int], Awaitable[None]]
"""Issues so many more commands; returns once they are on their way."""


def identifier(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


async def issue_all(
    system: System, during: Callable[[Issue], Awaitable[None]] | None = None, padding: bytes = b""
) -> None:
    """Issue numbered commands over one session, and compare the log with the order of issue.

    `during` runs once the first half is on its way, and issues as many of the others as it wants to.
    """
    settings = BrokerSettings(url=as_account(system.environment["AMQP_URL"], gateway_account("users")), heartbeat_s=5)
    writes = RabbitWrites(
        settings,
        confirm_timeout_s=60,
        wait_s=60,
        in_flight_max=COMMANDS,
        log=None,
        name="gateway.users.test",
        in_order=True,
    )
    await writes.start()
    await writes.wait_connected()
    messages = [
        CommandMessage(
            command_id=identifier(number),
            type="users.create",
            arguments=b'{"name": "User %d", "email": "user%d@example.org"%b}' % (number, number, padding),
        )
        for number in range(COMMANDS)
    ]
    issued: list[asyncio.Task[Outcome]] = []

    async def issue(count: int) -> None:
        await writes.wait_connected()
        begin = len(issued)
        issued.extend(
            asyncio.create_task(writes.issue("users", message, None)) for message in messages[begin : begin + count]
        )
        await asyncio.sleep(0)  # a turn of the loop: they are packed and written

    await issue(COMMANDS // 2)
    if during is not None:
        await during(issue)
    await issue(COMMANDS)
    outcomes = await asyncio.gather(*issued)
    await writes.close()
    assert {outcome.status for outcome in outcomes} == {"applied"}
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        logged = connection.execute(text("SELECT command_id FROM command_log ORDER BY sequence")).scalars().all()
    engine.dispose()
    assert logged == [message.command_id for message in messages]


async def test_commands_that_a_full_queue_refused_are_sent_again_in_order(system: System) -> None:
    """A queue that holds one full pack nacks most of them, and accepts later ones before earlier ones."""
    system.prepare("users")
    sizes = {"AMQP_QUEUE_BYTES_MAX": "122880", "LANE_MESSAGE_BYTES_MAX": "122880"}
    # What is delivered does not count: the queue fills up while nobody consumes.
    system.start_coordinator("users", **sizes).stop(signal.SIGTERM, 20)

    def waits() -> bool:
        with system.broker() as channel:
            return bool(channel.queue_declare(queue_name("users"), passive=True).method.message_count)

    async def start(_: Issue) -> None:
        await asyncio.to_thread(wait_until, waits, "the queue has some of them")
        await asyncio.to_thread(system.start_coordinator, "users", **sizes)

    await issue_all(system, start, padding=b" " * 4000)


@pytest.mark.faults
async def test_a_rolling_restart_under_load_reorders_nothing(system: System) -> None:
    system.prepare("users")
    active = system.start_coordinator("users")
    standby = system.start_coordinator("users")

    async def restart(issue: Issue) -> None:
        for process in (active, standby):
            await asyncio.to_thread(system.start_coordinator, "users")
            await issue(COMMANDS // 8)
            await asyncio.to_thread(process.stop, signal.SIGTERM, 20)
            assert process.exit_status == 0, process.log_tail(30)

    await issue_all(system, restart)


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_a_broker_that_is_killed_in_between_reorders_nothing(system: System, native_servers: ServerSet) -> None:
    system.prepare("users")
    system.start_coordinator("users")
    wait_until(lambda: quorum_queues_are_noted(native_servers.rabbitmq), "the queue survives")

    async def kill(_: Issue) -> None:
        await asyncio.to_thread(native_servers.rabbitmq.kill)
        engine = sql_engine(system.environment["USERS_DATABASE_URL"])
        with engine.connect() as connection:
            logged = connection.execute(text("SELECT count(*) FROM command_log")).scalar_one()
        engine.dispose()
        assert logged < COMMANDS // 2, "the broker was killed too late to matter"
        await asyncio.to_thread(native_servers.rabbitmq.start)

    await issue_all(system, kill)


async def test_an_outcome_that_nobody_waited_for_is_not_taken_for_that_of_another_command(system: System) -> None:
    """The same id with other content, published while the first one's outcome is still to come."""
    system.prepare("users")
    system.start_coordinator("users").stop(signal.SIGTERM, 20)
    settings = BrokerSettings(url=as_account(system.environment["AMQP_URL"], gateway_account("users")), heartbeat_s=5)
    writes = RabbitWrites(
        settings, confirm_timeout_s=60, wait_s=60, in_flight_max=10, log=None, name="gateway.users.test"
    )
    await writes.start()
    await writes.wait_connected()
    first, other = (
        CommandMessage(
            command_id=identifier(1), type="users.create", arguments=b'{"name": "%s", "email": "a@example.org"}' % name
        )
        for name in (b"Ada", b"Eve")
    )
    with pytest.raises(CommandPending):
        await writes.issue("users", first, 0)
    asked = [asyncio.create_task(writes.issue("users", message, None)) for message in (other, first, other)]
    await asyncio.to_thread(system.start_coordinator, "users")
    outcomes = await asyncio.gather(*asked)
    await writes.close()
    told = [outcome.error.code if outcome.error else (outcome.status, outcome.replayed) for outcome in outcomes]
    assert told == ["idempotency_mismatch", ("applied", True), "idempotency_mismatch"]
