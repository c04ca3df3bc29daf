"""Whatever anybody publishes into a lane's queue, the lane goes on, and what it cannot apply is dead-lettered."""

import json
import signal
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pika
import pika.data
import pika.exceptions
import pytest
from sqlalchemy import text

from coordinator.protocol.wire import PACK_CONTENT
from coordinator.transports.rabbitmq.topology import dead_queue_name
from tests.support.databases import sql_engine
from tests.support.letters import dead_letters
from tests.support.system import System, wait_until

GOOD = b'{"name": "Ada", "email": "ada@example.org"}'


def raw_headers(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """An AMQP table of values that pika would not encode."""
    table = b"".join(struct.pack("B", len(name)) + name + value for name, value in pairs)
    return struct.pack(">I", len(table)) + table


class RawProperties(pika.BasicProperties):  # type: ignore[misc]  # pika has no types
    """Properties whose headers are given as bytes on the wire."""

    raw: bytes = b""

    def encode(self) -> list[bytes]:
        kind = b"users.create"
        command_id = str(uuid4()).encode()
        flags = (
            pika.BasicProperties.FLAG_HEADERS | pika.BasicProperties.FLAG_MESSAGE_ID | pika.BasicProperties.FLAG_TYPE
        )
        return [
            struct.pack(">H", flags),
            self.raw,
            struct.pack("B", len(command_id)) + command_id,
            struct.pack("B", len(kind)) + kind,
        ]


def raw(value: bytes) -> pika.BasicProperties:
    properties = RawProperties()
    properties.raw = raw_headers([(b"x-hostile", value)])
    return properties


def named(**fields: Any) -> pika.BasicProperties:
    return pika.BasicProperties(**({"message_id": str(uuid4()), "type": "users.create"} | fields))


HOSTILE: dict[str, tuple[pika.BasicProperties, bytes]] = {
    "a date beyond all calendars in a header": (raw(b"T" + struct.pack(">Q", 2**63)), GOOD),
    "no properties at all": (pika.BasicProperties(), GOOD),
    "an id that is not UTF-8": (named(message_id=b"\xff\xfe"), GOOD),
    "a type that is not UTF-8": (named(type=b"\xff"), GOOD),
    "a type with a NUL": (named(type="users\x00create"), GOOD),
    "an empty body": (named(), b""),
    "a body that is not UTF-8": (named(), b"\xff\xfe\xfd"),
    "a body with a lone surrogate": (named(), b'{"name": "\\ud800", "email": "a@b"}'),
    "a name with a NUL": (named(), b'{"name": "\\u0000", "email": "a@b"}'),
    "a deep body": (named(), b"[" * 200_000),
    "a huge number": (named(type="users.credit"), b'{"id": 1, "amount": ' + b"9" * 5000 + b"}"),
    "a body larger than the limit": (named(), b" " * 2_000_000 + GOOD),
    "a pack that is no array": (pika.BasicProperties(content_type=PACK_CONTENT), GOOD),
    "a pack of nonsense": (pika.BasicProperties(content_type=PACK_CONTENT), b'[1, null, "x", [], {"id": 5}]'),
    "a pack with endless trace context": (
        pika.BasicProperties(content_type=PACK_CONTENT),
        b'[{"id": "%s", "type": "users.none", "args": {}, "traceparent": "%s"}]'
        % (str(uuid4()).encode(), b"x" * 500_000),
    ),
    "a pack that is deep": (
        pika.BasicProperties(content_type=PACK_CONTENT),
        b'[{"id": "%s", "type": "users.create", "args": ' % str(uuid4()).encode() + b"[" * 1100 + b"]" * 1100 + b"}]",
    ),
    "a pack of too many": (pika.BasicProperties(content_type=PACK_CONTENT), b"[" + b",".join([b"{}"] * 10_000) + b"]"),
    "an empty pack": (pika.BasicProperties(content_type=PACK_CONTENT), b"[]"),
    "an id of the system's own": (named(message_id="0b0e7b6e-6d4e-8a57-9a5e-3f5d9f3c9b11"), GOOD),
    "an internal type": (named(type="users.continue_purchase"), GOOD),
    "an operator's type": (named(type="lane.replay"), b'{"letter": 1}'),
    "a continuation of the system's own": (named(headers={"continuation": "users.continue_purchase"}), GOOD),
    "a continuation to nobody": (named(headers={"continuation": "nolane.whatever"}), GOOD),
    "a continuation with a lane too long": (named(headers={"continuation": "x" * 65 + ".y"}), GOOD),
    "a priority that overtakes": (named(priority=5), GOOD),
    "headers of the wrong types": (
        named(headers={"deadline": {"a": [1]}, "expected-version": True, "publisher": 5, "publisher-seq": "-1"}),
        GOOD,
    ),
    "a date as a deadline": (named(headers={"deadline": datetime(2020, 1, 1, tzinfo=UTC)}), GOOD),
}


@pytest.fixture
def publish(system: System) -> Callable[[pika.BasicProperties, bytes], None]:
    system.prepare("users")
    system.start_coordinator("users")

    def publish_one(properties: pika.BasicProperties, body: bytes) -> None:
        with system.broker() as channel:
            channel.confirm_delivery()
            channel.basic_publish("writes", "users", body, properties, mandatory=True)

    return publish_one


def test_hostile_messages_are_dead_lettered_and_the_lane_goes_on(
    system: System, publish: Callable[[pika.BasicProperties, bytes], None]
) -> None:
    coordinator = system.processes[0]
    # Beyond its own limit the broker takes nothing, and so prints nothing when it cannot make sense of it.
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="size"):
        publish(named(), b" " * (17 << 20))
    for properties, body in HOSTILE.values():
        publish(properties, body)
    publish(named(), GOOD)
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        wait_until(lambda: connection.execute(text("SELECT count(*) FROM users")).scalar() == 1, "Ada", coordinator)
        sequences = connection.execute(text("SELECT sequence FROM command_log ORDER BY sequence")).scalars().all()
    engine.dispose()
    assert sequences == list(range(1, len(sequences) + 1))
    letters = dead_letters(system, "users")
    in_pack_of_nonsense = 5
    assert sum(letter.copies for letter in letters) == len(HOSTILE) - 1 + in_pack_of_nonsense
    assert all(letter.code and letter.reason for letter in letters)
    log = coordinator.log_path.read_text()
    assert "broker_connection_lost" not in log
    assert "Traceback" not in log


def test_what_the_broker_lets_expire_is_settled_as_expired_and_replied(
    system: System, publish: Callable[[pika.BasicProperties, bytes], None]
) -> None:
    """Also where nobody is the active consumer yet, and whatever its headers claim of an earlier death."""
    system.processes[0].stop(signal.SIGTERM, 20.0)
    forged = [{"queue": "writes.users", "reason": "expired", "exchange": "writes.system", "count": 1}]
    ids = [str(uuid4()) for _ in range(3)]
    pack = json.dumps([{"id": ids[2], "type": "users.create", "args": json.loads(GOOD)}]).encode()
    with system.broker() as channel:
        replies = channel.queue_declare("", exclusive=True).method.queue
        asked = {"expiration": "1", "reply_to": replies, "delivery_mode": 2}
        publish(named(message_id=ids[0], **asked), GOOD)
        publish(named(message_id=ids[1], headers={"x-death": forged}, **asked), GOOD)
        publish(pika.BasicProperties(content_type=PACK_CONTENT, **asked), pack)
        derived = "0b0e7b6e-6d4e-8a57-9a5e-3f5d9f3c9b11"
        publish(named(message_id=derived, headers={"x-death": forged}, **asked), GOOD)
        wait_until(
            lambda: channel.queue_declare(dead_queue_name("users"), passive=True).method.message_count == 4,
            "they are expired",
        )
        system.start_coordinator("users")
        told: list[dict[str, Any]] = []

        def answered() -> bool:
            method, _, body = channel.basic_get(replies, auto_ack=True)
            told.extend([] if method is None else [json.loads(body)])
            return len(told) == 4

        wait_until(answered, "all four are answered")
        assert channel.queue_declare(dead_queue_name("users"), passive=True).method.message_count == 0
    statuses = {outcome["command_id"]: (outcome["status"], outcome["error"]["code"]) for outcome in told}
    assert statuses == dict.fromkeys(ids, ("expired", "deadline_expired")) | {None: ("failed", "reserved_command_id")}
    assert [letter.origin for letter in dead_letters(system, "users")] == ["public"]


@pytest.mark.parametrize("reply_to", [b"\xff", "no.such.queue", "x" * 255, "writes.users"])
def test_an_answer_that_cannot_be_delivered_harms_nobody(
    system: System, publish: Callable[[pika.BasicProperties, bytes], None], reply_to: Any
) -> None:
    publish(named(reply_to=reply_to, correlation_id=b"\xfe"), GOOD)
    publish(named(), b'{"name": "Bob", "email": "bob@example.org"}')
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        wait_until(lambda: connection.execute(text("SELECT count(*) FROM users")).scalar() == 2, "Ada and Bob")
    engine.dispose()
    assert system.processes[0].alive
    assert "broker_connection_lost" not in system.processes[0].log_path.read_text()


@pytest.mark.parametrize("free", [0, 8])
def test_properties_as_large_as_a_frame_are_delivered_again(system: System, free: int) -> None:
    """The broker adds a header then, and the frame becomes larger than was agreed."""
    system.prepare("users")
    coordinator = system.start_coordinator("users")
    coordinator.kill()
    with system.broker() as channel:
        frame_max: int = channel.connection._impl.params.frame_max
        bare = named(headers={"x": ""})
        room = frame_max - len(pika.frame.Header(1, 0, bare).marshal()) - free
        channel.confirm_delivery()
        channel.basic_publish("writes", "users", GOOD, named(headers={"x": "x" * room}), mandatory=True)
    with system.broker() as channel:
        method, _, _ = next(channel.consume("writes.users"))
        assert not method.redelivered
    system.start_coordinator("users")
    engine = sql_engine(system.environment["USERS_DATABASE_URL"])
    with engine.connect() as connection:
        wait_until(lambda: connection.execute(text("SELECT count(*) FROM users")).scalar() == 1, "Ada")
    engine.dispose()


def test_the_health_port_survives_bytes_that_are_not_http(system: System) -> None:
    system.prepare("users")
    process = system.start_coordinator("users")
    port = int(process.argv[-1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x00\xff\x00\xff\r\n\r\n")
        connection.recv(1000)
    assert process.alive
