"""RabbitMQ's users with the rights that OPERATING.md gives them: with these all works, and no stranger can do more."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner
from pika.exceptions import ChannelClosedByBroker
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.dev.servers import ServerSet
from shared.effects import effects_key
from shared.messaging.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_name,
    queue_arguments,
    queue_name,
)
from shared.settings import BrokerSettings
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

OPERATING = (Path(__file__).parents[2] / "docs" / "OPERATING.md").read_text()
LINES = re.findall(r"^rabbitmqctl (set_permissions) -p (/) (\S+) +'(\S+)' +'(\S+)' +'(\S+)'$", OPERATING, re.MULTILINE)
ROLES = [line[2] for line in LINES]
ACCESS_REFUSED = 403


@pytest.fixture(scope="module")
def urls(native_servers: ServerSet) -> Iterator[dict[str, str]]:
    """The broker's address as each of them has it."""
    broker = native_servers.rabbitmq
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda role: broker.control("add_user", role, "secret"), ROLES))
        list(threads.map(lambda line: broker.control(line[0], "-p", *line[1:]), LINES))
        address = urlsplit(broker.url)
        yield {
            role: address._replace(netloc=f"{role}:secret@{address.hostname}:{address.port}").geturl() for role in ROLES
        }
        list(threads.map(lambda role: broker.control("delete_user", role), ROLES))


def operate(system: System, url: str, *arguments: object) -> Any:
    ran = CliRunner().invoke(cli, [*map(str, arguments), "--json"], env=system.environment | {"AMQP_URL": url})
    assert ran.exit_code == 0, (arguments, ran.stdout, ran.stderr, ran.exception)
    return json.loads(ran.stdout)


def test_the_lines_name_every_role() -> None:
    assert ROLES == ["public", "gateway", "webhooks", "operator", "lane", "effects"]


def test_everything_works_with_these_rights(system: System, urls: dict[str, str]) -> None:
    system.prepare("users", "payments")
    system.start_sandbox()
    for lane in ("users", "payments"):
        system.start_coordinator(lane, AMQP_URL=urls["lane"], LANE_OUTBOX_WATCH_S="0.2")
    system.start_effects("payments", AMQP_URL=urls["effects"])
    system.start_gateway("users", AMQP_URL=urls["gateway"])
    system.start_gateway("payments", AMQP_URL=urls["webhooks"])
    operator = urls["operator"]
    # A client of HTTP, and by way of an effect the provider.
    assert post(f"{system.urls['users']}/users", {"name": "Ada", "email": "ada@example.org"})["id"] == 1
    opened = {"user_id": 1, "amount": 500, "currency": "EUR", "payment_method": "pm_card_visa"}
    post(f"{system.urls['payments']}/payments", opened)
    wait_until(lambda: get(f"{system.urls['payments']}/payments/1")["status"] == "authorized", "the effect's result")
    # The provider's event, by way of the gateway that takes it: nothing of it is refused.
    wait_until(
        lambda: (
            ("applied",)
            in engine_rows(system, "payments", "SELECT status FROM command_log WHERE type = 'payments.provider_event'")
        ),
        "the provider's event",
    )
    assert operate(system, operator, "dead", "list", "payments") == []
    # A stranger with an account of RabbitMQ.
    assert ask(urls["public"], "users", "users.credit", b'{"id": 1, "amount": 5}')["status"] == "applied"
    assert ask(urls["public"], "users", "users.credit", b"[]")["status"] == "failed"
    # An operator.
    assert (
        operate(system, operator, "send", "users.credit", '{"id": 1, "amount": 1}', "--wait", 20)["status"] == "applied"
    )
    [letter] = operate(system, operator, "dead", "list", "users")
    fix = ("--args", '{"id": 1, "amount": 7}')
    [replayed] = operate(system, operator, "dead", "replay", letter["command_id"], *fix)
    wait_until(lambda: operate(system, operator, "status", "users", "--sample-s", 0)[0]["outbox"] == [], "it is sent")
    operate(system, operator, "drain", "users")
    assert operate(system, operator, "command", replayed["replayed_as"])["status"] == "applied"
    assert get(f"{system.urls['users']}/users/1")["credit"] == 13
    status = operate(system, operator, "status", "users", "payments", "--sample-s", 0)
    assert [(each["consumers"], each["errors"]) for each in status] == [(1, []), (1, [])]


def test_a_strangers_account_can_publish_to_writes_and_nothing_else(system: System, urls: dict[str, str]) -> None:
    system.prepare("payments")
    system.start_coordinator("payments", AMQP_URL=urls["lane"])
    queues = [queue_name("payments"), dead_queue_name("payments"), queue_name(effects_key("payments"))]
    queues.append(dead_queue_name(effects_key("payments")))
    bytes_max = BrokerSettings.model_fields["queue_bytes_max"].default
    attempts: list[Callable[[Any], object]] = [
        *(
            lambda channel, exchange=exchange, key=key: publish(channel, exchange, key)
            for exchange, key in (
                (SYSTEM_EXCHANGE, "payments"),
                (SYSTEM_EXCHANGE, effects_key("payments")),
                (DEAD_EXCHANGE, "payments"),
                (DEAD_EXCHANGE, effects_key("payments")),
                *(("", queue) for queue in queues),
                ("amq.direct", "payments"),
                ("amq.topic", "payments"),
            )
        ),
        *(
            lambda channel, exchange=exchange, queue=queue: channel.queue_bind(
                queue or own_queue(channel), exchange, "payments"
            )
            for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE)
            for queue in (queue_name("payments"), queue_name(effects_key("payments")), None)
        ),
        *(
            lambda channel, action=action, queue=queue: getattr(channel, action)(queue)
            for action in ("queue_delete", "queue_purge", "basic_get")
            for queue in queues
        ),
        *(lambda channel, queue=queue: channel.basic_consume(queue, print) for queue in queues),
        *(
            lambda channel, queue=queue: channel.queue_unbind(queue, WRITES_EXCHANGE, "payments")
            for queue in (queue_name("payments"),)
        ),
        *(
            lambda channel, exchange=exchange: channel.exchange_delete(exchange)
            for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE)
        ),
        lambda channel: channel.exchange_declare("mine", "direct"),
        lambda channel: channel.exchange_bind("amq.direct", WRITES_EXCHANGE, "payments"),
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.queue_declare("writes.nobody"),
        lambda channel: channel.queue_declare(
            queue_name("payments"), durable=True, arguments=queue_arguments("payments", bytes_max)
        ),
        # Its own queue must not become a way to somewhere else.
        lambda channel: channel.queue_declare(
            "", exclusive=True, arguments={"x-dead-letter-exchange": SYSTEM_EXCHANGE}
        ),
    ]
    with pika.BlockingConnection(pika.URLParameters(urls["public"])) as connection:
        for number, attempt in enumerate(attempts):
            channel = connection.channel()
            channel.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker) as refused:
                attempt(channel)
            assert refused.value.reply_code == ACCESS_REFUSED, (number, refused.value)
    assert operate(system, urls["operator"], "status", "payments", "--sample-s", 0)[0]["consumers"] == 1
    assert operate(system, urls["operator"], "dead", "list", "payments") == []


def engine_rows(system: System, lane: str, statement: str) -> list[tuple[Any, ...]]:
    engine = sql_engine(system.database(lane).database_url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]
    finally:
        engine.dispose()


def own_queue(channel: Any) -> str:
    return str(channel.queue_declare("", exclusive=True).method.queue)


def publish(channel: Any, exchange: str, routing_key: str) -> None:
    properties = pika.BasicProperties(message_id=str(uuid4()), type="payments.open")
    channel.basic_publish(exchange, routing_key, b"{}", properties)


def ask(url: str, lane: str, command_type: str, body: bytes) -> Any:
    """Publish a command as PROTOCOL.md says, and wait for its outcome."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        replies = own_queue(channel)
        properties = pika.BasicProperties(message_id=str(uuid4()), type=command_type, reply_to=replies)
        channel.basic_publish(WRITES_EXCHANGE, lane, body, properties, mandatory=True)
        for _, _, outcome in channel.consume(replies, auto_ack=True, inactivity_timeout=20):
            assert outcome is not None
            return json.loads(outcome)
    raise AssertionError("no outcome")


def post(url: str, body: object) -> Any:
    return call(url, json.dumps(body).encode())


def get(url: str) -> Any:
    return call(url, None)


def call(url: str, body: bytes | None) -> Any:
    headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{uuid4()}"'}
    with urlopen(Request(url, body, headers), timeout=30) as response:
        return json.loads(response.read())
