"""A queue is deleted if it is empty and nobody consumes it, and otherwise stays as it was."""

import json
import signal
from typing import Any
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingConnection

from coordinator.cli import cli
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE, queue_name
from tests.support.system import System, wait_until

QUEUE = queue_name("users")


def delete(system: System, *arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(cli, ["queue", "delete", *arguments], env=system.environment)
    return ran.exit_code, ran.stdout + ran.stderr


def publish(channel: Any, exchange: str, key: str) -> None:
    properties = pika.BasicProperties(message_id=str(uuid4()), type="users.create", delivery_mode=2)
    channel.basic_publish(exchange, key, b"{}", properties, mandatory=True)


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

        def late(*_: object) -> None:
            with pytest.raises(pika.exceptions.UnroutableError):
                publish(channel, WRITES_EXCHANGE, "users")
            publish(channel, "", QUEUE)

        monkeypatch.setattr(BlockingConnection, "sleep", late)
        status, said = delete(system, "users")
        assert (status, "holds 1 messages" in said) == (1, True)
        for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE):
            publish(channel, exchange, "users")
        assert waiting(channel) == 3
        channel.queue_delete(QUEUE)


def test_so_are_the_queues_of_effects(system: System) -> None:
    system.prepare("payments")
    coordinator = system.start_coordinator("payments")
    status, said = delete(system, "payments", "--effects", "--json")
    assert (status, json.loads(said)["key"]) == (0, effects_key("payments"))
    assert delete(system, "users", "--effects")[0] == 2
    coordinator.stop(signal.SIGTERM, 20)
