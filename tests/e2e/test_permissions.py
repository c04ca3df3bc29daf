"""RabbitMQ's accounts with the rights that `coordinator broker-accounts` gives them: with these all works, and no
stranger can do more."""

import base64
import json
from collections.abc import Callable
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
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.outside_calls import effects_key
from coordinator.transports.rabbitmq.direct_reply import DIRECT_REPLY
from coordinator.transports.rabbitmq.rights import OPERATOR, PUBLISHER, lane_account
from coordinator.transports.rabbitmq.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    dead_queue_name,
    queue_arguments,
    queue_name,
)
from tests.support.accounts import as_account
from tests.support.callers import HEADERS
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

ACCESS_REFUSED = 403


@pytest.fixture
def urls(system: System) -> dict[str, str]:
    """The broker's address as each of those has it that the system does not start."""
    return {role: as_account(system.environment["AMQP_URL"], role) for role in (OPERATOR, PUBLISHER)}


def operate(system: System, url: str, *arguments: object) -> Any:
    ran = CliRunner().invoke(cli, [*map(str, arguments), "--json"], env=system.environment | {"AMQP_URL": url})
    assert ran.exit_code == 0, (arguments, ran.stdout, ran.stderr, ran.exception)
    return json.loads(ran.stdout)


def test_everything_works_with_these_rights(system: System, urls: dict[str, str]) -> None:
    system.prepare("users", "payments")
    system.start_sandbox()
    for lane in ("users", "payments"):
        system.start_coordinator(lane, LANE_OUTBOX_WATCH_S="0.2", LANE_ACCOUNT_SCOPES="public=cashier")
    system.start_effects("payments")
    system.start_gateway("users")
    system.start_gateway("payments")
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
    fix = ("--as-sender", "--args", '{"id": 1, "amount": 7}')
    [replayed] = operate(system, operator, "dead", "replay", letter["command_id"], *fix)
    wait_until(lambda: operate(system, operator, "status", "users", "--sample-s", 0)[0]["outbox"] == [], "it is sent")
    operate(system, operator, "drain", "users")
    assert operate(system, operator, "command", replayed["replayed_as"])["status"] == "applied"
    assert get(f"{system.urls['users']}/users/1")["credit"] == 13
    status = operate(system, operator, "status", "users", "payments", "--sample-s", 0)
    assert [(each["consumers"], each["errors"]) for each in status] == [(1, []), (1, [])]
    refused = CliRunner().invoke(
        cli,
        ["accept-loss", "users", "--at", str(status[0]["sequence"]), "--up-to", str(2**53 - 1)],
        env=system.environment | {"AMQP_URL": operator},
    )
    assert refused.exit_code == 1, (refused.output, refused.exception)
    assert "nothing shows that users has lost anything" in refused.output


def test_a_strangers_account_can_publish_to_writes_and_nothing_else(system: System, urls: dict[str, str]) -> None:
    system.prepare("payments")
    system.start_coordinator("payments")
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
            lambda channel, exchange=exchange, queue=queue: channel.queue_bind(queue, exchange, "payments")
            for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE)
            for queue in (*queues, "replies.of.another", DIRECT_REPLY)
        ),
        *(
            lambda channel, action=action, queue=queue: getattr(channel, action)(queue)
            for action in ("queue_delete", "queue_purge", "basic_get")
            for queue in (*queues, "replies.of.another")
        ),
        *(
            lambda channel, queue=queue, auto_ack=auto_ack: channel.basic_consume(queue, print, auto_ack=auto_ack)
            for queue in (*queues, "replies.of.another")
            for auto_ack in (True, False)
        ),
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
        # It has no queue at all: what one costs, how long it lives and where it dead-letters is its declarer's choice.
        *(
            lambda channel, name=name, options=options, arguments=arguments: channel.queue_declare(
                name, arguments=arguments, **options
            )
            for name in ("", "mine", "writes.nobody", "replies.gateway.mine", "amq.gen-mine")
            for options in ({}, {"exclusive": True}, {"auto_delete": True}, {"durable": True})
            for arguments in (
                {},
                {"x-max-priority": 255},
                {"x-expires": 1000},
                {"x-dead-letter-exchange": WRITES_EXCHANGE, "x-message-ttl": 0},
                {"x-dead-letter-exchange": SYSTEM_EXCHANGE},
            )
        ),
        lambda channel: channel.queue_declare(
            queue_name("payments"), durable=True, arguments=queue_arguments("payments", bytes_max)
        ),
    ]
    with pika.BlockingConnection(pika.URLParameters(system.administrators["AMQP_URL"])) as connection:
        connection.channel().queue_declare("replies.of.another", auto_delete=True)
    with pika.BlockingConnection(pika.URLParameters(urls["public"])) as connection:
        for number, attempt in enumerate(attempts):
            channel = connection.channel()
            channel.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker) as refused:
                attempt(channel)
            assert refused.value.reply_code == ACCESS_REFUSED, (number, refused.value)
    assert operate(system, urls["operator"], "status", "payments", "--sample-s", 0)[0]["consumers"] == 1
    assert operate(system, urls["operator"], "dead", "list", "payments") == []


def test_a_lane_s_account_takes_nothing_of_another_lane(system: System) -> None:
    """Neither its commands, nor its effects; and it deletes none of its queues."""
    system.prepare("users", "payments")
    system.start_coordinators("users", "payments")
    keys = ("payments", effects_key("payments"))
    queues = [name(key) for key in keys for name in (queue_name, dead_queue_name)]
    attempts: list[Callable[[Any, str], object]] = [
        lambda channel, queue: channel.basic_get(queue),
        lambda channel, queue: channel.basic_consume(queue, print),
        lambda channel, queue: channel.queue_purge(queue),
        lambda channel, queue: channel.queue_delete(queue),
        lambda channel, queue: channel.queue_unbind(queue, WRITES_EXCHANGE, "payments"),
        lambda channel, queue: channel.queue_declare(queue, durable=True),
    ]
    url = as_account(system.environment["AMQP_URL"], lane_account("users"))
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for queue in queues:
            for number, attempt in enumerate(attempts):
                with pytest.raises(ChannelClosedByBroker) as refused:
                    attempt(connection.channel(), queue)
                assert refused.value.reply_code == ACCESS_REFUSED, (queue, number, refused.value)


def test_what_a_lane_s_account_can_do_with_the_exchanges_is_what_the_documents_say(system: System) -> None:
    """docs/SECURITY.md, Limits."""
    system.prepare("users", "payments")
    system.start_coordinators("users", "payments")
    url = as_account(system.environment["AMQP_URL"], lane_account("users"))
    copies = dead_queue_name("users")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE):
            channel.queue_bind(copies, exchange, "payments")
        channel.exchange_bind(SYSTEM_EXCHANGE, WRITES_EXCHANGE, "payments")
        attempts: list[Callable[[Any], object]] = [
            lambda channel: channel.queue_bind(queue_name("payments"), WRITES_EXCHANGE, "users"),
            lambda channel: channel.exchange_bind("amq.direct", WRITES_EXCHANGE, "payments"),
            lambda channel: publish(channel, WRITES_EXCHANGE, "payments"),
            lambda channel: channel.queue_declare("mine"),
        ]
        for number, attempt in enumerate(attempts):
            other = connection.channel()
            other.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker) as refused:
                attempt(other)
            assert refused.value.reply_code == ACCESS_REFUSED, number
    with pika.BlockingConnection(pika.URLParameters(system.administrators["AMQP_URL"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        publish(channel, WRITES_EXCHANGE, "payments")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        wait_until(lambda: channel.basic_get(copies, auto_ack=True)[0] is not None, "a copy of what payments is sent")
        channel.exchange_delete(WRITES_EXCHANGE)

    def is_back() -> bool:
        with pika.BlockingConnection(pika.URLParameters(system.administrators["AMQP_URL"])) as connection:
            try:
                connection.channel().exchange_declare(WRITES_EXCHANGE, passive=True)
            except ChannelClosedByBroker:
                return False
            return True

    wait_until(is_back, "the exchange is made again")


def test_an_operators_account_asks_about_queues_and_takes_nothing_of_them(system: System, urls: dict[str, str]) -> None:
    """On a broker that answers only those who have a right on the queue, too."""
    system.prepare("payments")
    system.start_coordinator("payments")
    keys = ("payments", effects_key("payments"))
    queues = [name(key) for key in keys for name in (queue_name, dead_queue_name)]
    attempts: list[Callable[[Any, str], object]] = [
        lambda channel, queue: channel.basic_get(queue),
        lambda channel, queue: channel.basic_consume(queue, print),
        lambda channel, queue: channel.queue_purge(queue),
        lambda channel, queue: channel.queue_delete(queue),
        lambda channel, queue: publish(channel, "", queue),
        lambda channel, queue: publish(channel, DEAD_EXCHANGE, queue),
        *(
            lambda channel, queue, exchange=exchange, action=action: getattr(channel, action)(
                queue, exchange, "payments"
            )
            for exchange in (WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE)
            for action in ("queue_bind", "queue_unbind")
        ),
    ]
    with pika.BlockingConnection(pika.URLParameters(urls["operator"])) as connection:
        for queue in queues:
            assert connection.channel().queue_declare(queue, passive=True).method.message_count == 0
            for number, attempt in enumerate(attempts):
                channel = connection.channel()
                channel.confirm_delivery()
                with pytest.raises(ChannelClosedByBroker) as refused:
                    attempt(channel, queue)
                assert refused.value.reply_code == ACCESS_REFUSED, (queue, number, refused.value)


def test_a_stranger_is_told_his_outcomes_whatever_addresses_others_write(system: System, urls: dict[str, str]) -> None:
    """An address that the broker cannot decode, or of somebody who has gone, ends no connection of ours."""
    system.prepare("users")
    coordinator = system.start_coordinator("users")
    with pika.BlockingConnection(pika.URLParameters(urls["public"])) as gone:
        address = own_address(gone)
    process, key = address.removeprefix(f"{DIRECT_REPLY}.").split(".")
    raw = base64.b64decode(process)
    others = [raw[:-12] + bytes(each) + raw[-4:] for each in ([0] * 8, [0, 0, 0, 1] * 2, [0, 0, 128, 0] * 2, [255] * 8)]
    node = raw[:-12].replace(b"reply@", b"other@")
    others += [raw + b"x", raw[:-1], b"", node + raw[-12:], b"\x83h\x00", b"\x83P\x7f\xff\xff\xff" + raw]
    made_up = [f"{DIRECT_REPLY}.{base64.b64encode(each).decode()}.{key}" for each in others]
    for reply_to in (address, DIRECT_REPLY + ".", DIRECT_REPLY + ".a.b", f"{address}.{key}", address[:-1], *made_up):
        with pika.BlockingConnection(pika.URLParameters(urls["public"])) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(message_id=str(uuid4()), type="lane.marker", reply_to=reply_to)
            channel.basic_publish(WRITES_EXCHANGE, "users", b"{}", properties, mandatory=True)
        assert ask(urls["public"], "users", "lane.marker", b"{}")["error"]["code"] == "forbidden_command_type"
    assert "broker_connection_lost" not in coordinator.log_path.read_text()


def own_address(connection: Any) -> str:
    """The direct reply-to address of a new channel."""
    returned: list[str] = []
    channel = connection.channel()
    channel.basic_consume(DIRECT_REPLY, print, auto_ack=True)
    channel.add_on_return_callback(lambda _, __, properties, ___: returned.append(properties.reply_to))
    properties = pika.BasicProperties(reply_to=DIRECT_REPLY)
    channel.basic_publish(WRITES_EXCHANGE, "nobody", b"", properties, mandatory=True)
    wait_until(lambda: connection.process_data_events() or bool(returned), "the broker returns it")
    return returned[0]


def engine_rows(system: System, lane: str, statement: str) -> list[tuple[Any, ...]]:
    engine = sql_engine(system.database(lane).database_url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]
    finally:
        engine.dispose()


def publish(channel: Any, exchange: str, routing_key: str) -> None:
    properties = pika.BasicProperties(message_id=str(uuid4()), type="payments.open")
    channel.basic_publish(exchange, routing_key, b"{}", properties)


def ask(url: str, lane: str, command_type: str, body: bytes) -> Any:
    """Publish a command as PROTOCOL.md says, and wait for its outcome."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        outcomes: list[bytes] = []
        channel.basic_consume(DIRECT_REPLY, lambda *message: outcomes.append(message[3]), auto_ack=True)
        account = urlsplit(url).username
        properties = pika.BasicProperties(
            message_id=str(uuid4()), type=command_type, reply_to=DIRECT_REPLY, user_id=account
        )
        channel.basic_publish(WRITES_EXCHANGE, lane, body, properties, mandatory=True)
        wait_until(lambda: connection.process_data_events(0.05) or bool(outcomes), "the outcome")
        return json.loads(outcomes[0])


def post(url: str, body: object) -> Any:
    return call(url, json.dumps(body).encode())


def get(url: str) -> Any:
    return call(url, None)


def call(url: str, body: bytes | None) -> Any:
    headers = HEADERS | {"Content-Type": "application/json", "Idempotency-Key": f'"{uuid4()}"'}
    with urlopen(Request(url, body, headers), timeout=30) as response:
        return json.loads(response.read())
