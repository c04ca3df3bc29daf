"""Whatever comes into the queues of effects, by whatever way: a dead letter of the lane, and the worker goes on."""

import json
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest

from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.servers.server_set import ServerSet
from coordinator.protocol.wire import PACK_CONTENT
from coordinator.service.ids import system_command_id
from coordinator.stores.lane_tables import DeadLetter
from coordinator.transports.rabbitmq.effects.retry_queues import DELAYS_S, retry_key
from coordinator.transports.rabbitmq.rights import OPERATOR
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE
from tests.support.accounts import accounts_of_tests, as_account
from tests.support.callers import HEADERS
from tests.support.letters import dead_letters
from tests.support.rabbitmqctl import evaluate
from tests.support.system import System, wait_until

QUEUE = "effects.payments"
CAPTURE = "payments.effects.capture"
FORGED = json.dumps({"id": 1, "provider_id": "pi_1", "amount": 100, "currency": "EUR"}).encode()
DEEP = b'[{"id": "%s", "type": "%s", "args": %s}]' % (
    str(uuid4()).encode(),
    CAPTURE.encode(),
    b"[" * 1100 + b"]" * 1100,
)


AUTHORIZE = "payments.effects.authorize"
HELD = json.dumps({"id": 4242, "amount": 1234567, "currency": "EUR", "payment_method": "pm_card_visa"}).encode()


def publish(system: System, exchange: str, body: bytes, *, queue: str = QUEUE, **fields: Any) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(system.administrators["AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(**({"message_id": str(uuid4()), "type": CAPTURE, "delivery_mode": 2} | fields))
    channel.basic_publish(exchange, queue, body, properties, mandatory=True)
    connection.close()


def open_payment(system: System) -> int:
    body = {"user_id": 1, "amount": 100, "currency": "EUR", "payment_method": "pm_card_visa"}
    request = urllib.request.Request(
        f"{system.urls['payments']}/payments", json.dumps(body).encode(), HEADERS | {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(json.load(answer)["id"])


def status_of(system: System, payment_id: int) -> str:
    asked = urllib.request.Request(f"{system.urls['payments']}/payments/{payment_id}", headers=HEADERS)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return str(json.load(answer)["status"])


def charged(system: System) -> list[str]:
    """The payments that the provider has charged."""
    with urllib.request.urlopen(f"{system.urls['sandbox']}/sandbox/charges", timeout=20) as answer:
        return [charge["payment_id"] for charge in json.load(answer)["charges"]]


def test_what_is_no_effect_is_a_dead_letter_and_the_worker_goes_on(system: System) -> None:
    system.prepare("payments")
    system.start_sandbox()
    system.start_coordinator("payments")
    system.start_gateway("payments")
    # One place of the prefetch: whatever keeps it stops everything.
    worker = system.start_effects("payments", EFFECTS_CONCURRENCY="1")
    forged_id = system_command_id("whoever")
    for exchange, body, fields in (
        ("", FORGED, {"message_id": forged_id}),
        (SYSTEM_EXCHANGE, DEEP, {"content_type": PACK_CONTENT}),
        (SYSTEM_EXCHANGE, b"[" * 200_000, {"content_type": PACK_CONTENT}),
        (SYSTEM_EXCHANGE, b"[" * 200_000, {}),
        (SYSTEM_EXCHANGE, b"\xff\xfe", {}),
        (SYSTEM_EXCHANGE, FORGED, {"type": "payments.effects.steal"}),
        (
            SYSTEM_EXCHANGE,
            FORGED,
            {"headers": {"asked-at-ms": -1, "calls": "many", "not-before-ms": [1]}, "type": None},
        ),
    ):
        publish(system, exchange, body, **fields)
    payment_id = open_payment(system)
    wait_until(lambda: status_of(system, payment_id) == "authorized", "the payment is authorized")

    def letters() -> list[DeadLetter]:
        return [letter for letter in dead_letters(system, "payments") if letter.target == QUEUE]

    wait_until(lambda: len(letters()) == 7, "every one is a dead letter")
    assert worker.exit_status is None
    (stranger,) = [letter for letter in letters() if letter.code == "not_from_system"]
    assert (stranger.origin, stranger.command_id) == ("public", None), "an id of the form that is the system's own"
    assert "forbidden" not in {letter.code for letter in letters()}


def test_nobody_reaches_the_provider_through_a_queue_of_what_waits(system: System) -> None:
    system.prepare("payments")
    system.start_sandbox()
    system.start_coordinator("payments")
    system.start_effects("payments")
    queues = [retry_key("payments", length_s) for length_s in DELAYS_S.values()]
    for queue in queues:
        publish(system, "", HELD, queue=queue, type=AUTHORIZE)

    def codes() -> list[str]:
        return [letter.code for letter in dead_letters(system, "payments") if letter.target == QUEUE]

    wait_until(lambda: len(codes()) == len(queues), "every one is a dead letter")
    assert set(codes()) == {"not_from_system"}
    assert charged(system) == []


@pytest.mark.faults
def test_what_waits_comes_again_though_the_broker_dead_letters_nothing(
    system: System, native_servers: ServerSet, tmp_path: Path
) -> None:
    """On RabbitMQ 3.10 anybody who may publish can end that, for all queues."""
    assert native_servers
    broker = RabbitMQ(tmp_path / "rabbitmq", accounts=accounts_of_tests())
    broker.directory.mkdir()
    broker.start()
    try:
        system.administrators["AMQP_URL"] = broker.url
        system.environment["AMQP_URL"] = as_account(broker.url, OPERATOR)
        system.prepare("payments")
        system.start_sandbox()
        system.start_coordinator("payments")
        system.start_effects("payments")
        evaluate(broker, "ok = supervisor:terminate_child(rabbit_sup, rabbit_fifo_dlx_sup).")
        publish(system, SYSTEM_EXCHANGE, HELD, queue=retry_key("payments", 1), type=AUTHORIZE)
        wait_until(lambda: charged(system) == ["4242"], "the provider is asked")
        system.stop()
    finally:
        broker.stop()


def test_nobody_reaches_the_effects_through_the_public_exchange(system: System) -> None:
    """Earlier releases bound them there."""
    system.prepare("payments")
    system.start_sandbox()
    system.start_effects("payments")
    connection = pika.BlockingConnection(pika.URLParameters(system.administrators["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_bind(QUEUE, WRITES_EXCHANGE, QUEUE)
    system.start_effects("payments")
    channel.confirm_delivery()
    try:
        channel.basic_publish(WRITES_EXCHANGE, QUEUE, FORGED, pika.BasicProperties(type=CAPTURE), mandatory=True)
    except pika.exceptions.UnroutableError:
        return
    finally:
        connection.close()
    raise AssertionError("it was routed")
