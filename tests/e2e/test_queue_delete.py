"""A queue is deleted if it is empty and nobody consumes it, and otherwise stays as it was."""

import asyncio
import json
import signal
from typing import Any
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.operate import deletion
from coordinator.operate.broker_connection import Broker
from coordinator.operate.queue_depth import QueueDepth
from coordinator.transports.rabbitmq.bindings import queues_of_effects
from coordinator.transports.rabbitmq.rights import effects_account, lane_account
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE, queue_name
from tests.support.accounts import as_account
from tests.support.system import System, wait_until

pytestmark = pytest.mark.operators

QUEUE = queue_name("users")


def delete(system: System, *arguments: str) -> tuple[int, str]:
    """With the account of those who declare the queues: an operator's may not delete them."""
    account = effects_account if "--effects" in arguments else lane_account
    lane = next(each for each in arguments if not each.startswith("--"))
    environment = system.environment | {"AMQP_URL": as_account(system.environment["AMQP_URL"], account(lane))}
    ran = CliRunner().invoke(cli, ["queue", "delete", *arguments], env=environment)
    return ran.exit_code, ran.stdout + ran.stderr


def publish(channel: Any, exchange: str, key: str) -> str:
    properties = pika.BasicProperties(message_id=str(uuid4()), type="users.create", delivery_mode=2)
    channel.basic_publish(exchange, key, b"{}", properties, mandatory=True)
    return str(properties.message_id)


def waiting(channel: Any) -> int:
    count: int = channel.queue_declare(QUEUE, passive=True).method.message_count
    return count


def test_a_queue_that_is_used_stays_and_one_that_is_not_is_declared_anew(system: System) -> None:
    system.prepare("users")
    assert delete(system, "users") == (1, f"coordinator: there is no queue {QUEUE}\n")
    coordinator = system.start_coordinator("users")
    status, said = delete(system, "users")
    assert (status, "consumers" in said) == (1, True)
    coordinator.stop(signal.SIGTERM, 20)
    with system.broker() as channel:
        channel.confirm_delivery()
        wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.consumer_count == 0, "it is unused")
        publish(channel, WRITES_EXCHANGE, "users")
        status, said = delete(system, "users")
        assert (status, "holds 1 messages" in said) == (1, True)
        # It takes what is published, as before.
        publish(channel, SYSTEM_EXCHANGE, "users")
        assert waiting(channel) == 2
        channel.queue_purge(QUEUE)
        assert delete(system, "users", "--json")[0] == 0
        system.start_coordinator("users", AMQP_QUEUE_BYTES_MAX=str(1 << 29))
        publish(channel, WRITES_EXCHANGE, "users")
        system.stop()
        channel.queue_delete(QUEUE)


def test_what_arrives_at_the_last_moment_is_kept(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was on its way when its publisher was cut off, who is let in again."""
    system.prepare("users")
    system.start_coordinator("users").stop(signal.SIGTERM, 20)
    with system.broker() as channel:
        channel.confirm_delivery()
        wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.consumer_count == 0, "it is unused")

        sleep = asyncio.sleep

        async def late(delay_s: float) -> None:
            with pytest.raises(pika.exceptions.UnroutableError):
                publish(channel, WRITES_EXCHANGE, "users")
            publish(channel, "", QUEUE)
            await sleep(delay_s)

        monkeypatch.setattr(asyncio, "sleep", late)
        status, said = delete(system, "users")
        assert (status, "holds messages" in said) == (1, True)
        for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE):
            publish(channel, exchange, "users")
        assert waiting(channel) == 3
        channel.queue_delete(QUEUE)


def test_that_rabbitmq_states_no_messages_is_no_proof(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so of any queue whose leader is slow to answer it."""
    monkeypatch.setattr(Broker, "depth", lambda *_: QueueDepth(ready=0, consumers=0))
    monkeypatch.setattr(deletion, "PROBE_TIMEOUT_S", 2.0)
    system.prepare("users")
    coordinator = system.start_coordinator("users")
    with system.broker() as channel:
        channel.confirm_delivery()
        status, said = delete(system, "users")
        assert (status, "it has consumers" in said) == (1, True)
        coordinator.stop(signal.SIGTERM, 20)
        wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.consumer_count == 0, "it is unused")
        sent = [publish(channel, WRITES_EXCHANGE, "users") for _ in range(3)]
        for _ in range(2):
            status, said = delete(system, "users")
            assert (status, "holds messages" in said) == (1, True)
        wait_until(lambda: waiting(channel) == 3, "its messages are back")
        delivered = channel.consume(QUEUE, inactivity_timeout=10)
        assert [next(delivered)[1].message_id for _ in sent] == sent
        channel.queue_delete(QUEUE)


def test_the_queues_of_effects_go_together(system: System) -> None:
    """They have one limit. If one of them holds effects, such as one that waits for its next attempt, all stay."""
    system.prepare("payments")
    system.start_sandbox()
    worker = system.start_effects("payments")
    worker.stop(signal.SIGTERM, 20)
    names = [queue.name for queue in queues_of_effects("payments")]
    with system.broker() as channel:
        wait_until(
            lambda: not any(channel.queue_declare(name, passive=True).method.consumer_count for name in names),
            "they are unused",
        )
        publish(channel, SYSTEM_EXCHANGE, names[-1])
        wait_until(lambda: channel.queue_declare(names[-1], passive=True).method.message_count == 1, "it waits")
        status, said = delete(system, "payments", "--effects")
        assert (status, f"{names[-1]} holds 1 messages" in said) == (1, True)
        channel.queue_purge(names[-1])
        status, said = delete(system, "payments", "--effects", "--json")
        assert (status, json.loads(said)["queues"]) == (0, names)
    system.start_effects("payments", AMQP_QUEUE_BYTES_MAX=str(1 << 29))
    assert delete(system, "users", "--effects")[0] == 2
